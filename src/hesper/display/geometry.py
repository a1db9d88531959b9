"""Rectangles, and the part of a scanout that has changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

TILE = 64
"""Edge of a damage tile in pixels."""


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int


class Rect(NamedTuple):
    """A rectangle in pixels; x to the right, y down, from the scanout's top left corner."""

    x: int
    y: int
    width: int
    height: int

    def clip(self, size: Size) -> Rect | None:
        """Return the part inside a scanout of `size`; None when that is nothing."""
        left, top = max(self.x, 0), max(self.y, 0)
        right = min(self.x + self.width, size.width)
        bottom = min(self.y + self.height, size.height)
        if right <= left or bottom <= top:
            return None
        return Rect(left, top, right - left, bottom - top)

    @property
    def slices(self) -> tuple[slice, slice]:
        """To index an array of shape (height, width, ...)."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


class Damage:
    """The tiles of a scanout that may have changed since somebody looked.

    Takes the same memory however many rectangles are added.  Not thread-safe: its owner locks.
    """

    __slots__ = ("_tiles", "size")

    def __init__(self, size: Size) -> None:
        """Nothing damaged."""
        self.size = size
        shape = (-(-size.height // TILE), -(-size.width // TILE))
        self._tiles = np.zeros(shape, np.bool_)

    def add(self, rect: Rect) -> None:
        """Mark every tile that `rect` touches; parts outside the scanout are ignored."""
        self._tiles[self._covering(rect)] = True

    def add_all(self) -> None:
        """Mark everything."""
        self._tiles[:] = True

    def update(self, rects: Iterable[Rect]) -> None:
        """Mark every tile that one of `rects` touches."""
        for rect in rects:
            self.add(rect)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows of tiles, and tiles a row."""
        rows, columns = self._tiles.shape
        return rows, columns

    def mark(self, flags: npt.NDArray[np.uint8] | npt.NDArray[np.bool_]) -> None:
        """Mark the tiles whose flag is not 0; `flags` has this damage's `shape`."""
        self._tiles |= flags.astype(np.bool_)

    @property
    def flags(self) -> npt.NDArray[np.bool_]:
        """Which tiles are marked, in this damage's `shape`; not to be written."""
        return self._tiles

    def clear(self) -> None:
        """Mark nothing."""
        self._tiles[:] = False

    def __bool__(self) -> bool:
        """Whether anything is marked."""
        return bool(self._tiles.any())

    def touches(self, area: Rect) -> bool:
        """Whether a tile that `area` touches is marked."""
        return bool(self._tiles[self._covering(area)].any())

    def take(self, area: Rect) -> list[Rect]:
        """Return, as `rects` does, the marked tiles that `area` touches, and unmark them."""
        taken = Damage(self.size)
        where = self._covering(area)
        taken._tiles[where] = self._tiles[where]
        self._tiles[where] = False
        return taken.rects()

    def rects(self) -> list[Rect]:
        """Return the marked tiles as disjoint rectangles inside the scanout.

        Equal runs of tiles in consecutive rows are one rectangle, so that a change of the whole
        scanout is one rectangle too.
        """
        done: list[Rect] = []
        growing: dict[tuple[int, int], int] = {}
        rows = len(self._tiles)
        for row in range(rows + 1):
            runs = _runs(self._tiles[row]) if row < rows else []
            ended = [run for run in growing if run not in runs]
            done += [self._rect(run, growing.pop(run), row) for run in ended]
            for run in runs:
                growing.setdefault(run, row)
        return sorted(done, key=lambda rect: (rect.y, rect.x))

    def _covering(self, rect: Rect) -> tuple[slice, slice]:
        """Index the tiles that `rect` touches."""
        inside = rect.clip(self.size) or Rect(0, 0, 0, 0)
        rows = slice(inside.y // TILE, -(-(inside.y + inside.height) // TILE))
        columns = slice(inside.x // TILE, -(-(inside.x + inside.width) // TILE))
        return rows, columns

    def _rect(self, run: tuple[int, int], top: int, bottom: int) -> Rect:
        first, end = run
        x, y = first * TILE, top * TILE
        width = min(end * TILE, self.size.width) - x
        height = min(bottom * TILE, self.size.height) - y
        return Rect(x, y, width, height)


def _runs(row: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> list[tuple[int, int]]:
    """List the runs of True as (first, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], row, [False])).astype(np.int8)))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]
