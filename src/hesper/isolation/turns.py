"""Waiting for whatever comes first: something to read, a moment, or what another thread wants."""

from __future__ import annotations

import collections
import heapq
import itertools
import selectors
import threading
import time
from collections.abc import Callable
from typing import Protocol

from hesper.portable import WakePipe, selector

Action = Callable[[], None]


class HasFileno(Protocol):
    """Something with a descriptor."""

    def fileno(self) -> int:
        """The descriptor."""


class Timer:
    """Something to be done at a moment, unless it is cancelled."""

    def __init__(self, when: float, action: Action) -> None:
        """Use `Turns.after`."""
        self.when = when
        self.action: Action | None = action

    def cancel(self) -> None:
        """Do nothing after all.  May be called again, and when it is done."""
        self.action = None


class Turns:
    """Calls what has been asked for when its time has come; on one thread.

    Only `call` may come from other threads.
    """

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._selector = selector()
        self._actions: dict[int, Action] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._calls: collections.deque[Action] = collections.deque()
        self._wake = WakePipe()
        # A signal's handler may call from within a call.
        self._waking = threading.RLock()
        self._closed = False
        self.watch(self._wake.read_fd, self._called)

    def watch(self, file: int | HasFileno, action: Action) -> None:
        """Call `action` as long as there is something to read."""
        fd = _number(file)
        self._selector.register(fd, selectors.EVENT_READ, action)
        self._actions[fd] = action

    def unwatch(self, file: int | HasFileno) -> None:
        """Stop that, before the file is closed.  May be called again."""
        fd = _number(file)
        if self._actions.pop(fd, None) is not None:
            self._selector.unregister(fd)

    def after(self, seconds: float, action: Action) -> Timer:
        """Call `action` once, in so many seconds."""
        timer = Timer(time.monotonic() + seconds, action)
        heapq.heappush(self._timers, (timer.when, next(self._numbers), timer))
        return timer

    def call(self, action: Action) -> None:
        """Call `action` once, in the next turn; not at all when there are no more turns.

        From any thread, and from a signal's handler.
        """
        with self._waking:
            if not self._closed:
                self._calls.append(action)
                self._wake.wake()

    def _called(self) -> None:
        self._wake.drain()
        for _ in range(len(self._calls)):
            self._calls.popleft()()

    def turn(self) -> None:
        """Wait for something to happen, and call what it asks for."""
        while self._timers and self._timers[0][2].action is None:
            heapq.heappop(self._timers)
        timeout = None
        if self._timers:
            timeout = max(0.0, self._timers[0][0] - time.monotonic())
        for key, _ in self._selector.select(timeout):
            # What came before in this turn may have put an end to it.
            action = self._actions.get(key.fd)
            if action is not None and action is key.data:
                action()
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if timer.action is not None:
                timer.action()

    def close(self) -> None:
        """Watch nothing any more.  May be called again."""
        with self._waking:
            self._closed = True
        self._selector.close()
        self._wake.close()


def _number(file: int | HasFileno) -> int:
    return file if isinstance(file, int) else file.fileno()
