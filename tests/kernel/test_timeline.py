"""Fences of a queue's timeline: when they retire, and what they cost the queue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hesper.kernel.errors import ProtocolError
from kernel.queue_host import QUEUE, SEMAPHORE, Queue

OUT_OF_MEMORY, DEVICE_LOST = -2, -4


@pytest.fixture
def queue(queue_driver: Path) -> Iterator[Queue]:
    queue = Queue(queue_driver)
    yield queue
    queue.close()


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
