"""Sharing the GPU's time: what is measured, who is held, and that nobody pays who is alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hesper.isolation.sharer import HELD, HOLD, LOOKS, MEASURE, SINCE, TOLD, USED, WAKE
from hesper.kernel.errors import ProtocolError
from hesper.portable import SharedMemory, WakePipe, page_size
from kernel.conftest import BOUND, happens, wait_for
from kernel.queue_host import CODEC, QUEUE, QueueHost
from kernel.ring_guest import IDLE, STATUS, Guest

OTHER = 8


class Sharer(QueueHost):
    """Two queues that share the GPU's time; the test is the supervisor."""

    def __init__(self, library: Path) -> None:
        super().__init__(library, QUEUE, OTHER)
        self.page = SharedMemory.create(page_size(), "share")
        self.words = self.page.view.cast("Q")
        self.wake = WakePipe()
        self.engine.shares.join(self.page.address, self.wake.write_fd)

    def submit(self, command: str = "vkQueueSubmit", queue: int = QUEUE) -> None:
        """The guest submits nothing much."""
        count, array = {
            "vkQueueSubmit": ("submitCount", "pSubmits"),
            "vkQueueSubmit2": ("submitCount", "pSubmits"),
            "vkQueueBindSparse": ("bindInfoCount", "pBindInfo"),
        }[command]
        parameters = {"queue": queue, count: 0, array: None, "fence": 0}
        self.engine.submit(CODEC.encode(command, parameters))

    @property
    def is_awake(self) -> bool:
        """Whether the supervisor would have been woken."""
        try:
            return bool(os.read(self.wake.read_fd, 100))
        except BlockingIOError:
            return False

    def close(self) -> None:
        self.words[TOLD] = 0
        self.engine.stop()
        self.finish()
        self.engine.shares.forget(3)
        assert self.driver.live_fences() == 0
        self.engine.shares.leave()
        self.words.release()
        self.wake.close()


@pytest.fixture
def sharer(queue_driver: Path) -> Iterator[Sharer]:
    one = Sharer(queue_driver)
    yield one
    one.close()


def test_who_is_alone_has_nothing_done_to_it(sharer: Sharer) -> None:
    sharer.submit()
    sharer.submit()
    assert not happens(lambda: len(sharer.fences) > 2)
    assert sharer.fences == [False, False]
    assert list(sharer.words[:5]) == [0] * 5


def test_work_is_measured_from_the_first_to_the_last(sharer: Sharer) -> None:
    sharer.words[TOLD] = MEASURE
    sharer.submit()
    since = sharer.words[SINCE]
    assert since
    wait_for(lambda: sharer.fences == [False, True], "a fence of the meter's")
    for _ in range(5):
        sharer.submit()
    assert not happens(lambda: len(sharer.fences) > 7)
    sharer.driver.finish(2)
    wait_for(lambda: len(sharer.fences) == 8, "a fence for what followed")
    assert (sharer.words[SINCE], sharer.words[USED]) == (since, 0)
    sharer.finish()
    wait_for(lambda: sharer.words[SINCE] == 0, "the end of all work")
    used = sharer.words[USED]
    assert used
    sharer.submit()
    wait_for(lambda: len(sharer.fences) == 10, "the next fence")
    sharer.finish()
    wait_for(lambda: sharer.words[USED] > used, "more that is used")
    assert not sharer.is_awake


def test_the_supervisor_is_woken_when_one_that_is_held_is_through(sharer: Sharer) -> None:
    sharer.words[TOLD] = MEASURE
    sharer.submit()
    sharer.submit(queue=OTHER)
    wait_for(lambda: sum(sharer.fences) == 2, "a fence of each queue")
    sharer.words[TOLD] = MEASURE | HOLD
    first = next(i for i, has in enumerate(sharer.fences) if has)
    sharer.driver.finish(first + 1)
    assert not happens(lambda: sharer.is_awake and not all(sharer.fences))
    sharer.finish()
    wait_for(lambda: sharer.is_awake, "the supervisor to be woken")
    assert sharer.words[SINCE] == 0


