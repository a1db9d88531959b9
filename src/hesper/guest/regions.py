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


class Region:
    """Shared memory that resources and memory objects own together.

    Whoever makes it owns it once; `share` adds an owner, `release` removes one.  The last one
    out unmaps it.
    """

    def __init__(self, memory: SharedMemory, budget: Budget, charged: int) -> None:
        """Take over `memory`, for which `charged` bytes were taken from `budget`."""
        self._lock = threading.Lock()
        self._owners = 1
        self._memory = memory
        self._budget = budget
        self._charged = charged

    @classmethod
    def create(cls, size: int, name: str, budget: Budget, *, charged: int) -> Region:
        """Make a zero-filled region of at least `size` bytes, which costs `charged`.

        Raises `OutOfMemoryError`.
        """
        budget.take(charged)
        try:
            return cls(SharedMemory.create(size, name), budget, charged)
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
        self._memory.close()
        self._budget.give(self._charged)
