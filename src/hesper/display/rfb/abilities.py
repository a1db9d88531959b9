"""What one viewer can show, as it says by its encodings and its pixel format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.display.rfb.encoders import RawEncoder
from hesper.display.rfb.pixels import NATIVE, PixelConverter
from hesper.display.rfb.tight import TightEncoder
from hesper.display.rfb.wire import Encoding
from hesper.display.rfb.zrle import ZrleEncoder

if TYPE_CHECKING:
    from hesper.display.rfb.encoders import Encoder

DEFAULT_COMPRESS_LEVEL = 1


class Abilities:
    """A viewer's encodings, and the encoder and pixels that follow from them."""

    def __init__(self) -> None:
        """The least that every viewer can."""
        self.encodings: frozenset[int] = frozenset()
        self.convert: PixelConverter = NATIVE
        self._encoders: dict[int, Encoder] = {Encoding.RAW: RawEncoder()}
        self.encoder: Encoder = self._encoders[Encoding.RAW]

    def learn(self, encodings: tuple[int, ...]) -> frozenset[int]:
        """Note the encodings, the most wanted first; returns those that are new."""
        new = frozenset(encodings) - self.encodings
        self.encodings = frozenset(encodings)
        for encoding in encodings:
            if encoding in {Encoding.RAW, Encoding.ZRLE, Encoding.TIGHT}:
                self.encoder = self._encoder_for(encoding)
                break
        return new

    @property
    def draws_cursor(self) -> bool:
        """Whether the viewer draws the cursor itself."""
        return not self.encodings.isdisjoint({Encoding.CURSOR, Encoding.CURSOR_WITH_ALPHA})

    @property
    def changes_size(self) -> bool:
        """Whether the viewer follows when the screen's size changes."""
        sizes = {Encoding.DESKTOP_SIZE, Encoding.EXTENDED_DESKTOP_SIZE}
        return not self.encodings.isdisjoint(sizes)

    @property
    def shows_video(self) -> bool:
        """Whether it takes H.264, which has no palette."""
        return Encoding.H264 in self.encodings and self.convert.bytes_per_pixel > 1

    def _encoder_for(self, encoding: int) -> Encoder:
        # Made once: the viewer unpacks all of an encoding's rectangles as one stream.
        level = self._level(Encoding.COMPRESS_LEVEL_0, Encoding.COMPRESS_LEVEL_9)
        level = DEFAULT_COMPRESS_LEVEL if level is None else level
        encoder = self._encoders.get(encoding)
        if encoder is None:
            encoder = ZrleEncoder(level) if encoding == Encoding.ZRLE else TightEncoder(level)
            self._encoders[encoding] = encoder
        if isinstance(encoder, TightEncoder):
            encoder.quality = self._level(Encoding.JPEG_QUALITY_0, Encoding.JPEG_QUALITY_9)
        return encoder

    def _level(self, lowest: Encoding, highest: Encoding) -> int | None:
        levels = [code - lowest for code in self.encodings if lowest <= code <= highest]
        return max(levels, default=None)
