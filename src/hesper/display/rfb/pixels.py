"""From this server's pixels to those a viewer asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hesper.display.rfb.wire import NATIVE_LAYOUT, PixelLayout

if TYPE_CHECKING:
    from hesper.display.formats import Xrgb

_COLOUR_MAP_LAYOUT = PixelLayout(8, 8, False, True, 7, 7, 3, 5, 2, 0)
"""A colour map is sent whose entries make the index a pixel of this layout."""


class PixelConverter:
    """Makes pixels of one `PixelLayout`."""

    def __init__(self, layout: PixelLayout) -> None:
        """Prepare tables for `layout`, which `PixelLayout.unpack` has checked."""
        if not layout.true_colour:
            layout = _COLOUR_MAP_LAYOUT
        self.bytes_per_pixel = layout.bits_per_pixel // 8
        order = ">" if layout.big_endian else "<"
        self._dtype = np.dtype(f"{order}u{self.bytes_per_pixel}")
        channels = (
            (16, layout.red_max, layout.red_shift),
            (8, layout.green_max, layout.green_shift),
            (0, layout.blue_max, layout.blue_shift),
        )
        # XRGB bytes as they are: in place when the viewer's shifts are ours and it counts to 255.
        self._native = layout.bits_per_pixel == 32 and channels == (
            (16, 255, 16),
            (8, 255, 8),
            (0, 255, 0),
        )
        levels = np.arange(256, dtype=np.uint32)
        self._tables = [
            (np.uint32(source), (levels * maximum + 127) // 255 << np.uint32(shift))
            for source, maximum, shift in channels
        ]
        used = sum(maximum << shift for _, maximum, shift in channels)
        self._compact = self._compact_slice(layout, used)
        self.compact_size = 3 if self._compact else self.bytes_per_pixel
        """Bytes of a ZRLE `CPIXEL`."""
        self._tight_rgb = (
            layout.bits_per_pixel == 32
            and layout.depth == 24
            and (layout.red_max, layout.green_max, layout.blue_max) == (255, 255, 255)
        )

    @staticmethod
    def _compact_slice(layout: PixelLayout, used: int) -> slice | None:
        """Which three bytes of a pixel a `CPIXEL` has; None when it has all."""
        if layout.bits_per_pixel != 32 or layout.depth > 24:
            return None
        if used < 1 << 24:
            return slice(1, 4) if layout.big_endian else slice(0, 3)
        if not used & 0xFF:
            return slice(0, 3) if layout.big_endian else slice(1, 4)
        return None

    def values(self, pixels: Xrgb) -> npt.NDArray[np.uint32]:
        """Return the viewer's pixel values as numbers, in the shape of `pixels`."""
        if self._native:
            return pixels
        result = np.zeros(pixels.shape, np.uint32)
        for shift, table in self._tables:
            result |= table[pixels >> shift & np.uint32(255)]
        return result

    def raw(self, pixels: Xrgb) -> bytes:
        """Return `PIXEL`s, row by row."""
        return self.values(pixels).astype(self._dtype, copy=False).tobytes()

    def compact(self, values: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
        """Return ZRLE's `CPIXEL`s for `values`: shape (len(values), compact_size)."""
        flat = np.ascontiguousarray(values.reshape(-1).astype(self._dtype, copy=False))
        pixels = flat.view(np.uint8).reshape(-1, self.bytes_per_pixel)
        return pixels[:, self._compact] if self._compact else pixels

    def tight(self, pixels: Xrgb) -> bytes:
        """Return Tight's `TPIXEL`s."""
        if not self._tight_rgb:
            return self.raw(pixels)
        flat = np.ascontiguousarray(pixels.reshape(-1))
        return flat.view(np.uint8).reshape(-1, 4)[:, 2::-1].tobytes()


NATIVE = PixelConverter(NATIVE_LAYOUT)
