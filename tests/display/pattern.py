"""A moving test picture, as a guest's drawing."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hesper.display.formats import BY_NAME
from hesper.display.geometry import Rect, Size
from hesper.display.scanout import Scanout
from hesper.display.surface import MemorySurface

BARS = ("#c0c0c0", "#c0c000", "#00c0c0", "#00c000", "#c000c0", "#c00000", "#0000c0")
WINDOW = Rect(96, 96, 320, 240)


class Pattern:
    """Colour bars, text, and a window with a moving photo-like gradient."""

    def __init__(self, size: Size, caption: str = "Hesper") -> None:
        self.size = size
        self.memory = bytearray(size.width * size.height * 4)
        self.surface = MemorySurface(self.memory, size, size.width * 4, BY_NAME["XRGB8888"])
        self.pixels = np.frombuffer(self.memory, "<u4").reshape(size.height, size.width)
        self._paint_still(caption)

    def _paint_still(self, caption: str) -> None:
        image = Image.new("RGB", self.size, "#203040")
        draw = ImageDraw.Draw(image)
        width = self.size.width / len(BARS)
        for index, colour in enumerate(BARS):
            box = (index * width, self.size.height * 2 // 3, (index + 1) * width, self.size.height)
            draw.rectangle(box, colour)
        font = ImageFont.load_default(20)
        draw.text((20, 20), f"{caption}: the quick brown fox", "#ffffff", font)
        rgb = np.asarray(image).astype("<u4")
        self.pixels[:] = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]

    def step(self, number: int) -> list[Rect]:
        """Draw frame `number` and return what was drawn."""
        window = WINDOW.clip(self.size) or Rect(0, 0, *self.size)
        y, x = np.mgrid[0 : window.height, 0 : window.width].astype("<u4")
        red = (x + number * 3) * 255 // 320 & 255
        green = (y * 2 + x // 3 + number * 5) & 255
        blue = (x * y // 64 + number) & 255
        self.pixels[window.slices] = red << 16 | green << 8 | blue
        return [window]

    def show_on(self, scanout: Scanout) -> None:
        """Put it on a scanout."""
        scanout.show(self.surface)
        scanout.flush([Rect(0, 0, *self.size)])
