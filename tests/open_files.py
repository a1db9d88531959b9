"""What stays open, to find leaks by.

Not by counting: what earlier tests left to the garbage collector may be closed at any time.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Set

OpenFile = tuple[int, int, int]
"""A descriptor's number, and the device and inode behind it."""

PATIENCE = 5.0


def open_files() -> Set[OpenFile]:
    """All descriptors of this process."""
    found = set()
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # that of the listing is closed again
            status = os.fstat(int(name))
            found.add((int(name), status.st_dev, status.st_ino))
    return found


def opened_since(before: Set[OpenFile]) -> Set[OpenFile]:
    """Those that were not open then."""
    return open_files() - before


def assert_closed_since(before: Set[OpenFile], patience: float = PATIENCE) -> None:
    """Wait until whatever was opened since then is closed.  Fails after `patience` seconds."""
    deadline = time.monotonic() + patience
    while left := opened_since(before):
        assert time.monotonic() < deadline, f"left open: {sorted(left)}"
        time.sleep(0.01)
