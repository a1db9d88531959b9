"""Keeps commands in order where order matters, and nowhere else.

A command may take long: a blob that a busy context has to make, a map that the VMM has to confirm.
What does not touch the same resource, context or scanout goes on meanwhile, so that one program's
shader compilation does not stop another's mouse pointer.
"""

from __future__ import annotations

import collections
import itertools
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hesper.gpu.request import Key, Request

TURN = 0.001
"""Seconds after which requests that have become ready at once let others have a turn."""


class Ordering:
    """First come, first served, for every key of its own.

    `submit` starts a request now or once everything before it that shares a key is done; whoever
    runs a request calls `done` when the next may start, perhaps `let_pass` before.
    """

    def __init__(
        self, start: Callable[[Request], None], later: Callable[[Callable[[], None]], None]
    ) -> None:
        """`start` begins a request; it may call `done` before it returns.

        later: calls something after others had a turn.
        """
        self._start = start
        self._later = later
        self._due = False
        """Whether `_run` will be called later."""
        self._lines: dict[Key, collections.deque[Request]] = {}
        self._ready: collections.deque[Request] = collections.deque()
        self._starting = False

    def submit(self, request: Request) -> None:
        """Start `request` as soon as its keys are free."""
        free = True
        for key in request.keys:
            line = self._lines.setdefault(key, collections.deque())
            free = free and not line
            line.append(request)
        if free:
            # Before those that have had to wait and will be started by turns.
            self._ready.appendleft(request)
            self._run()

    def behind(self, key: Key) -> Iterator[Request]:
        """Go through those that wait for the first that has `key`."""
        return itertools.islice(self._lines.get(key, ()), 1, None)

    def done(self, request: Request) -> None:
        """Let those go that wait for `request`."""
        for key in request.keys:
            self._free(key)
        self._run()

    def let_pass(self, request: Request, key: Key) -> None:
        """Let those go that wait for `request` because of `key` alone."""
        request.keys = tuple(other for other in request.keys if other != key)
        self._free(key)
        self._run()

    def _free(self, key: Key) -> None:
        """Take the first away from a line."""
        line = self._lines[key]
        line.popleft()
        if not line:
            del self._lines[key]
        elif self._is_first(line[0]):
            self._ready.append(line[0])

    def _is_first(self, request: Request) -> bool:
        return all(self._lines[key][0] is request for key in request.keys)

    def _run(self) -> None:
        """Start what is ready, for one turn, and without recursion however long the lines are."""
        if self._starting:
            return
        self._starting = True
        end = time.monotonic() + TURN
        try:
            while self._ready:
                self._start(self._ready.popleft())
                if self._ready and time.monotonic() >= end:
                    if not self._due:
                        self._due = True
                        self._later(self._run_due)
                    return
        finally:
            self._starting = False

    def _run_due(self) -> None:
        self._due = False
        self._run()
