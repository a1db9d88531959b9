"""Queues whose work the test does, on the driver `queue_driver.c`."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path

from hesper.kernel.timelines import Timeline
from hesper.protocol.codec import Codec
from kernel.conftest import BOUND, Host

QUEUE, RING_IDX = 7, 5
SEMAPHORE = 9
CODEC = Codec()


class QueueHost:
    """An engine with queues whose submissions are done when `finish` is called."""

    def __init__(self, library: Path, *queues: int) -> None:
        """library: of `queue_driver.c`; queues: their guest ids."""
        self.driver = ctypes.CDLL(str(library))
        self.driver.fence_of.restype = ctypes.c_uint64
        self.driver.reset()
        self.host = Host(library)
        self.engine = self.host.engine
        for queue in queues:
            self.engine.objects.add(queue, "VkQueue", 10 * queue, device=3, parent=3)

    @property
    def fences(self) -> list[bool]:
        """Which submissions had a fence."""
        return [bool(self.driver.fence_of(i)) for i in range(self.driver.submissions())]

    def finish(self) -> None:
        """All submissions are done."""
        self.driver.finish(self.driver.submissions())


class Queue(QueueHost):
    """A queue with a timeline.  Life: made, `close`d."""

    def __init__(self, library: Path) -> None:
        super().__init__(library, QUEUE)
        self.refusals: list[int] = []
        self.timeline = self.bind()
        self.retired: list[int] = []
        self._changed = threading.Condition()

    def bind(self) -> Timeline:
        return self.engine.timelines.bind(RING_IDX, QUEUE, self.refusals.append)

    def submit(self, *, fence: int = 0) -> None:
        """The guest submits something."""
        parameters = {"queue": QUEUE, "submitCount": 0, "pSubmits": None, "fence": fence}
        self.engine.submit(CODEC.encode("vkQueueSubmit", parameters))

    def signal(self, command: str, value: int, *, empty: int = 0) -> None:
        """The guest submits something that signals a semaphore: a timeline if `value` is not 0.

        empty: batches before the one that does.
        """
        if command == "vkQueueSubmit":
            values = {"signalSemaphoreValueCount": 1, "pSignalSemaphoreValues": [value]}
            chain = [("VkTimelineSemaphoreSubmitInfo", values)] if value else []
            batch = {"pNext": chain, "signalSemaphoreCount": 1, "pSignalSemaphores": [SEMAPHORE]}
        else:
            info = {"semaphore": SEMAPHORE, "value": value}
            batch = {"signalSemaphoreInfoCount": 1, "pSignalSemaphoreInfos": [info]}
        nothing: dict[str, object] = {}
        batches = [nothing] * empty + [batch]
        parameters = {"queue": QUEUE, "submitCount": len(batches), "pSubmits": batches}
        self.engine.submit(CODEC.encode(command, parameters))

    def fence(self, number: int) -> None:
        """Ask for a fence; `retired` gets its number."""

        def retire() -> None:
            with self._changed:
                self.retired.append(number)
                self._changed.notify_all()

        self.engine.fence(RING_IDX, retire)

    def wait_retired(self, *numbers: int) -> None:
        with self._changed:
            expected = list(numbers)
            assert self._changed.wait_for(lambda: self.retired == expected, BOUND), self.retired

    def close(self) -> None:
        self.finish()
        self.timeline.stop(BOUND)
        assert self.driver.live_fences() == 0
