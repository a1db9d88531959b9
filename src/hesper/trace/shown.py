"""What screens show, put together from a recording of them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hesper.trace.chunks import RecordingError
from hesper.trace.picture import MOST_PIXELS, PIXEL, Picture

if TYPE_CHECKING:
    from hesper.trace.records import Record

MOST_SCREENS = 16
"""As many as a virtual machine can have."""
BODY = struct.Struct("<IIIIIII")
"""Screen, its width and height, then left, top, width and height of what has changed; pixels
follow, row by row, blue first, four bytes each."""


class ReplayedScreens:
    """What screens show, put together from a recording, which is hostile."""

    def __init__(self) -> None:
        """They show nothing."""
        self._shown: dict[int, tuple[int, int, bytearray]] = {}
        self._last: tuple[int, int, bytearray] | None = None

    @property
    def picture(self) -> Picture | None:
        """What the screen shows that was drawn to last."""
        if self._last is None:
            return None
        width, height, whole = self._last
        return Picture(width, height, "BGRA", bytes(whole))

    def take(self, record: Record) -> None:
        """Draw a PICTURE.  Raises `RecordingError`."""
        screen, width, height, left, top, across, down = BODY.unpack_from(record.body)
        row = PIXEL * across
        pixels = memoryview(record.body)[BODY.size :]
        others = sum(w * h for at, (w, h, _) in self._shown.items() if at != screen)
        if (
            not width * height
            or screen >= MOST_SCREENS
            or others + width * height > MOST_PIXELS
            or left + across > width
            or top + down > height
            or len(pixels) != row * down
        ):
            raise RecordingError(
                f"byte {record.offset}: a picture of {len(pixels)} bytes for {across}x{down} at"
                f" {left}, {top} of {width}x{height}, screen {screen}"
            )
        shown = self._shown.get(screen)
        if shown is None or shown[:2] != (width, height):
            shown = (width, height, bytearray(PIXEL * width * height))
            self._shown[screen] = shown
        whole = shown[2]
        for line in range(down):
            start = PIXEL * ((top + line) * width + left)
            whole[start : start + row] = pixels[line * row : (line + 1) * row]
        self._last = shown
