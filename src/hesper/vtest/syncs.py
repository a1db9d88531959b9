"""Timeline syncs: 64-bit counters that a client waits for by polling a descriptor.

The socket thread creates, reads, writes and waits; whichever thread retires a fence signals.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable

MAX_SYNCS = 65536
"""Most syncs a client may have at a time."""
MAX_WAITS = 1024
"""Most unfinished waits a client may have at a time; each holds a descriptor here."""

_ENDLESS = (1 << 31) - 1  # milliseconds; longer time-outs mean for ever


class SyncError(Exception):
    """A client named a sync that does not exist, or wants too many."""


class Sync:
    """One counter.  Unreferenced syncs live on as long as waits or fences hold them."""

    __slots__ = ("value", "waits")

    def __init__(self, value: int) -> None:
        """Start at `value`."""
        self.value = value
        self.waits: list[_Wait] = []


class _Wait:
    """A wait that is not over: its client polls the other end of `write_fd`."""

    __slots__ = ("any_", "deadline", "pending", "write_fd")

    def __init__(
        self, pending: list[tuple[Sync, int]], *, any_: bool, deadline: float, write_fd: int
    ) -> None:
        self.pending = pending
        self.any_ = any_
        self.deadline = deadline
        self.write_fd = write_fd


class Syncs:
    """All syncs of one client."""

    def __init__(self) -> None:
        """Start with none."""
        self._lock = threading.Lock()
        self._syncs: dict[int, Sync] = {}
        self._next_id = 1
        self._waits: set[_Wait] = set()
        # Most waits are over before they begin, or are polls: they share two descriptors.
        self._ready_fd, write_fd = os.pipe()
        os.write(write_fd, b"\1")
        os.close(write_fd)
        self._never_fd, self._never_write_fd = os.pipe()

    def create(self, value: int) -> int:
        """Make a sync that stands at `value`; return its id (1 to 2^32 - 1).

        Raises `SyncError` when there are `MAX_SYNCS`.
        """
        if len(self._syncs) >= MAX_SYNCS:
            raise SyncError(f"more than {MAX_SYNCS} syncs")
        while self._next_id in self._syncs:
            self._next_id = self._next_id % 0xFFFFFFFF + 1
        sync_id = self._next_id
        self._next_id = sync_id % 0xFFFFFFFF + 1
        self._syncs[sync_id] = Sync(value)
        return sync_id

    def get(self, sync_id: int) -> Sync:
        """Return the sync with that id.  Raises `SyncError`."""
        try:
            return self._syncs[sync_id]
        except KeyError:
            raise SyncError(f"no sync {sync_id}") from None

    def unref(self, sync_id: int) -> None:
        """Forget an id.  Raises `SyncError`."""
        self.get(sync_id)
        del self._syncs[sync_id]

    def signal(self, points: Iterable[tuple[Sync, int]]) -> None:
        """Set syncs to values and end the waits that were for them.  Any thread may call it."""
        with self._lock:
            for sync, value in points:
                rises = value > sync.value
                sync.value = value
                if rises and sync.waits:
                    self._advance(sync)

    def _advance(self, sync: Sync) -> None:
        """End what waits for `sync` to be where it is now."""
        for wait in list(sync.waits):
            left = [(s, v) for s, v in wait.pending if s is not sync or v > sync.value]
            if len(left) == len(wait.pending):
                continue
            if not left or wait.any_:
                # The client may have stopped polling and closed its end.
                with contextlib.suppress(BrokenPipeError):
                    os.write(wait.write_fd, b"\1")
                self._drop(wait)
                continue
            wait.pending = left
            if all(s is not sync for s, _ in left):
                sync.waits.remove(wait)

    def _drop(self, wait: _Wait) -> None:
        """Forget a wait; its client sees the pipe's end."""
        os.close(wait.write_fd)
        self._waits.discard(wait)
        for sync in {id(s): s for s, _ in wait.pending}.values():
            sync.waits.remove(wait)

    def wait(
        self, points: Iterable[tuple[Sync, int]], *, any_: bool, timeout_ms: int
    ) -> tuple[int, bool]:
        """Return a descriptor that becomes readable when all (or any) points are reached.

        With it comes whether the caller must close the descriptor after sending it.
        A wait whose time-out has passed is dropped some time after.
        Raises `SyncError` above `MAX_WAITS`.
        """
        now = time.monotonic()
        with self._lock:
            wanted = list(points)
            pending = [(sync, value) for sync, value in wanted if sync.value < value]
            if not pending or (any_ and len(pending) < len(wanted)):
                return self._ready_fd, False
            if timeout_ms == 0:
                return self._never_fd, False
            for old in [wait for wait in self._waits if wait.deadline < now]:
                self._drop(old)
            if len(self._waits) >= MAX_WAITS:
                raise SyncError(f"more than {MAX_WAITS} unfinished waits")
            read_fd, write_fd = os.pipe()
            deadline = now + timeout_ms / 1000 if timeout_ms <= _ENDLESS else float("inf")
            wait = _Wait(pending, any_=any_, deadline=deadline, write_fd=write_fd)
            self._waits.add(wait)
            for sync in {id(s): s for s, _ in pending}.values():
                sync.waits.append(wait)
            return read_fd, True

    def close(self) -> None:
        """Drop every wait and close all descriptors.  Later signals do nothing visible."""
        with self._lock:
            for wait in list(self._waits):
                self._drop(wait)
            for fd in (self._ready_fd, self._never_fd, self._never_write_fd):
                os.close(fd)
