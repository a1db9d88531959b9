"""A context's shared memory: its regions, a limit, and what is free to be used again."""

from typing import Protocol

class Region:
    """One ownership of shared memory; `release` or the object's end gives it up.

    The last owner's end frees the memory, or leaves it to be used again.  After `release`, and once
    it was given away, everything raises `ValueError`.
    """

    @property
    def address(self) -> int:
        """Where it is mapped; 0 for memory that is only charged for."""
    @property
    def size(self) -> int:
        """Bytes mapped: whole pages."""
    @property
    def fd(self) -> int:
        """Its descriptor, valid as long as it has an owner."""
    def share(self) -> Region:
        """Another ownership of the same memory."""
    def release(self) -> None:
        """Give the ownership up."""

class Memory(Protocol):
    """Shared memory that is mapped, as `portable.SharedMemory` is."""

    address: int
    size: int
    fd: int

    def close(self) -> None: ...

class Pool:
    """The shared memory of one context: a limit, and free regions to be used again."""

    def __new__(cls, limit: int) -> Pool:
        """Allow for `limit` bytes."""
    @property
    def limit(self) -> int: ...
    @property
    def left(self) -> int:
        """Bytes of the limit that are not taken, free regions among them."""
    @property
    def used(self) -> int:
        """Bytes of the limit that are taken for regions that have owners."""
    def has(self, size: int) -> bool:
        """Whether `size` bytes are left; the limit counts as reached if not."""
    def heap_used(self, heap: int) -> int:
        """Bytes of the limit that are taken for a memory heap.  Raises `ValueError`."""
    def take(self, size: int, heap: int | None = None) -> Region | None:
        """A region of exactly `size` bytes that was used before, cleared; None without one.

        They are taken of the limit, and count for `heap`.
        """
    def add(
        self, memory: Memory | None, charged: int, *, heap: int | None = None, reusable: bool
    ) -> Region:
        """A region of `memory`, which it closes in the end; None: it is only charged for.

        heap: the memory heap that `charged` counts for, if it is device memory.
        reusable: it becomes a free region in the end, if there are not too many; all of it is
        charged for then.
        Raises `MemoryError` when `charged` bytes are not left, nor a descriptor; `memory` stays the
        caller's then.
        """
    def close(self) -> None:
        """Free the free regions; from now on none is kept."""
