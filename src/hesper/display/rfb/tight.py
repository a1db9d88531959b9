"""Tight: every area in the way that suits it.  `rfbproto.rst`, "Tight Encoding".

One colour is a fill; few colours are a palette through zlib; pictures are JPEG when the viewer has
named a quality, and plain pixels through zlib when it has not.
"""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from hesper.display import tiles
from hesper.display.formats import XRGB_DTYPE
from hesper.display.geometry import TILE, Damage, Rect, Size
from hesper.display.rfb.encoders import Encoded
from hesper.display.rfb.wire import Encoding
from hesper.display.rfb.zrle import pack_indices

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from hesper.display.formats import Xrgb
    from hesper.display.rfb.pixels import PixelConverter

FILL = 0x80
JPEG = 0x90
EXPLICIT_FILTER = 0x40
FILTER_PALETTE = 1
STREAM_PLAIN, STREAM_MONO, STREAM_INDEXED = 0, 1, 2

MAX_WIDTH = 2048
"""Of a rectangle; the protocol's limit."""
MAX_AREA = 1 << 16
"""Pixels of a zlib rectangle: small enough that one icon does not cost a page its palette."""
MAX_JPEG_AREA = 1 << 19
SHORT = 12
"""Data below this many bytes is sent without zlib."""

BUSY_SHARE = 0.25
"""A tile where more of the pixels differ from their left neighbour may be a picture."""
SOLID, PICTURE = 0, 2
"""What `tiles.sort_tiles` says of a tile."""

JPEG_QUALITY = (15, 29, 41, 42, 62, 77, 79, 86, 92, 100)
"""libjpeg's quality for the viewer's level 0 to 9."""
FULL_CHROMA_LEVEL = 8
"""From this level on colour is not subsampled."""


class TightEncoder:
    """For viewers far away, and for moving pictures."""

    def __init__(self, level: int) -> None:
        """Begin the connection's streams at zlib `level`."""
        self._streams = [zlib.compressobj(level) for _ in range(3)]
        self.quality: int | None = None
        """For JPEG, 0 to 9; None for no JPEG."""

    def encode(self, rect: Rect, pixels: Xrgb, convert: PixelConverter) -> Iterator[Encoded]:
        """See `Encoder.encode`."""
        flat = Damage(Size(rect.width, rect.height))
        photo = Damage(flat.size)
        for tile, colour in _solid_runs(pixels, flat, photo, self._may_jpeg(convert)):
            yield self._encoded(rect, tile, bytes([FILL]) + convert.tight(colour))
        for part in _split(flat.rects(), MAX_AREA):
            yield self._encoded(rect, part, self._zlib(pixels[part.slices], convert))
        for part in _split(photo.rects(), MAX_JPEG_AREA):
            yield self._encoded(rect, part, self._jpeg(pixels[part.slices]))

    def _may_jpeg(self, convert: PixelConverter) -> bool:
        return self.quality is not None and convert.bytes_per_pixel > 1

    @staticmethod
    def _encoded(rect: Rect, part: Rect, data: bytes) -> Encoded:
        where = Rect(rect.x + part.x, rect.y + part.y, part.width, part.height)
        return Encoded(where, Encoding.TIGHT, data)

    def _jpeg(self, pixels: Xrgb) -> bytes:
        height, width = pixels.shape
        quality = self.quality or 0
        source = np.ascontiguousarray(pixels)
        image = Image.frombuffer("RGB", (width, height), source, "raw", "BGRX", 0, 1)
        file = io.BytesIO()
        image.save(
            file,
            "JPEG",
            quality=JPEG_QUALITY[quality],
            subsampling="4:4:4" if quality >= FULL_CHROMA_LEVEL else "4:2:0",
        )
        data = file.getvalue()
        return bytes([JPEG]) + _compact_length(len(data)) + data

    def _zlib(self, pixels: Xrgb, convert: PixelConverter) -> bytes:
        found = _palette(pixels)
        if found is None:
            data = convert.tight(pixels)
            return bytes([STREAM_PLAIN << 4]) + self._compress(STREAM_PLAIN, data)
        palette, indices = found
        mono = len(palette) <= 2
        stream = STREAM_MONO if mono else STREAM_INDEXED
        data = pack_indices(indices, 1) if mono else indices.tobytes()
        if len(palette) == 1:
            # One colour too many, because a palette has two at least.
            palette = np.repeat(palette, 2)
        head = bytes([stream << 4 | EXPLICIT_FILTER, FILTER_PALETTE, len(palette) - 1])
        return head + convert.tight(palette) + self._compress(stream, data)

    def _compress(self, stream: int, data: bytes) -> bytes:
        if len(data) < SHORT:
            return data
        compressor = self._streams[stream]
        packed = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return _compact_length(len(packed)) + packed


def _solid_runs(
    pixels: Xrgb, flat: Damage, photo: Damage, may_jpeg: bool
) -> Iterator[tuple[Rect, npt.NDArray[np.uint32]]]:
    """Sort the tiles of `pixels`: give back solid ones, mark the others in `flat` or `photo`.

    Solid tiles of one colour that lie side by side are given as one rectangle.
    """
    height, width = pixels.shape
    kinds = np.empty(flat.shape, np.uint8)
    tiles.sort_tiles(pixels, BUSY_SHARE, kinds)
    is_photo = kinds == PICTURE if may_jpeg else np.zeros_like(kinds, np.bool_)
    photo.mark(is_photo)
    flat.mark((kinds != SOLID) & ~is_photo)
    for row, y in enumerate(range(0, height, TILE)):
        run: Rect | None = None
        for column in np.flatnonzero(kinds[row] == SOLID).tolist():
            x = column * TILE
            where = Rect(x, y, min(TILE, width - x), min(TILE, height - y))
            if (
                run is not None
                and run.x + run.width == x
                and pixels[y, run.x] == pixels[y, x]
                and run.width + where.width <= MAX_WIDTH
            ):
                run = run._replace(width=run.width + where.width)
                continue
            if run is not None:
                yield run, pixels[y, run.x : run.x + 1]
            run = where
        if run is not None:
            yield run, pixels[y, run.x : run.x + 1]


def _split(rects: list[Rect], area: int) -> Iterator[Rect]:
    """Cut rectangles to the protocol's width and to about `area` pixels."""
    for rect in rects:
        width = min(rect.width, MAX_WIDTH)
        height = max(TILE, area // width // TILE * TILE)
        for y in range(rect.y, rect.y + rect.height, height):
            for x in range(rect.x, rect.x + rect.width, width):
                yield Rect(
                    x,
                    y,
                    min(width, rect.x + rect.width - x),
                    min(height, rect.y + rect.height - y),
                )


def _palette(
    pixels: Xrgb,
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8]] | None:
    """Return the colours and each pixel's index, when there are at most 256 colours."""
    colours = np.empty(256, XRGB_DTYPE)
    indices = np.empty(pixels.shape, np.uint8)
    count = tiles.find_palette(pixels, colours, indices)
    return None if count < 0 else (colours[:count], indices)


def _compact_length(length: int) -> bytes:
    """Seven bits a byte, lowest first, eight in the third."""
    if length < 1 << 7:
        return bytes([length])
    if length < 1 << 14:
        return bytes([length & 0x7F | 0x80, length >> 7])
    return bytes([length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14])
