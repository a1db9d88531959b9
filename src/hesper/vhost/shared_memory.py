"""A device's shared memory regions: what the VMM is asked to map into them, and what is there.

Source: QEMU's documentation, "Vhost-user Protocol", `VHOST_USER_BACKEND_SHMEM_MAP` and
`VHOST_USER_GET_SHMEM_CONFIG`; VIRTIO 1.3, section 2.10 "Shared Memory Regions".
"""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from hesper.log import get_logger
from hesper.vhost.wire import MAX_SHMEM_REGIONS, SHMEM_CONFIG

if TYPE_CHECKING:
    from hesper.vhost.channel import Answered, BackendChannel
    from hesper.vhost.wire import MemoryRegionEntry

_log = get_logger(__name__)

Mark: TypeAlias = tuple[int, ...]
"""What mapped memory is known by: device and inode of the object; or, where the system has none for
shared memory (macOS), region, offset and length."""


class SharedMemoryRegions:
    """The regions, and which memory is mapped into them.  For the loop's thread."""

    def __init__(
        self, sizes: Mapping[int, int], channel: Callable[[], BackendChannel | None]
    ) -> None:
        """`sizes`: bytes of every region by its id.  `channel` returns the one to the VMM."""
        self._sizes = sizes
        self._channel = channel
        self._mapped = _Mapped()

    @property
    def config(self) -> bytes:
        """The answer to `GET_SHMEM_CONFIG`."""
        sizes = [self._sizes.get(index, 0) for index in range(MAX_SHMEM_REGIONS)]
        return SHMEM_CONFIG.pack(len(self._sizes), 0, *sizes)

    def map(self, region: int, fd: int, offset: int, length: int, answered: Answered) -> None:
        """See `BackendChannel.map`; refused where there is no channel."""
        channel = self._channel()
        if channel is None:
            answered(False)
            return
        mapped = self._mapped
        mark = _identity(fd) or (region, offset, length)
        # From now on: the VMM tells of it in its memory table before it answers.
        mapped.add(mark)

        def done(accepted: bool) -> None:
            if accepted:
                mapped.places[region, offset] = mark
            else:
                mapped.remove(mark)
            answered(accepted)

        channel.map(region, fd, offset, length, done)

    def unmap(self, region: int, offset: int, length: int, answered: Answered) -> None:
        """See `BackendChannel.unmap`; refused where there is no channel."""
        channel = self._channel()
        if channel is None:
            answered(False)
            return
        mapped = self._mapped

        def done(accepted: bool) -> None:
            if not accepted and mapped is self._mapped and not channel.closed:
                _log.error("the VMM does not unmap", region=region, offset=offset, length=length)
            mark = mapped.places.pop((region, offset), None)
            if mark is not None:
                mapped.remove(mark)
            answered(accepted)

        channel.unmap(region, offset, length, done)

    def is_mapped(self, entry: MemoryRegionEntry, fd: int) -> bool:
        """Whether an entry of the VMM's memory table is what the device has had mapped."""
        identity = _identity(fd)
        if identity is not None:
            return identity in self._mapped
        # A region begins where the guest's firmware has put it, at a multiple of its size (PCI).
        return entry.fd_offset == 0 and any(
            (region, entry.guest_address % size, entry.size) in self._mapped
            for region, size in self._sizes.items()
        )

    def __len__(self) -> int:
        """Count what is mapped."""
        return len(self._mapped.places)

    def reset(self) -> None:
        """Forget what is mapped: the VMM has taken it away.  Late answers change nothing."""
        self._mapped = _Mapped()


class _Mapped:
    """What is mapped in one life of the driver; the same memory perhaps more than once."""

    def __init__(self) -> None:
        self.places: dict[tuple[int, int], Mark] = {}
        """What the VMM has confirmed, by region and offset."""
        self._counts: collections.Counter[Mark] = collections.Counter()

    def __contains__(self, mark: Mark) -> bool:
        return mark in self._counts

    def add(self, mark: Mark) -> None:
        self._counts[mark] += 1

    def remove(self, mark: Mark) -> None:
        self._counts[mark] -= 1
        if not self._counts[mark]:
            del self._counts[mark]


def _identity(fd: int) -> Mark | None:
    """Device and inode; None where shared memory has none."""
    status = os.fstat(fd)
    return (status.st_dev, status.st_ino) if status.st_ino else None
