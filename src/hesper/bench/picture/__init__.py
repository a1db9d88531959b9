"""Results as one page that is read at a glance, as SVG or PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hesper.bench.picture.page import draw_page
from hesper.bench.picture.png import PngCanvas
from hesper.bench.picture.svg import SvgCanvas

if TYPE_CHECKING:
    from hesper.bench.document import Document

SUFFIXES = (".svg", ".png")


def write_picture(document: Document, path: Path) -> None:
    """Draw `document` into a file whose suffix is one of `SUFFIXES`.  Raises `OSError`."""
    canvas = SvgCanvas() if path.suffix == ".svg" else PngCanvas()
    draw_page(document, canvas)
    canvas.write(path)
