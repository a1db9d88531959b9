"""Regions: shared memory that resources and memory objects of a context own together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.guest.errors import InvalidParameterError, OutOfMemoryError
from hesper.portable import SharedMemory, descriptor_limit

if TYPE_CHECKING:
    from hesper.kernel.shm import Pool, Region


RESERVED_DESCRIPTORS = 16
"""Of those that a process may have; for rings, waits and logs, where there is no other answer."""


def create(
    pool: Pool,
    size: int,
    name: str,
    *,
    heap: int | None = None,
    reusable: bool = False,
) -> Region:
    """Make a region of at least `size` bytes, all of which the guest can use and is charged for.

    heap: the memory heap they count for, if it is device memory.
    reusable: what it leaves behind may be taken again, by this or another allocation of the same
    guest: making, mapping and touching memory costs far more than keeping and clearing it.  It is
    filled with zeros, always.
    Raises `OutOfMemoryError`.
    """
    check(pool, size)
    if reusable:
        region = pool.take(size, heap)
        if region is not None:
            return region
    try:
        memory = SharedMemory.create(size, name)
    except (OSError, OverflowError, ValueError) as error:
        raise OutOfMemoryError(f"no shared memory of {size} bytes: {error}") from error
    # The system gives the lowest number that is free.
    if memory.fd >= descriptor_limit() - RESERVED_DESCRIPTORS:
        memory.close()
        raise OutOfMemoryError(
            f"no descriptor for shared memory of {size} bytes: the process may have"
            f" {descriptor_limit()}"
        )
    return _add(pool, memory, memory.size, heap=heap, reusable=reusable)


def adopt(pool: Pool, fd: int, size: int, *, charged: int = 0, heap: int | None = None) -> Region:
    """Map `size` bytes of somebody else's memory object; `fd` stays the caller's.

    charged: bytes of the limit that are taken.  heap: as for `create`.
    Raises `InvalidParameterError` when it is smaller than that, `OutOfMemoryError`.
    """
    try:
        memory = SharedMemory.from_fd(fd, size)
    except ValueError as error:
        raise InvalidParameterError(str(error)) from error
    except (OSError, OverflowError) as error:
        raise OutOfMemoryError(f"cannot map {size} bytes: {error}") from error
    return _add(pool, memory, charged, heap=heap, reusable=False)


def charge(pool: Pool, size: int, heap: int) -> Region:
    """Take `size` bytes of the limit for memory of a heap that is not mapped here.

    Raises `OutOfMemoryError`.
    """
    check(pool, size)
    return _add(pool, None, size, heap=heap, reusable=False)


def check(pool: Pool, size: int) -> None:
    """Raise `OutOfMemoryError` unless `size` bytes are left of the limit."""
    if not pool.has(size):
        raise OutOfMemoryError(
            f"{size} bytes wanted, {pool.left} left of the memory limit, {pool.limit}"
        )


def _add(
    pool: Pool,
    memory: SharedMemory | None,
    charged: int,
    *,
    heap: int | None,
    reusable: bool,
) -> Region:
    try:
        return pool.add(memory, charged, heap=heap, reusable=reusable)
    except MemoryError as error:
        if memory is not None:
            memory.close()
        raise OutOfMemoryError(str(error)) from error
