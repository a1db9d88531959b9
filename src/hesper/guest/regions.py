"""Shared memory with several owners, and the budget it is charged to."""

from __future__ import annotations

import threading

from hesper.guest.errors import InvalidParameterError, OutOfMemoryError
from hesper.portable import SharedMemory


class Budget:
    """Bytes that a context has left."""

    def __init__(self, limit: int) -> None:
        """Start with `limit` bytes."""
        self._lock = threading.Lock()
        self._limit = limit
        self._left = limit

    @property
    def used(self) -> int:
        """Bytes taken and not given back."""
        return self._limit - self._left

    def take(self, size: int) -> None:
        """Take `size` bytes, or none of them and raise `OutOfMemoryError`."""
        with self._lock:
            if size > self._left:
                raise OutOfMemoryError(
                    f"{size} bytes wanted, {self._left} left of the memory limit, {self._limit}"
                )
            self._left -= size

    def give(self, size: int) -> None:
        """Give back what was taken."""
        with self._lock:
            self._left += size


class Spares:
    """Shared memory that a guest has freed and may get again.

    Making it, mapping it and touching its pages first costs far more than keeping it.  What it
    holds is of the same guest, and Vulkan promises nothing about the content of new memory.
    """

    MOST = 64
    """Pieces; each holds a descriptor."""
    MOST_BYTES = 64 << 20

    def __init__(self) -> None:
        """Start with none."""
        self._lock = threading.Lock()
        self._pieces: dict[int, list[SharedMemory]] = {}
        self._count = 0
        self._bytes = 0

    def take(self, size: int) -> SharedMemory | None:
        """A piece of exactly `size` bytes, if there is one."""
        with self._lock:
            pieces = self._pieces.get(size)
            if not pieces:
                return None
            self._count -= 1
            self._bytes -= size
            return pieces.pop()

    def put(self, memory: SharedMemory) -> None:
        """Keep `memory`, or close it when there is enough."""
        with self._lock:
            if self._count < self.MOST and self._bytes + memory.size <= self.MOST_BYTES:
                self._count += 1
                self._bytes += memory.size
                self._pieces.setdefault(memory.size, []).append(memory)
                return
        memory.close()

    def close(self) -> None:
        """Close all pieces."""
        with self._lock:
            pieces, self._pieces = self._pieces, {}
            self._count = self._bytes = 0
        for memory in (each for same_size in pieces.values() for each in same_size):
            memory.close()


class Region:
    """Shared memory that resources and memory objects own together.

    Whoever makes it owns it once; `share` adds an owner, `release` removes one.  The last one
    out unmaps it, or leaves it to `Spares`.
    """

    def __init__(
        self, memory: SharedMemory, budget: Budget, charged: int, spares: Spares | None = None
    ) -> None:
        """Take over `memory`, for which `charged` bytes were taken from `budget`.

        spares: where the memory goes in the end.
        """
        self._lock = threading.Lock()
        self._owners = 1
        self._memory = memory
        self._budget = budget
        self._charged = charged
        self._spares = spares

    @classmethod
    def create(
        cls, size: int, name: str, budget: Budget, *, charged: int, spares: Spares | None = None
    ) -> Region:
        """Make a region of at least `size` bytes, which costs `charged`.

        It is filled with zeros, unless it comes from `spares`.
        Raises `OutOfMemoryError`.
        """
        budget.take(charged)
        try:
            memory = spares.take(size) if spares else None
            return cls(memory or SharedMemory.create(size, name), budget, charged, spares)
        except (OSError, OverflowError, ValueError) as error:
            budget.give(charged)
            raise OutOfMemoryError(f"no shared memory of {size} bytes: {error}") from error
        except BaseException:
            budget.give(charged)
            raise

    @classmethod
    def adopt(cls, fd: int, size: int, budget: Budget) -> Region:
        """Map `size` bytes of somebody else's memory object; `fd` stays the caller's.

        Raises `InvalidParameterError` when it is smaller than that, `OutOfMemoryError`.
        """
        try:
            return cls(SharedMemory.from_fd(fd, size), budget, 0)
        except ValueError as error:
            raise InvalidParameterError(str(error)) from error
        except (OSError, OverflowError) as error:
            raise OutOfMemoryError(f"cannot map {size} bytes: {error}") from error

    @property
    def address(self) -> int:
        """Where it is mapped."""
        return self._memory.address

    @property
    def size(self) -> int:
        """Bytes mapped: whole pages."""
        return self._memory.size

    @property
    def fd(self) -> int:
        """Its descriptor, valid as long as the region is."""
        return self._memory.fd

    def keep_apart(self) -> None:
        """Never use the memory again: somebody besides the guest may keep it mapped."""
        self._spares = None

    def share(self) -> Region:
        """Return itself with one owner more."""
        with self._lock:
            if not self._owners:
                raise InvalidParameterError("this memory has been freed")
            self._owners += 1
        return self

    def release(self) -> None:
        """Remove an owner; the last one frees the memory."""
        with self._lock:
            self._owners -= 1
            if self._owners:
                return
        if self._spares is not None:
            self._spares.put(self._memory)
        else:
            self._memory.close()
        self._budget.give(self._charged)
