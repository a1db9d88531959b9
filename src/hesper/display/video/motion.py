"""Finds the part of a screen that moves, as a film does and a page of text does not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from hesper.display.geometry import TILE, Damage, Rect, Size

if TYPE_CHECKING:
    import numpy.typing as npt

COOLING_SECONDS = 0.4
"""After so long, a change counts for 1/e."""
MOST_HEAT, BUSY, WARM = 8.0, 3.0, 0.5
"""Changes that a tile is credited with at most; that make it a part of what moves; and below which
it no longer is: a tile that changes eight times a second gets to 3, a blinking cursor to 1."""
MOST_FRAMES = 4
"""Of a guest's frames that one picture stands for, so many are counted."""
FEWEST_TILES = 12
"""What is smaller, as a clock, is not worth an encoder."""
SHRINK = 3
"""A box is left when so many of what still moves would fit into it."""


class Motion:
    """How much each tile of a screen has changed lately."""

    def __init__(self, size: Size) -> None:
        """Nothing has."""
        self.size = size
        shape = Damage(size).shape
        self._heat = np.zeros(shape, np.float32)
        self._changed = np.full(shape, -math.inf)
        self._now = 0.0

    def note(self, damage: Damage, frames: int, now: float) -> None:
        """Note what `frames` of the guest's have changed, at `now` in seconds."""
        self._cool(now)
        flags = damage.flags
        self._heat[flags] += min(max(frames, 1), MOST_FRAMES)
        np.minimum(self._heat, MOST_HEAT, out=self._heat)
        self._changed[flags] = now

    def still(self, seconds: float, now: float) -> npt.NDArray[np.bool_]:
        """Flag the tiles that have not changed for `seconds`."""
        return self._changed <= now - seconds

    def box(self, now: float, current: Rect | None = None) -> Rect | None:
        """Return what to send as a video: made of whole tiles, but for an odd column or row.

        current: what has been sent as one; it is kept for as long as it fits.
        """
        self._cool(now)
        busy, warm = self._heat >= BUSY, self._heat >= WARM
        if current is not None:
            inside = covering(current)
            if warm[inside].any():
                return self._keep(current, busy, warm)
        return self._around(busy) if np.count_nonzero(busy) >= FEWEST_TILES else None

    def _keep(
        self, current: Rect, busy: npt.NDArray[np.bool_], warm: npt.NDArray[np.bool_]
    ) -> Rect | None:
        inside = covering(current)
        outside = busy.copy()
        outside[inside] = False
        if np.count_nonzero(outside) >= FEWEST_TILES:
            outside[inside] = warm[inside]
            return self._around(outside)
        within = np.zeros_like(warm)
        within[inside] = warm[inside]
        smaller = self._around(within)
        areas = smaller.width * smaller.height, current.width * current.height
        enough = np.count_nonzero(within) >= FEWEST_TILES
        return smaller if enough and areas[0] * SHRINK < areas[1] else current

    def _cool(self, now: float) -> None:
        self._heat *= math.exp(min(self._now - now, 0.0) / COOLING_SECONDS)
        self._now = now

    def _around(self, flags: npt.NDArray[np.bool_]) -> Rect:
        """The smallest box around all that is flagged, of even edges."""
        rows, columns = (np.flatnonzero(flags.any(axis=axis)) for axis in (1, 0))
        x, y = int(columns[0]) * TILE, int(rows[0]) * TILE
        right = min((int(columns[-1]) + 1) * TILE, self.size.width)
        bottom = min((int(rows[-1]) + 1) * TILE, self.size.height)
        return Rect(x, y, (right - x) // 2 * 2, (bottom - y) // 2 * 2)


def covering(rect: Rect) -> tuple[slice, slice]:
    """Index the tiles of a box."""
    return (
        slice(rect.y // TILE, -(-(rect.y + rect.height) // TILE)),
        slice(rect.x // TILE, -(-(rect.x + rect.width) // TILE)),
    )
