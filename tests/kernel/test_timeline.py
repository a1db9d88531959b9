"""Fences of a queue's timeline: when they retire, and what they cost the queue."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hesper.kernel.errors import ProtocolError
from hesper.kernel.timelines import Timeline
from hesper.protocol.codec import Codec
from kernel.conftest import Host

QUEUE, RING_IDX = 7, 5
BOUND = 20.0
"""Seconds a condition may take."""
OUT_OF_MEMORY, DEVICE_LOST = -2, -4
SEMAPHORE = 9
CODEC = Codec()


class Queue:
    """An engine with a queue whose submissions are done when `finish` is called."""

    def __init__(self, library: Path) -> None:
        self.driver = ctypes.CDLL(str(library))
        self.driver.fence_of.restype = ctypes.c_uint64
        self.driver.reset()
        self.host = Host(library)
        self.engine = self.host.engine
        self.engine.objects.add(QUEUE, "VkQueue", 70, device=3, parent=3)
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

    @property
    def fences(self) -> list[bool]:
        """Which submissions had a fence."""
        return [bool(self.driver.fence_of(i)) for i in range(self.driver.submissions())]

    def finish(self) -> None:
        """All submissions are done."""
        self.driver.finish(self.driver.submissions())


@pytest.fixture
def queue(queue_driver: Path) -> Iterator[Queue]:
    queue = Queue(queue_driver)
    yield queue
    queue.finish()
    queue.timeline.stop(BOUND)
    assert queue.driver.live_fences() == 0


def test_an_idle_queue_is_through_at_once(queue: Queue) -> None:
    queue.fence(1)
    assert queue.retired == [1]
    assert queue.fences == []
    queue.submit()
    queue.fence(2)
    queue.finish()
    queue.wait_retired(1, 2)
    queue.fence(3)
    assert queue.retired == [1, 2, 3]
    assert queue.fences == [False, True]


def test_fences_retire_when_the_queue_gets_there(queue: Queue) -> None:
    for number in range(3):
        queue.submit()
        queue.fence(number)
    assert queue.retired == []
    # The first fence is a submission of its own.
    assert queue.fences == [False, True, True, True]
    queue.driver.finish(3)
    queue.wait_retired(0, 1)
    queue.finish()
    queue.wait_retired(0, 1, 2)


def test_submissions_take_the_fence_along_while_it_is_asked_for(queue: Queue) -> None:
    queue.submit()
    queue.fence(1)  # from now on they do
    queue.submit()
    queue.submit()  # nobody has asked for the fence of the one before
    queue.fence(2)
    queue.submit()
    queue.fence(3)
    assert queue.fences == [False, True, True, False, True, True]
    queue.finish()
    queue.wait_retired(1, 2, 3)


@pytest.mark.parametrize("empty", [0, 2])
@pytest.mark.parametrize("command", ["vkQueueSubmit", "vkQueueSubmit2"])
def test_no_fence_is_taken_along_by_what_signals_a_timeline(
    queue: Queue, command: str, empty: int
) -> None:
    """The driver may signal such a fence before it has noted the semaphore's new value."""
    queue.engine.objects.add(SEMAPHORE, "VkSemaphore", 90, device=3, parent=3)
    queue.submit()
    queue.fence(1)  # from now on submissions take one along
    queue.signal(command, 5, empty=empty)
    queue.fence(2)
    assert queue.fences == [False, True, False, True]
    queue.signal(command, 0, empty=empty)
    queue.fence(3)
    assert queue.fences == [False, True, False, True, True]
    queue.finish()
    queue.wait_retired(1, 2, 3)


def test_fences_that_nobody_asks_for_are_used_again(queue: Queue) -> None:
    for number in range(50):
        queue.submit()
        queue.fence(number)
        queue.finish()
        queue.wait_retired(*range(number + 1))
        queue.submit()
        queue.submit()
    assert queue.driver.live_fences() <= 4


def test_fences_in_flight_that_nobody_asks_for_have_a_bound(queue: Queue) -> None:
    for number in range(50):
        queue.submit()
        queue.fence(number)
        queue.submit()
    # Pending ones, and the few that may be in flight for nothing.
    assert queue.driver.live_fences() <= 50 + 8
    queue.finish()
    queue.wait_retired(*range(50))


def test_the_guests_own_fence_stays(queue: Queue) -> None:
    queue.engine.objects.add(9, "VkFence", 1234, device=3, parent=3)
    queue.submit()
    queue.fence(1)
    queue.submit(fence=9)
    queue.fence(2)
    assert queue.driver.fence_of(2) == 1234
    assert queue.fences == [False, True, True, True]
    queue.finish()
    queue.wait_retired(1, 2)


def test_a_queue_that_takes_no_fence_counts_as_through(queue: Queue) -> None:
    queue.submit()
    queue.driver.refuse(OUT_OF_MEMORY)
    queue.fence(1)
    queue.wait_retired(1)
    queue.fence(2)
    queue.wait_retired(1, 2)
    assert queue.refusals == [OUT_OF_MEMORY]
    assert queue.host.notices == []


def test_fences_of_a_lost_device_count_as_through(queue: Queue) -> None:
    queue.submit()
    queue.fence(1)
    queue.submit()
    queue.driver.answer_fences(DEVICE_LOST)
    queue.fence(2)
    queue.wait_retired(1, 2)
    # The driver may say something else the next time.
    queue.driver.answer_fences(0)
    queue.submit()
    queue.fence(3)
    queue.wait_retired(1, 2, 3)
    assert queue.refusals == []
    assert [event for event, _ in queue.host.notices] == ["device lost"]


def test_a_refused_submission_leaves_no_fence_behind(queue: Queue) -> None:
    queue.submit()
    queue.fence(1)
    queue.finish()
    queue.wait_retired(1)
    queue.driver.refuse(OUT_OF_MEMORY)
    queue.submit()
    queue.driver.refuse(0)
    # The guest has not heard of it, so that the device is lost.
    queue.fence(2)
    queue.wait_retired(1, 2)
    assert queue.fences == [False, True]


def test_stop_gives_up_at_its_deadline(queue: Queue) -> None:
    queue.submit()
    queue.fence(1)
    assert not queue.timeline.stop(0.01)
    assert queue.retired == [1]
    with pytest.raises(KeyError):
        queue.fence(2)
    queue.timeline = queue.bind()
    queue.driver.reset()


def test_a_timeline_has_one_queue_and_a_queue_one_timeline(queue: Queue) -> None:
    with pytest.raises(ProtocolError, match="timeline 5 is bound already"):
        queue.bind()
    with pytest.raises(ProtocolError, match="queue 7 has a timeline already"):
        queue.engine.timelines.bind(6, QUEUE, queue.refusals.append)
    with pytest.raises(ProtocolError, match="out of range"):
        queue.engine.timelines.bind(0, QUEUE, queue.refusals.append)
    with pytest.raises(KeyError):
        queue.engine.timelines.bind(6, 99, queue.refusals.append)


def test_a_poisoned_context_retires_at_once(queue: Queue) -> None:
    queue.submit()
    queue.engine.poison("a reason")
    queue.fence(1)
    assert queue.retired == [1]
