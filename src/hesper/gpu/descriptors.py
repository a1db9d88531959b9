"""Descriptors that a device's process holds for its guest: counted, and shared, not copied."""

from __future__ import annotations

import threading
from collections.abc import Callable

from hesper.gpu.request import GpuError
from hesper.gpu.wire import Response
from hesper.portable import close_apart, descriptor_limit

RESERVE = 1024
"""Descriptors that are left for workers, viewers, the VMM, and for starting processes."""


def default_limit() -> int:
    """Return how many descriptors a guest's resources may hold: what the process can spare."""
    limit = descriptor_limit()
    return max(limit - RESERVE, limit // 2)


class Descriptors:
    """Those of one device."""

    def __init__(self, limit: int) -> None:
        """`limit`: how many there may be at a time."""
        self._limit = limit
        self._count = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Count them."""
        return self._count

    def take(self, fd: int) -> Descriptor:
        """Own `fd` from now on, held once; it is closed if that cannot be.

        Raises `GpuError` (out of memory) when there are too many.
        """
        with self._lock:
            has_room = self._count < self._limit
            self._count += has_room
        if not has_room:
            close_apart(fd)
            raise GpuError(
                Response.ERR_OUT_OF_MEMORY, f"{self._limit} descriptors are held for the guest"
            )
        return Descriptor(fd, self._closed)

    def _closed(self) -> None:
        with self._lock:
            self._count -= 1


class Descriptor:
    """An open descriptor with several holders: closed when the last lets go.  For one thread."""

    __slots__ = ("_closed", "_holders", "fd")

    def __init__(self, fd: int, closed: Callable[[], None]) -> None:
        """For `Descriptors.take`; `closed` is told, on any thread, when it is closed in the end."""
        self.fd = fd
        self._closed = closed
        self._holders = 1

    def hold(self) -> Descriptor:
        """Have one holder more."""
        self._holders += 1
        return self

    def release(self) -> None:
        """Let go, once for every `hold` and the `take`."""
        self._holders -= 1
        if self._holders == 0:
            fd, self.fd = self.fd, -1
            close_apart(fd, self._closed)
