"""The guest's memory, as the front-end shares it.

A guest address is a number from a hostile source: memory is reached through `GuestMemory` alone,
which checks it against the regions of `SET_MEM_TABLE`.
"""

from __future__ import annotations

import bisect
import mmap
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hesper.vhost.wire import MemoryRegionEntry


NOTHING = memoryview(b"")


class GuestMemoryError(Exception):
    """An address range is not guest memory."""


class MemoryRegion:
    """One region, mapped.  It stays mapped for as long as anybody holds `view` or a part of it."""

    def __init__(self, entry: MemoryRegionEntry, fd: int) -> None:
        """Map it; `fd` stays the caller's.  Raises `GuestMemoryError` when it cannot be mapped."""
        self.entry = entry
        self.identity = _identity(entry, fd)
        # The offset has to be a multiple of the host's page size, which need not be the guest's.
        skip = entry.fd_offset % mmap.ALLOCATIONGRANULARITY
        try:
            mapping = mmap.mmap(fd, entry.size + skip, offset=entry.fd_offset - skip)
        except (OSError, ValueError, OverflowError) as error:
            raise GuestMemoryError(
                f"region of {entry.size:#x} bytes at {entry.guest_address:#x}: {error}"
            ) from error
        self.view = memoryview(mapping)[skip:]


def _identity(entry: MemoryRegionEntry, fd: int) -> tuple[int, int, int, int] | None:
    """What makes two mappings the same memory: file, offset and size.

    None where the system has no inodes for shared memory (macOS): any two might then be the same.
    """
    status = os.fstat(fd)
    if status.st_ino == 0:
        return None
    return status.st_dev, status.st_ino, entry.fd_offset, entry.size


class GuestMemory:
    """An immutable table of regions; a new `SET_MEM_TABLE` makes a new one."""

    def __init__(self, regions: Iterable[MemoryRegion] = ()) -> None:
        """Raises `GuestMemoryError` when regions overlap or leave the 64-bit space."""
        self._regions = sorted(regions, key=lambda region: region.entry.guest_address)
        self._starts = [region.entry.guest_address for region in self._regions]
        end = 0
        for region in self._regions:
            entry = region.entry
            if entry.guest_address < end or entry.guest_address + entry.size > 1 << 64:
                raise GuestMemoryError(
                    f"region of {entry.size:#x} bytes at {entry.guest_address:#x} overlaps another"
                )
            end = entry.guest_address + entry.size

    @property
    def regions(self) -> list[tuple[int, memoryview]]:
        """Guest address and bytes of every region, in order.

        The bytes stay for as long as anybody has them.
        """
        return [(region.entry.guest_address, region.view) for region in self._regions]

    @classmethod
    def from_table(
        cls, table: Sequence[tuple[MemoryRegionEntry, int]], previous: GuestMemory
    ) -> GuestMemory:
        """Map what `SET_MEM_TABLE` brought; regions that `previous` has are not mapped again.

        The descriptors stay the caller's.  Raises `GuestMemoryError`.
        """
        known = {region.identity: region for region in previous._regions if region.identity}
        regions = []
        for entry, fd in table:
            identity = _identity(entry, fd)
            region = known.get(identity) if identity else None
            if region is None or region.entry != entry:
                region = MemoryRegion(entry, fd)
            regions.append(region)
        return cls(regions)

    def region_at(self, address: int) -> tuple[int, memoryview]:
        """Return guest address and bytes of the region of `address`; of none, one without bytes."""
        index = bisect.bisect_right(self._starts, address) - 1
        region = self._regions[index] if index >= 0 else None
        return (address, NOTHING) if region is None else (region.entry.guest_address, region.view)

    def slices(self, address: int, length: int) -> list[memoryview]:
        """Return the bytes from guest address `address` on, in one piece a region.

        Raises `GuestMemoryError` when some of them are not guest memory.
        """
        pieces: list[memoryview] = []
        while True:
            index = bisect.bisect_right(self._starts, address) - 1
            if index < 0:
                break
            region = self._regions[index]
            offset = address - region.entry.guest_address
            if offset >= region.entry.size:
                break
            piece = region.view[offset : offset + length]
            pieces.append(piece)
            length -= len(piece)
            if length == 0:
                return pieces
            address += len(piece)
        raise GuestMemoryError(f"{length:#x} bytes at {address:#x} are not guest memory")

    def user_slice(self, address: int, length: int) -> memoryview:
        """Return the bytes at the front-end's user address `address`, which lie in one region.

        Raises `GuestMemoryError` when they do not.
        """
        region = self._user_region(address, length)
        offset = address - region.entry.user_address
        return region.view[offset : offset + length]

    def guest_address(self, address: int) -> int:
        """Return where the guest has what is at the front-end's user address `address`.

        Raises `GuestMemoryError` when it is not the guest's.
        """
        entry = self._user_region(address, 1).entry
        return address - entry.user_address + entry.guest_address

    def _user_region(self, address: int, length: int) -> MemoryRegion:
        for region in self._regions:
            offset = address - region.entry.user_address
            if 0 <= offset < region.entry.size and length <= region.entry.size - offset:
                return region
        raise GuestMemoryError(
            f"{length:#x} bytes at the front-end's {address:#x} are not guest memory"
        )
