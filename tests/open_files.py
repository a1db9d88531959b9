"""What stays open, to find leaks by.

Not by counting, if it can be helped: what earlier tests left to the garbage collector may be closed
at any time.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections import Counter
from collections.abc import Set

OpenFile = tuple[int, int, int]
"""A descriptor's number, and the device and inode behind it."""

PATIENCE = 120.0
"""Seconds after which a wait fails the test."""


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


class Count(int):
    """How many descriptors there were, and what was behind them."""

    behind: Counter[str]


def count_descriptors() -> Count:
    """How many there are, for tests in which others take their place; rubbish is cleared first."""
    gc.collect()
    behind = []
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # that of the listing is closed again
            behind.append(os.readlink(f"/dev/fd/{name}"))
    count = Count(len(behind))
    count.behind = Counter(behind)
    return count


def assert_no_more_descriptors(before: Count) -> None:
    """Wait until no more are open than before: what other threads close, they close soon."""
    deadline = time.monotonic() + PATIENCE
    while (now := count_descriptors()) > before:
        more = sorted((now.behind - before.behind).elements())
        assert time.monotonic() < deadline, f"{now} are open, {before} were; new are {more}"
        time.sleep(0.01)