@pytest.mark.parametrize("command", ["vkQueueSubmit", "vkQueueSubmit2", "vkQueueBindSparse"])
def test_the_supervisor_is_woken_when_it_asks_for_that(sharer: Sharer, command: str) -> None:
    sharer.words[TOLD] = MEASURE | WAKE
    sharer.submit(command)
    assert sharer.is_awake
    sharer.submit(command)
    assert not sharer.is_awake


def test_two_queues_are_one_client(sharer: Sharer) -> None:
    sharer.words[TOLD] = MEASURE
    sharer.submit()
    sharer.submit(queue=OTHER)
    wait_for(lambda: sum(sharer.fences) == 2, "a fence of each queue")
    first = next(i for i, has in enumerate(sharer.fences) if has)
    sharer.driver.finish(first + 1)
    assert not happens(lambda: sharer.words[SINCE] == 0 and not all(sharer.fences))
    sharer.finish()
    wait_for(lambda: sharer.words[SINCE] == 0, "both to be done")


def held(sharer: Sharer, command: str = "vkQueueSubmit") -> tuple[threading.Thread, list[str]]:
    """Submit on another thread, which is held; what it raises."""
    sharer.words[TOLD] = MEASURE | HOLD
    raised: list[str] = []

    def submit() -> None:
        try:
            sharer.submit(command)
        except ProtocolError as error:
            raised.append(str(error))

    thread = threading.Thread(target=submit)
    thread.start()
    wait_for(lambda: sharer.words[HELD] == 1, "a thread that waits")
    return thread, raised


def end(thread: threading.Thread) -> None:
    thread.join(BOUND)
    assert not thread.is_alive()


def test_who_is_over_its_share_waits(sharer: Sharer) -> None:
    thread, raised = held(sharer)
    looks = 0

    def submits() -> bool:
        nonlocal looks
        looks = sharer.words[LOOKS] = looks + 1
        return bool(sharer.fences)

    assert not happens(submits)
    sharer.words[TOLD] = MEASURE
    end(thread)
    assert sharer.fences[0] is False
    assert sharer.words[HELD] == 0
    assert not raised
    sharer.submit()


def test_nobody_is_held_by_a_supervisor_that_does_not_look(sharer: Sharer) -> None:
    thread, _ = held(sharer)
    end(thread)
    assert sharer.words[TOLD] & HOLD
    assert len(sharer.fences) >= 1


def test_nobody_is_held_when_the_context_ends(sharer: Sharer) -> None:
    thread, _ = held(sharer)
    sharer.engine.poison("over")
    end(thread)


def test_what_is_gone_meanwhile_is_not_submitted_to(sharer: Sharer) -> None:
    """Nothing that was looked up before the wait is used after it."""
    thread, raised = held(sharer)
    sharer.engine.objects.remove(QUEUE)
    sharer.words[TOLD] = MEASURE
    end(thread)
    assert len(raised) == 1
    assert "7" in raised[0]
    assert sharer.fences == []


@pytest.mark.parametrize("asleep", [False, True])
def test_a_held_ring_has_told_what_is_done(sharer: Sharer, asleep: bool) -> None:
    """The guest may wait for what came before, and nothing that follows overtakes.

    Who wakes its thread is not held.
    """
    guest = Guest(sharer.host, sharer.engine.submit)
    if asleep:
        wait_for(lambda: guest.word(STATUS) & IDLE != 0, "the ring's thread to sleep")
    sharer.words[TOLD] = MEASURE | HOLD
    submit = CODEC.encode(
        "vkQueueSubmit", {"queue": QUEUE, "submitCount": 0, "pSubmits": None, "fence": 0}
    )
    guest.send(submit)
    wait_for(lambda: sharer.words[HELD] == 1, "the ring's thread to wait")
    sharer.words[TOLD] = MEASURE
    guest.wait()
    assert sharer.fences[0] is False


def test_a_device_that_is_forgotten_is_measured_no_more(sharer: Sharer) -> None:
    sharer.words[TOLD] = MEASURE
    sharer.submit()
    wait_for(lambda: sum(sharer.fences) == 1, "a fence")
    sharer.finish()
    sharer.engine.shares.forget(3)
    assert sharer.driver.live_fences() == 0
    count = len(sharer.fences)
    sharer.submit()
    assert not happens(lambda: len(sharer.fences) > count + 1)
    with pytest.raises(KeyError):
        sharer.engine.shares.forget(99)
