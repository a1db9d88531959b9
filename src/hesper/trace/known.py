"""How far the guest knew that its work had come, by what it was answered when it looked."""

from __future__ import annotations

from typing import Any

from hesper.trace.decoded import Decoded, decode, name_of
from hesper.trace.records import EARLIER, NESTED, Record, command_of
from hesper.trace.submits import SUBMISSIONS, batches
from hesper.vk.enumerants import VK_SUCCESS

_OF_RINGS = frozenset({"vkCreateRingMESA", "vkWaitRingSeqnoMESA"})
"""Commands that say how far a ring has to have come."""

MOST_RINGS = 1024
"""That are counted; with more, it is not known how far they have come."""
MOST_WAITING = 1024
"""Fences that wait for rings at a time; of more it is not known what they cover."""
_PLACES = 1 << 32
"""Places in a ring are counted up to there."""
_TIMELINE = "VkDeviceQueueTimelineInfoMESA"


class _Asked:
    """A fence that the frontend was asked for."""

    def __init__(self, queue: int, waits: dict[int, int]) -> None:
        """Of a queue, when rings have come to where they are waited for."""
        self.queue = queue
        self.waits = waits
        self.covers = 0
        """How many of the queue's submissions are done when it is through."""


class Known:
    """What of the recorded work the guest knew to be done, at a place in the recording.

    A queue's submissions are counted: who knows that one is done knows it of those before.
    """

    def __init__(self) -> None:
        """Nothing was submitted."""
        self._submitted: dict[int, int] = {}
        self._done: dict[int, int] = {}
        self._devices: dict[int, int] = {}
        """Of queues."""
        self._timelines: dict[int, int] = {}
        """Queues by their timelines."""
        self._heads: dict[int, int] = {}
        """By rings, how many bytes of them have run."""
        self._is_counting = True
        self._held: dict[int, int] = {}
        """By rings, where they are waited for by the context's own stream."""
        self._asked: dict[tuple[int, int], _Asked] = {}
        """By timeline and number."""
        self._waiting: dict[tuple[int, int], _Asked] = {}
        """Of these, those that wait for a ring."""
        self._fences: dict[int, tuple[int, int]] = {}
        """By fences, the queue and how many submissions of it are done when it is signalled."""
        self._values: dict[int, list[tuple[int, int, int]]] = {}
        """By semaphores, values with the same."""

    @property
    def is_all(self) -> bool:
        """Whether the guest knew that all was done."""
        return all(self._done.get(queue, 0) >= made for queue, made in self._submitted.items())

    def passed(self, record: Record) -> None:
        """Take note that a COMMAND has run, and with it what stands in its ring."""
        data = command_of(record).data
        if name_of(data) in _OF_RINGS:
            self._ring(decode(0, record))
        if record.flags & NESTED:
            return
        # How far a ring had come is not told where its beginning is not there.
        self._is_counting &= not record.flags & EARLIER
        ring = record.stream
        self._heads[ring] = self._heads.get(ring, 0) + len(data)
        self._is_counting &= len(self._heads) <= MOST_RINGS and len(self._held) <= MOST_RINGS
        if not self._is_counting:
            self._heads.clear()
            self._held.clear()
        for key, asked in list(self._waiting.items()):
            if ring in asked.waits:
                self._look(key, asked)

    def _ring(self, then: Decoded) -> None:
        parameters = then.parameters or {}
        ring = parameters.get("ring") or 0
        if then.name == "vkCreateRingMESA":
            self._heads[ring] = 0
        else:
            self._held[ring] = parameters.get("seqno") or 0

    def fence(self, timeline: int, number: int) -> None:
        """Take note that the frontend was asked for a fence."""
        queue = self._timelines.get(timeline)
        if queue is not None and self._is_counting and len(self._waiting) < MOST_WAITING:
            key = (timeline, number)
            waits = {ring: at for ring, at in self._held.items() if not self._has_come(ring, at)}
            asked = self._asked[key] = self._waiting[key] = _Asked(queue, waits)
            self._look(key, asked)

    def retired(self, timeline: int, number: int) -> None:
        """Take note that such a fence was through."""
        self._waiting.pop((timeline, number), None)
        asked = self._asked.pop((timeline, number), None)
        if asked is not None and not asked.waits:
            self._reach(asked.queue, asked.covers)

    def _look(self, key: tuple[int, int], asked: _Asked) -> None:
        """See what a fence is still to wait for, and what it covers if that is nothing."""
        for ring, place in list(asked.waits.items()):
            if self._has_come(ring, place):
                del asked.waits[ring]
        if not asked.waits:
            self._waiting.pop(key, None)
            asked.covers = self._submitted.get(asked.queue, 0)

    def _has_come(self, ring: int, place: int) -> bool:
        return (self._heads.get(ring, 0) - place) % _PLACES < _PLACES // 2

    def note(self, then: Decoded) -> None:
        """Take note of a command as it was recorded."""
        parameters = then.parameters or {}
        if then.name in SUBMISSIONS:
            self._submit(parameters, is_done=then.is_earlier)
        elif then.name in ("vkGetDeviceQueue", "vkGetDeviceQueue2"):
            self._queue(parameters)
        elif then.name == "vkResetFences":
            for fence in parameters.get("pFences") or []:
                self._fences.pop(fence, None)
        elif then.name == "vkGetSemaphoreCounterValue" and then.result == VK_SUCCESS:
            self._count(parameters.get("semaphore") or 0, then.outputs.get("pValue") or 0)
        elif then.result == VK_SUCCESS:
            self._waited(then.name, parameters)

    def _queue(self, parameters: dict[str, Any]) -> None:
        queue = parameters.get("pQueue") or 0
        self._devices[queue] = parameters.get("device") or 0
        chain = dict((parameters.get("pQueueInfo") or {}).get("pNext") or [])
        if _TIMELINE in chain:
            self._timelines[chain[_TIMELINE].get("ringIdx") or 0] = queue

    def _submit(self, parameters: dict[str, Any], *, is_done: bool) -> None:
        queue = parameters.get("queue") or 0
        made = self._submitted[queue] = self._submitted.get(queue, 0) + 1
        if is_done:
            self._reach(queue, made)
        fence = parameters.get("fence") or 0
        if fence:
            self._fences[fence] = (queue, made)
        for batch in batches(parameters):
            for semaphore, value in batch.signals:
                if value:
                    self._values.setdefault(semaphore, []).append((value, queue, made))

    def _waited(self, name: str, parameters: dict[str, Any]) -> None:
        """Take note of a wait that has succeeded."""
        if name in ("vkWaitForFences", "vkWaitSemaphores"):
            self._waited_for_several(parameters)
        elif name == "vkQueueWaitIdle":
            queue = parameters.get("queue") or 0
            self._reach(queue, self._submitted.get(queue, 0))
        elif name == "vkDeviceWaitIdle":
            for queue, device in self._devices.items():
                if device == parameters.get("device"):
                    self._reach(queue, self._submitted.get(queue, 0))
        elif name == "vkGetFenceStatus":
            self._signalled([parameters.get("fence") or 0])

    def _waited_for_several(self, parameters: dict[str, Any]) -> None:
        fences = parameters.get("pFences") or []
        info = parameters.get("pWaitInfo") or {}
        counted = list(zip(info.get("pSemaphores") or [], info.get("pValues") or [], strict=False))
        # Else it was for any of them.
        is_for_all = parameters.get("waitAll") if fences else not info.get("flags")
        if is_for_all or len(fences) + len(counted) == 1:
            self._signalled(fences)
            for semaphore, value in counted:
                self._count(semaphore, value)

    def _signalled(self, fences: list[int]) -> None:
        for fence in fences:
            self._reach(*self._fences.get(fence, (0, 0)))

    def _count(self, semaphore: int, value: int) -> None:
        left = []
        for each in self._values.get(semaphore, []):
            if each[0] <= value:
                self._reach(*each[1:])
            else:
                left.append(each)
        if semaphore in self._values:
            self._values[semaphore] = left

    def _reach(self, queue: int, made: int) -> None:
        self._done[queue] = max(self._done.get(queue, 0), made)
