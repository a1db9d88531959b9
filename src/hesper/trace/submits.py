"""What submissions wait for and signal, however they are written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

SUBMISSIONS = frozenset({"vkQueueSubmit", "vkQueueSubmit2", "vkQueueBindSparse"})
"""Commands that give a queue work."""

_VALUES = "VkTimelineSemaphoreSubmitInfo"


class Batch(NamedTuple):
    """A VkSubmitInfo, VkSubmitInfo2 or VkBindSparseInfo."""

    buffers: list[int]
    """Ids of command buffers."""
    waits: list[tuple[int, int]]
    """Semaphores, and values of those that count."""
    signals: list[tuple[int, int]]


def batches(parameters: dict[str, Any]) -> Iterator[Batch]:
    """The batches of one of `SUBMISSIONS`, in their order."""
    for info in parameters.get("pSubmits") or parameters.get("pBindInfo") or []:
        values = dict(info.get("pNext") or []).get(_VALUES) or {}
        buffers = list(info.get("pCommandBuffers") or [])
        buffers += [each["commandBuffer"] for each in info.get("pCommandBufferInfos") or []]
        yield Batch(buffers, _semaphores(info, values, "Wait"), _semaphores(info, values, "Signal"))


def _semaphores(info: dict[str, Any], values: dict[str, Any], what: str) -> list[tuple[int, int]]:
    counts = values.get(f"p{what}SemaphoreValues") or []
    named = info.get(f"p{what}Semaphores") or []
    found = [(each, counts[at] if at < len(counts) else 0) for at, each in enumerate(named)]
    infos = info.get(f"p{what}SemaphoreInfos") or []
    return found + [(each["semaphore"], each.get("value") or 0) for each in infos]
