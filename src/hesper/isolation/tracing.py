"""A trace of what all clients of a server do, for a while: each notes it in memory of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeAlias

from hesper.portable import SharedMemory

TRACE_BYTES = 8 << 20
"""Of memory for what happens in a worker: 260,000 entries; what is not used costs nothing."""
MOST_TRACED = 64
"""Clients of one trace; others are left out."""

OnContext: TypeAlias = Callable[[int, int], None]
"""Gets a client's number, and a descriptor of what happens to it, which it closes.  Must not block;
on the server's thread."""
Order: TypeAlias = Callable[[int, float], None]
"""Has a worker note what happens, in that shared memory, for so many seconds."""


class Trace:
    """The one trace that a server may have under way."""

    def __init__(self) -> None:
        """There is none."""
        self._until = 0.0
        self._count = 0
        self._on_context: OnContext | None = None

    def begin(self, seconds: float, on_context: OnContext) -> bool:
        """Begin one, for clients of which `add` tells; False where one is under way."""
        now = time.monotonic()
        if self._on_context is not None and now < self._until:
            return False
        self._until, self._count, self._on_context = now + seconds, 0, on_context
        return True

    def end(self, on_context: OnContext) -> None:
        """Trace no clients any more that come; what is traced is so to its end."""
        if self._on_context is on_context:
            self._on_context = None

    def add(self, number: int, order: Order) -> None:
        """Trace a client, if there is a trace."""
        left = self._until - time.monotonic()
        if self._on_context is None or left <= 0 or self._count == MOST_TRACED:
            return
        self._count += 1
        with SharedMemory.create(TRACE_BYTES, "hesper-trace") as memory:
            order(memory.fd, left)
            self._on_context(number, os.dup(memory.fd))
