"""Signals are handled by a thread of their own, whatever the main thread waits for."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from hesper.cli._signals import handled, interrupting
from open_files import open_files, opened_since

PATIENCE = 60.0
USER = [signal.SIGUSR1, signal.SIGUSR2]


class Handler:
    """Notes which signals come, and on which thread."""

    def __init__(self) -> None:
        self.came: list[int] = []
        self.threads: set[str] = set()
        self._enough = threading.Semaphore(0)

    def __call__(self, number: int) -> None:
        self.came.append(number)
        self.threads.add(threading.current_thread().name)
        self._enough.release()

    def wait(self) -> None:
        assert self._enough.acquire(timeout=PATIENCE)


def test_each_is_handled_once_and_all_is_as_before() -> None:
    before = [signal.getsignal(number) for number in USER]
    threads, opened = set(threading.enumerate()), open_files()
    handler = Handler()
    with handled(USER, handler):
        for number in [*USER, *USER]:
            os.kill(os.getpid(), number)
            # The lock that the main thread waits for is what the other one gives free.
            handler.wait()
    assert handler.came == [*USER, *USER]
    assert handler.threads == {"signals"}
    assert [signal.getsignal(number) for number in USER] == before
    assert set(threading.enumerate()) <= threads
    assert not opened_since(opened)
    wakeup = signal.set_wakeup_fd(-1)
    assert wakeup == -1


def test_they_nest() -> None:
    outer, inner = Handler(), Handler()
    with handled(USER, outer):
        with handled([signal.SIGUSR1], inner):
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGUSR2)
            inner.wait()
            outer.wait()
        os.kill(os.getpid(), signal.SIGUSR1)
        outer.wait()
    assert inner.came == [signal.SIGUSR1]
    assert outer.came == [signal.SIGUSR2, signal.SIGUSR1]


def test_a_handler_that_fails_is_not_the_last() -> None:
    handler = Handler()

    def fail_once(number: int) -> None:
        handler(number)
        if len(handler.came) == 1:
            raise KeyError(number)

    with handled(USER, fail_once):
        for number in USER:
            os.kill(os.getpid(), number)
            handler.wait()
    assert handler.came == USER


def test_what_is_taken_for_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(KeyboardInterrupt), interrupting([signal.SIGUSR1]):
        signal.raise_signal(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) is before
