"""Waiting for whatever comes first: something to read, or a moment in time."""

from __future__ import annotations

import heapq
import itertools
import selectors
import time
from collections.abc import Callable
from typing import Protocol

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
    """Calls what has been asked for when its time has come; on one thread."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._selector = selectors.DefaultSelector()
        self._actions: dict[int, Action] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()

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
        """Watch nothing any more."""
        self._selector.close()


def _number(file: int | HasFileno) -> int:
    return file if isinstance(file, int) else file.fileno()
