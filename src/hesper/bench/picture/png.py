"""A page as PNG, drawn twice as large as it is meant to be shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from hesper.bench.picture.canvas import Anchor

SCALE = 2
_ANCHORS: dict[Anchor, str] = {"start": "ls", "middle": "ms", "end": "rs"}


class PngCanvas:
    """Draws with Pillow and its own font; see `Canvas`."""

    def __init__(self) -> None:
        """Begin with an empty sheet."""
        self._image = Image.new("RGB", (1, 1))
        self._draw = ImageDraw.Draw(self._image)

    def begin(self, width: float, height: float) -> None:
        """White all over."""
        self._image = Image.new("RGB", (round(width * SCALE), round(height * SCALE)), "#ffffff")
        self._draw = ImageDraw.Draw(self._image)

    def rectangle(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """Pixels from edge to edge."""
        if width > 0 and height > 0:
            corners = [x * SCALE, y * SCALE, (x + width) * SCALE - 1, (y + height) * SCALE - 1]
            self._draw.rectangle(corners, fill=colour)

    def line(self, x: float, top: float, bottom: float, colour: str) -> None:
        """One point wide."""
        self._draw.line([x * SCALE, top * SCALE, x * SCALE, bottom * SCALE], colour, SCALE)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 11,
        colour: str = "#1f2328",
        anchor: Anchor = "start",
        bold: bool = False,
    ) -> None:
        """Bold is a stroke around the letters: the font has one weight."""
        font = ImageFont.load_default(size * SCALE)
        self._draw.text(
            (x * SCALE, y * SCALE),
            text,
            fill=colour,
            font=font,
            anchor=_ANCHORS[anchor],
            stroke_width=0.5 if bold else 0,
        )

    def write(self, path: Path) -> None:
        """As PNG."""
        self._image.save(path, "PNG", optimize=True)
