"""Who watches sees how long queues work, and what happened when; nobody else pays for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from struct import Struct

import pytest

from hesper.kernel.watch import SPAN_BYTES, STAGE_NAMES, Watch, command_name
from hesper.portable import SharedMemory
from kernel.conftest import BOUND, wait_for
from kernel.queue_host import RING_IDX, Queue
from kernel.test_timeline import OUT_OF_MEMORY

SPAN = Struct("=QQIIQ")
LONG = 3_600_000_000_000
"""An hour in ns."""
QUEUE_WORK, FENCE = 2, 3


@pytest.fixture
def queue(queue_driver: Path) -> Iterator[Queue]:
    queue = Queue(queue_driver)
    yield queue
    queue.close()


def watch_of(queue: Queue) -> Watch:
    return queue.engine.watch


def busy(queue: Queue) -> int:
    return watch_of(queue).queues()[1]


def spans_in(memory: SharedMemory) -> list[tuple[int, ...]]:
    found = [SPAN.unpack_from(memory.view, at) for at in range(0, memory.size, SPAN.size)]
    return [span for span in found if span[0]]


def test_while_nobody_watches_no_submission_pays(queue: Queue) -> None:
    for _ in range(5):
        queue.submit()
    assert queue.fences == [False] * 5
    assert watch_of(queue).queues() == (5, 0)


def test_a_queue_is_timed_while_somebody_watches(queue: Queue) -> None:
    watch_of(queue).attend(LONG)
    queue.submit()
    # It takes a fence along, which nobody has asked for.
    assert queue.fences == [True]
    assert busy(queue) == 0
    time.sleep(0.01)  # what is measured is at least that long
    queue.finish()
    wait_for(lambda: busy(queue) > 0, "the queue to be timed")
    assert busy(queue) >= 10_000_000
    queue.submit()
    assert queue.fences == [True, True]
    assert watch_of(queue).queues()[0] == 2


def test_work_in_a_row_is_counted_once(queue: Queue) -> None:
    watch_of(queue).attend(LONG)
    began = time.monotonic_ns()
    for _ in range(20):
        queue.submit()
    queue.finish()
    queue.submit()
    queue.finish()
    queue.fence(1)
    queue.wait_retired(1)
    assert busy(queue) <= time.monotonic_ns() - began


def test_nobody_is_timed_when_the_watch_is_over(queue: Queue) -> None:
    watch_of(queue).attend(1)
    queue.submit()
    assert queue.fences == [False]
    watch_of(queue).attend(LONG)
    watch_of(queue).attend(1)  # shortens nothing
    queue.submit()
    assert queue.fences == [False, True]


def test_a_guests_fence_behind_timed_work_costs_no_submission(queue: Queue) -> None:
    watch_of(queue).attend(LONG)
    queue.submit()
    queue.fence(1)
    queue.submit()
    queue.fence(2)
    assert queue.fences == [True, True]
    assert queue.retired == []
    queue.driver.finish(1)
    queue.wait_retired(1)
    queue.finish()
    queue.wait_retired(1, 2)


def test_fences_of_who_watches_take_none_of_the_guests(queue: Queue) -> None:
    watch_of(queue).attend(LONG)
    for _ in range(10):
        queue.submit()
    assert queue.engine.ledger.figures()["fences"] == 0
    queue.fence(1)
    assert queue.engine.ledger.figures()["fences"] == 1
    queue.finish()
    queue.wait_retired(1)
    assert queue.engine.ledger.figures()["fences"] == 0


def test_who_watches_asks_for_few_fences_at_a_time(queue: Queue) -> None:
    watch_of(queue).attend(LONG)
    for _ in range(500):
        queue.submit()
    assert queue.driver.live_fences() <= 64 + 8 + 1
    queue.finish()
    wait_for(lambda: busy(queue) > 0, "the queue to be timed")


def test_a_queue_that_takes_no_fence_is_not_timed(queue: Queue) -> None:
    watch_of(queue).attend(LONG)
    queue.driver.refuse(OUT_OF_MEMORY)
    queue.submit()
    queue.fence(1)
    queue.wait_retired(1)
    assert busy(queue) == 0


def test_streams_say_what_they_do(queue: Queue) -> None:
    assert watch_of(queue).streams(9) == [("asleep", "")]
    assert watch_of(queue).streams(0) == [("asleep", "")]
    queue.submit()
    ((stage, command),) = watch_of(queue).streams(9)
    assert stage in STAGE_NAMES
    assert command in {"", "vkQueueSubmit"}


def test_names_of_commands() -> None:
    names = {command_name(number) for number in range(1000)}
    assert {"vkQueueSubmit", "vkCmdDraw", ""} <= names
    assert command_name((1 << 32) - 1) == ""


def traced(queue: Queue, memory: SharedMemory, size: int) -> threading.Thread:
    """A trace that goes on until `end_trace`."""
    arguments = (memory.address, size, LONG, 100_000)
    thread = threading.Thread(target=watch_of(queue).trace, args=arguments)
    thread.start()
    # Once it has begun there is no other.
    other = (memory.address, 0, 1, 1)
    wait_for(lambda: not watch_of(queue).trace(*other), "the trace to begin")
    return thread


def test_a_trace_has_the_queues_work_and_the_guests_fences(queue: Queue) -> None:
    assert SPAN.size == SPAN_BYTES
    with SharedMemory.create(1 << 16, "trace") as memory:
        began = time.monotonic_ns()
        thread = traced(queue, memory, memory.size)
        queue.submit()
        queue.fence(1)
        queue.finish()
        queue.wait_retired(1)
        wait_for(lambda: len(spans_in(memory)) >= 2, "both to be noted")
        watch_of(queue).end_trace()
        thread.join(BOUND)
        ended = time.monotonic_ns()
        found = spans_in(memory)
        queue.submit()
        queue.fence(2)
        queue.finish()
        queue.wait_retired(1, 2)
        assert spans_in(memory) == found, "noted after the trace"
    kinds = [kind for _, _, kind, _, _ in found if kind in {QUEUE_WORK, FENCE}]
    assert sorted(kinds) == [QUEUE_WORK, FENCE]
    for begin, end, kind, track, value in found:
        assert began <= begin <= end <= ended
        if kind in {QUEUE_WORK, FENCE}:
            assert (track, value) == (RING_IDX, 1)


def test_a_trace_keeps_to_its_memory(queue: Queue) -> None:
    with SharedMemory.create(1 << 12, "trace") as memory:
        room = 4 * SPAN.size + 5
        thread = traced(queue, memory, room)
        for number in range(20):
            queue.submit()
            queue.fence(number)
            queue.finish()
            queue.wait_retired(*range(number + 1))
        watch_of(queue).end_trace()
        thread.join(BOUND)
        assert len(spans_in(memory)) == 4
        assert not any(memory.view[4 * SPAN.size :])


def test_a_context_that_ends_ends_its_trace(queue: Queue) -> None:
    with SharedMemory.create(1 << 12, "trace") as memory:
        thread = traced(queue, memory, memory.size)
        queue.engine.poison("a reason")
        thread.join(BOUND)
        assert not thread.is_alive()
