"""Which commands a replay treats in which way."""

from __future__ import annotations

from hesper.trace.places import FREES
from hesper.trace.plan import BINDS
from hesper.trace.submits import SUBMISSIONS
from hesper.trace.translate import MAKES_QUEUES

TRANSPORT = frozenset(
    {
        "vkCreateRingMESA",
        "vkDestroyRingMESA",
        "vkNotifyRingMESA",
        "vkWriteRingExtraMESA",
        "vkSubmitVirtqueueSeqnoMESA",
        "vkWaitVirtqueueSeqnoMESA",
        "vkWaitRingSeqnoMESA",
        "vkSetReplyCommandStreamMESA",
        "vkSeekReplyCommandStreamMESA",
        "vkExecuteCommandStreamsMESA",
    }
)
"""Commands of the guest's way to us, which a replay has no use for."""

_FREE = (
    "vkCmd",
    "vkCreate",
    "vkEnumerate",
    "vkWait",
    "vkGetPhysical",
    "vkGetDevice",
    "vkGetBuffer",
)
_FREE_TOO = SUBMISSIONS | {"vkSignalSemaphore", "vkSetEvent", "vkEndCommandBuffer"}

_QUESTIONS = ("vkEnumerate", "vkGetPhysicalDevice")

_ANSWERED_IN_TIME = frozenset(
    {
        "vkGetFenceStatus",
        "vkGetEventStatus",
        "vkGetSemaphoreCounterValue",
        "vkWaitForFences",
        "vkWaitSemaphores",
        "vkGetQueryPoolResults",
    }
)

_WAITS = _ANSWERED_IN_TIME | {
    "vkResetFences",
    "vkQueueWaitIdle",
    "vkDeviceWaitIdle",
    "vkCreateSemaphore",
    "vkDestroySemaphore",
    "vkSignalSemaphore",
}
NOTED = (
    MAKES_QUEUES
    | BINDS.keys()
    | SUBMISSIONS
    | _WAITS
    | FREES.keys()
    | {"vkAllocateMemory", "vkCreateBuffer", "vkCreateImage"}
)
"""Commands that are looked at in any case."""


def leaves_work_alone(name: str) -> bool:
    """Whether a command does no harm to work that is under way."""
    return name.startswith(_FREE) or name in _FREE_TOO


def is_question(name: str) -> bool:
    """Whether a command asks what a driver offers."""
    return name.startswith(_QUESTIONS)


def depends_on_time(name: str) -> bool:
    """Whether a command's answer is another where work is further."""
    return name in _ANSWERED_IN_TIME
