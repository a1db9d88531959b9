"""A picture of a scanout, for scripts."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image

from hesper.display.frame import Capture, draw_cursor
from hesper.display.geometry import Rect
from hesper.portable import name_beside

if TYPE_CHECKING:
    from pathlib import Path

    from hesper.display.frame import Picture
    from hesper.display.scanout import Display, Scanout


def to_image(picture: Picture, *, cursor: bool = True) -> Image.Image:
    """Make an RGB image of a picture, with the cursor drawn in if there is one."""
    frame = picture.frame
    pixels = frame.pixels.copy()
    if cursor and picture.cursor is not None:
        draw_cursor(pixels, Rect(0, 0, *frame.size), picture.cursor, picture.cursor_position)
    return Image.frombuffer("RGB", frame.size, pixels, "raw", "BGRX", 0, 1)


def take(scanout: Scanout, *, cursor: bool = True) -> Image.Image:
    """Return what `scanout` shows now."""
    capture = Capture(scanout, _nothing)
    try:
        return to_image(capture.take(), cursor=cursor)
    finally:
        capture.close()


def path_of(path: Path, number: int) -> Path:
    """Where the picture of a screen goes, counted from 1: `a.png`, `a-2.png`, `a-3.png`."""
    return path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def save_all(display: Display, path: Path) -> None:
    """Write what each screen shows, see `path_of` and `save_png`.  Raises `OSError`."""
    for number, scanout in enumerate(display, 1):
        save_png(scanout, path_of(path, number))


def save_png(scanout: Scanout, path: Path, *, cursor: bool = True) -> None:
    """Write what `scanout` shows now to `path`, whole or not at all.

    Raises `OSError` when it cannot be written.
    """
    data = io.BytesIO()
    take(scanout, cursor=cursor).save(data, "PNG")
    temporary = name_beside(path)
    try:
        with temporary.open("xb") as file:
            file.write(data.getvalue())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _nothing() -> None:
    pass
