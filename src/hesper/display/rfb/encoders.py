"""What an encoding has to offer, and the simplest one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from hesper.display.geometry import Rect
from hesper.display.rfb.wire import Encoding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hesper.display.formats import Xrgb
    from hesper.display.rfb.pixels import PixelConverter


STRIP = 1 << 20
"""Most bytes of a rectangle of plain pixels, or one row: while they are copied, no other thread of
Python's runs, and a screen may have 130 MB."""


class Encoded(NamedTuple):
    """A rectangle, ready to be sent."""

    rect: Rect
    encoding: int
    data: bytes


class Encoder(Protocol):
    """Encodes rectangles for one viewer; what it makes has to be sent, in order.

    Encoders keep compression streams that go on from rectangle to rectangle.
    """

    def encode(self, rect: Rect, pixels: Xrgb, convert: PixelConverter) -> Iterator[Encoded]:
        """Encode `pixels`, which is what `rect` shows, as one or more rectangles."""


class RawEncoder:
    """Pixels as they are, RFC 6143 section 7.7.1."""

    def encode(self, rect: Rect, pixels: Xrgb, convert: PixelConverter) -> Iterator[Encoded]:
        """See `Encoder.encode`."""
        rows = max(1, STRIP // (rect.width * convert.bytes_per_pixel))
        for top in range(0, rect.height, rows):
            strip = Rect(rect.x, rect.y + top, rect.width, min(rows, rect.height - top))
            part = pixels[top : top + strip.height]
            yield Encoded(strip, Encoding.RAW, convert.raw(part))
