"""The last picture that was taken of a scanout, for outputs that need one of their own.

Taking a picture reads the damaged part of the guest's memory once, compares it with the last
picture and keeps what differs, in one compiled step (`tiles`).  Guests flush far more than they
change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from hesper.display import tiles
from hesper.display.formats import XRGB_DTYPE, XRGB_SHIFTS
from hesper.display.geometry import TILE, Damage, Rect, Size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hesper.display.formats import Xrgb
    from hesper.display.scanout import Cursor, Scanout
    from hesper.display.surface import Surface

BACKGROUND = 0x15171C
FOREGROUND = 0x8A919E


class Frame:
    """A picture of one size.

    `pixels` may be read while `update` writes on another thread: the reader sees some tiles new
    and some old, and is told of the new ones when `update` returns.
    """

    def __init__(self, size: Size) -> None:
        """Begin with a black picture."""
        self.size = size
        self.pixels: Xrgb = np.zeros((size.height, size.width), XRGB_DTYPE)

    def update(self, surface: Surface, rects: Sequence[Rect]) -> list[Rect]:
        """Copy the tiles of `rects` that differ in `surface`, which has this frame's size.

        `rects` begin and end at tiles or at the right and lower edge, as `Damage.rects` makes
        them.  Returns where the picture has changed, made of whole tiles too.
        """
        changed = Damage(self.size)
        flags = np.zeros(changed.shape, np.uint8)
        for rect in rects:
            for top in range(rect.y, rect.y + rect.height, TILE):
                height = min(TILE, rect.y + rect.height - top)
                self._update_row(surface, Rect(rect.x, top, rect.width, height), flags)
        changed.mark(flags)
        return changed.rects()

    def _update_row(self, surface: Surface, rect: Rect, flags: npt.NDArray[np.uint8]) -> None:
        shifts = surface.format.byte_shifts
        if shifts is None:
            pixels = np.empty((rect.height, rect.width), XRGB_DTYPE)
            surface.read(rect, pixels)
        else:
            found = surface.pixels(rect)
            if not found.flags.aligned:
                found = found.copy()
            pixels = found.view(XRGB_DTYPE)
            shifts = None if shifts == XRGB_SHIFTS else shifts
        tiles.update(pixels, shifts, self.pixels, rect.x, rect.y, flags)


@dataclass(frozen=True, slots=True)
class Picture:
    """What `Capture.take` found."""

    frame: Frame
    """The frame of the last picture, updated; another one when the size is another."""
    changed: Sequence[Rect]
    """Where `frame` differs from the last picture, made of whole tiles."""
    cursor: Cursor | None
    cursor_position: tuple[int, int]
    cursor_changed: bool
    flushes: int
    """How many frames of the guest this picture stands for."""
    since: float
    """When the first of them was finished (`time.monotonic`)."""


class Capture:
    """Takes pictures of one scanout.  Not thread-safe: one picture at a time."""

    def __init__(self, scanout: Scanout, wake: Callable[[], None]) -> None:
        """Begin to look; `wake` as in `Scanout.subscribe`."""
        self._scanout = scanout
        self._frame: Frame | None = None
        self._blank = False
        self._subscription = scanout.subscribe(wake)

    @property
    def pending(self) -> bool:
        """Whether there is something to take."""
        return self._subscription.pending

    def take(self) -> Picture:
        """Read what has changed since the last picture.

        A scanout that shows nothing gives a picture that says so, of the size last seen.
        """
        update = self._subscription.take()
        # Should reading fail, there is no last picture, and the next one is complete.
        frame, self._frame = self._frame, None
        if update.surface is not None:
            if frame is None or frame.size != update.surface.size:
                frame = Frame(update.surface.size)
                frame.update(update.surface, [Rect(0, 0, *frame.size)])
                changed = [Rect(0, 0, *frame.size)]
            else:
                changed = frame.update(update.surface, update.damage)
        elif frame is None or not self._blank:
            frame = _blank_frame(
                frame.size if frame is not None else self._scanout.wanted, self._scanout.index
            )
            changed = [Rect(0, 0, *frame.size)]
        else:
            changed = []
        self._frame = frame
        self._blank = update.surface is None
        return Picture(
            frame,
            changed,
            update.cursor if not self._blank else None,
            update.cursor_position,
            update.cursor_changed,
            update.flushes,
            update.since,
        )

    def close(self) -> None:
        """Stop looking."""
        self._subscription.close()


def _blank_frame(size: Size, index: int) -> Frame:
    """Make the picture for a scanout that shows nothing."""
    image = Image.new("RGB", size, f"#{BACKGROUND:06x}")
    text = f"Hesper, screen {index + 1}: the guest shows no picture"
    font = ImageFont.load_default(max(10, min(22, size.width // 40)))
    middle = (size.width / 2, size.height / 2)
    ImageDraw.Draw(image).text(middle, text, f"#{FOREGROUND:06x}", font, anchor="mm")
    frame = Frame(size)
    colours = np.asarray(image).astype(XRGB_DTYPE)
    red, green, blue = (colours[..., index] for index in range(3))
    frame.pixels[:] = red << np.uint32(16) | green << np.uint32(8) | blue
    return frame


def cursor_rect(cursor: Cursor, position: tuple[int, int]) -> Rect:
    """Where a cursor lies on its scanout; partly outside at an edge."""
    height, width = cursor.pixels.shape
    return Rect(*position, width, height)


def draw_cursor(pixels: Xrgb, area: Rect, cursor: Cursor, position: tuple[int, int]) -> None:
    """Blend the cursor into `pixels`, a picture of `area`."""
    where = cursor_rect(cursor, position)
    inside = Rect(where.x - area.x, where.y - area.y, where.width, where.height).clip(
        Size(area.width, area.height)
    )
    if inside is None:
        return
    left, top = inside.x - (where.x - area.x), inside.y - (where.y - area.y)
    source = cursor.pixels[top : top + inside.height, left : left + inside.width]
    target = pixels[inside.slices]
    keep = np.uint32(255) - (source >> np.uint32(24))
    result = np.zeros_like(target)
    for shift in (np.uint32(0), np.uint32(8), np.uint32(16)):
        under = (target >> shift & np.uint32(255)) * keep
        # A guest may send colours above their alpha; the sum has to stay a byte.
        value = (source >> shift & np.uint32(255)) + (under + np.uint32(127)) // np.uint32(255)
        result |= np.minimum(value, np.uint32(255)) << shift
    target[:] = result
