"""Choices made of a fuzzer's bytes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class Source(random.Random):
    """Takes choices off bytes, one after another; where they end, everything is 0.

    A `random.Random`, so that whatever draws values from one can draw them from a fuzzer.
    """

    def __init__(self, data: bytes) -> None:
        """Begin with the first of `data`."""
        super().__init__(0)
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        """Whether all bytes were taken."""
        return self._at >= len(self._data)

    def take(self, size: int) -> bytes:
        """Up to `size` bytes."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def number(self, size: int) -> int:
        """A number of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def below(self, limit: int) -> int:
        """A number from 0 on, below `limit`; 0 where that is 0."""
        return self.number((limit.bit_length() + 7) // 8) % limit if limit else 0

    def getrandbits(self, k: int) -> int:
        """A number of `k` bits."""
        return self.number((k + 7) // 8) & ((1 << k) - 1)

    def random(self) -> float:
        """A number from 0.0 on, below 1.0."""
        return self.number(1) / 256

    def choice(self, seq: Any) -> Any:
        """One of a sequence."""
        return seq[self.below(len(seq))]

    def randint(self, a: int, b: int) -> int:
        """A number from `a` to `b`."""
        return a + self.below(b - a + 1)

    def randbytes(self, n: int) -> bytes:
        """Exactly `n` bytes."""
        return self.take(n).ljust(n, b"\0")

    def sample(self, population: Sequence[T], k: int, **_: Any) -> list[T]:
        """`k` different ones of a sequence."""
        left = list(population)
        return [left.pop(self.below(len(left))) for _ in range(k)]
