"""How far submitted work can come: what submissions wait for and signal."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from hesper.trace.submits import SUBMISSIONS, Batch, batches
from hesper.vk.enumerants import VK_SEMAPHORE_TYPE_TIMELINE

if TYPE_CHECKING:
    from hesper.trace.decoded import Decoded

WAITS_FOR_EVENTS = frozenset({"vkCmdWaitEvents", "vkCmdWaitEvents2"})

_TYPE = "VkSemaphoreTypeCreateInfo"


class Countdown:
    """Does something when it has been told often enough, by any threads."""

    def __init__(self, left: int, then: Callable[[], object]) -> None:
        """Do `then` after `left` times, at least once."""
        self._left = left
        self._then = then
        self._lock = threading.Lock()

    def less(self) -> None:
        """Count one."""
        with self._lock:
            self._left -= 1
            is_over = self._left == 0
        if is_over:
            self._then()


class Work:
    """What was submitted here, and which of it waits for what is not submitted yet.

    A semaphore that does not count is taken as one that counts its signals: who waits for it waits
    for as many as were submitted before.
    """

    def __init__(self) -> None:
        """There is none."""
        self._counting: set[int] = set()
        """Semaphores that count, by their ids."""
        self._made: dict[int, int] = {}
        """Of the others, how many signals were submitted."""
        self._reached: dict[int, int] = {}
        """What semaphores have come to."""
        self._queues: dict[int, deque[Batch]] = {}
        """Work that has not ended, as far as is known."""

    def note(self, then: Decoded) -> None:
        """Take note of a command that is told."""
        parameters = then.parameters or {}
        if then.name in SUBMISSIONS:
            queue = self._queues.setdefault(parameters.get("queue") or 0, deque())
            queue.extend(self._counted(batch) for batch in batches(parameters))
        elif then.name == "vkCreateSemaphore":
            info = dict((parameters.get("pCreateInfo") or {}).get("pNext") or []).get(_TYPE) or {}
            semaphore = parameters.get("pSemaphore") or 0
            self._forget(semaphore)
            if info.get("semaphoreType") == VK_SEMAPHORE_TYPE_TIMELINE:
                self._counting.add(semaphore)
                self._reach(semaphore, info.get("initialValue") or 0)
        elif then.name == "vkSignalSemaphore":
            info = parameters.get("pSignalInfo") or {}
            self._reach(info.get("semaphore") or 0, info.get("value") or 0)
        elif then.name == "vkDestroySemaphore":
            self._forget(parameters.get("semaphore") or 0)

    def blocked(self) -> set[int]:
        """The queues whose work does not end by itself: it waits for what comes later."""
        goes_on = True
        while goes_on:
            goes_on = False
            for queue in self._queues.values():
                while queue and all(
                    self._reached.get(semaphore, 0) >= value for semaphore, value in queue[0].waits
                ):
                    goes_on = True
                    for semaphore, value in queue.popleft().signals:
                        self._reach(semaphore, value)
        return {queue for queue, left in self._queues.items() if left}

    def _counted(self, batch: Batch) -> Batch:
        made, counting = self._made, self._counting
        waits = [
            (semaphore, value if semaphore in counting else made.get(semaphore, 0))
            for semaphore, value in batch.waits
        ]
        signals = []
        for semaphore, value in batch.signals:
            if semaphore not in counting:
                made[semaphore] = made.get(semaphore, 0) + 1
            signals.append((semaphore, value if semaphore in counting else made[semaphore]))
        return Batch(batch.buffers, waits, signals)

    def _reach(self, semaphore: int, value: int) -> None:
        self._reached[semaphore] = max(self._reached.get(semaphore, 0), value)

    def _forget(self, semaphore: int) -> None:
        self._counting.discard(semaphore)
        self._made.pop(semaphore, None)
        self._reached.pop(semaphore, None)
