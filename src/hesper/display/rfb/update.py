"""Putting a framebuffer update together: the work that is done off the event loop."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hesper.display.formats import XRGB_DTYPE, Xrgb
from hesper.display.frame import Frame, cursor_rect, draw_cursor
from hesper.display.geometry import Rect, Size
from hesper.display.rfb.encoders import Encoded
from hesper.display.rfb.wire import Encoding, rect_header, update_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hesper.display.rfb.encoders import Encoder
    from hesper.display.rfb.pixels import PixelConverter
    from hesper.display.rfb.video import VideoJob
    from hesper.display.scanout import Cursor

RESIZED_BY_SERVER = 0
RESIZED_BY_THIS_VIEWER = 1
STATUS_INVALID_LAYOUT = 3
STATUS_FORWARDED = 4
"""`ExtendedDesktopSize`: the request went to the guest, which may or may not follow."""


@dataclass(frozen=True, slots=True)
class PixelJob:
    """Everything that is needed to encode the damaged part of a frame."""

    frame: Frame
    rects: Sequence[Rect]
    encoder: Encoder
    convert: PixelConverter
    cursor: Cursor | None = None
    """To be drawn into the picture, for a viewer that does not draw it itself."""
    cursor_position: tuple[int, int] = (0, 0)
    video: VideoJob | None = None
    """A part that is not among `rects`."""

    def run(self) -> list[Encoded]:
        """Encode.  Reads the frame while it may be written; see `Frame`."""
        rects: list[Rect] = list(self.rects)
        encoded: list[Encoded] = []
        if self.video is not None:
            encoded += self.video.run(self._pixels)
            rects += self.video.rim
            if not encoded:
                rects.append(self.video.stream.rect)
        for rect in rects:
            encoded += self.encoder.encode(rect, self._pixels(rect), self.convert)
        return encoded

    def _pixels(self, rect: Rect) -> Xrgb:
        pixels = _cut(self.frame, rect)
        if self.cursor is not None and overlap(
            cursor_rect(self.cursor, self.cursor_position), rect
        ):
            pixels = pixels.copy()
            draw_cursor(pixels, rect, self.cursor, self.cursor_position)
        return pixels


def overlap(one: Rect, other: Rect) -> bool:
    """Tell whether two rectangles share a pixel."""
    return (
        one.x < other.x + other.width
        and other.x < one.x + one.width
        and one.y < other.y + other.height
        and other.y < one.y + one.height
    )


def _cut(frame: Frame, rect: Rect) -> Xrgb:
    """Return what a viewer sees at `rect`: black where its screen is larger than the frame."""
    inside = rect.clip(frame.size)
    if inside == rect:
        return frame.pixels[rect.slices]
    pixels = np.zeros((rect.height, rect.width), XRGB_DTYPE)
    if inside is not None:
        pixels[: inside.height, : inside.width] = frame.pixels[inside.slices]
    return pixels


def serialize(rects: Sequence[Encoded]) -> list[bytes]:
    """Return the message that brings `rects`."""
    parts = [update_header(len(rects))]
    for encoded in rects:
        parts += (rect_header(encoded.rect, encoded.encoding), encoded.data)
    return parts


def nothing() -> bytes:
    """Return an update without pixels, for a viewer that knows `LastRect`.

    Viewers begin no update before they have drawn the one before: what they say after this one,
    they say when its picture can be seen.
    """
    return update_header(1) + rect_header(Rect(0, 0, 0, 0), Encoding.LAST_RECT)


def extended_desktop_size(size: Size, reason: int, status: int) -> Encoded:
    """Return the pseudo-rectangle that tells the size, as one screen."""
    screen = struct.pack(">IHHHHI", 0, 0, 0, *size, 0)
    where = Rect(reason, status, *size)
    return Encoded(where, Encoding.EXTENDED_DESKTOP_SIZE, struct.pack(">Bxxx", 1) + screen)


def cursor_with_mask(cursor: Cursor | None, convert: PixelConverter) -> Encoded:
    """Return the `Cursor` pseudo-rectangle; half and more of alpha is opaque."""
    if cursor is None:
        return Encoded(Rect(0, 0, 0, 0), Encoding.CURSOR, b"")
    height, width = cursor.pixels.shape
    alpha = cursor.pixels >> np.uint32(24)
    mask = np.packbits(alpha >= 128, axis=1).tobytes()
    where = Rect(cursor.hot_x, cursor.hot_y, width, height)
    pixels = convert.raw(cursor.straight() & np.uint32(0x00FFFFFF))
    return Encoded(where, Encoding.CURSOR, pixels + mask)


def cursor_with_alpha(cursor: Cursor | None) -> Encoded:
    """Return the `CursorWithAlpha` pseudo-rectangle: R, G, B, A, premultiplied."""
    raw = struct.pack(">i", Encoding.RAW)
    if cursor is None:
        return Encoded(Rect(0, 0, 0, 0), Encoding.CURSOR_WITH_ALPHA, raw)
    height, width = cursor.pixels.shape
    data = np.ascontiguousarray(cursor.pixels).view(np.uint8).reshape(-1, 4)
    where = Rect(cursor.hot_x, cursor.hot_y, width, height)
    pixels = data[:, [2, 1, 0, 3]].tobytes()
    return Encoded(where, Encoding.CURSOR_WITH_ALPHA, raw + pixels)
