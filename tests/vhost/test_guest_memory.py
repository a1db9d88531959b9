"""Guest memory across memory tables, also where shared memory has no inodes, as on macOS."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from hesper.portable import SharedMemory
from hesper.vhost import guest_memory
from hesper.vhost.guest_memory import GuestMemory
from hesper.vhost.wire import MemoryRegionEntry

SIZE = 1 << 16


def first_byte(memory: GuestMemory) -> int:
    """What the guest has at its address 0."""
    return memory.slices(0, 1)[0][0]


@pytest.mark.parametrize("inodes", [True, False])
def test_other_memory_at_the_same_place_is_not_taken_for_the_old(
    inodes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two blobs of one size, mapped one after the other where the guest had the first."""
    real = os.fstat

    def without_inodes(fd: int) -> Any:
        return SimpleNamespace(st_dev=0, st_ino=0, st_size=real(fd).st_size)

    if not inodes:
        monkeypatch.setattr(guest_memory, "os", SimpleNamespace(fstat=without_inodes))
    entry = MemoryRegionEntry(guest_address=0, size=SIZE, user_address=0, fd_offset=0)
    with SharedMemory.create(SIZE, "first") as first, SharedMemory.create(SIZE, "second") as second:
        first.view[0], second.view[0] = 1, 2
        before = GuestMemory.from_table([(entry, first.fd)], GuestMemory())
        assert first_byte(before) == 1
        after = GuestMemory.from_table([(entry, second.fd)], before)
        assert first_byte(after) == 2
