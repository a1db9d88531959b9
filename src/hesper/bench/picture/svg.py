"""A page as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from hesper.bench.picture.canvas import Anchor

FONT = "Inter, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"


class SvgCanvas:
    """Collects elements; see `Canvas`."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._elements: list[str] = []
        self._size = (0.0, 0.0)

    def begin(self, width: float, height: float) -> None:
        """White all over."""
        self._size = (width, height)
        self.rectangle(0, 0, width, height, "#ffffff")

    def rectangle(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """A `rect`."""
        self._elements.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
            f' fill="{colour}"/>'
        )

    def line(self, x: float, top: float, bottom: float, colour: str) -> None:
        """A `line`."""
        self._elements.append(
            f'<line x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}"'
            f' stroke="{colour}" stroke-width="1"/>'
        )

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
        """A `text`."""
        weight = ' font-weight="bold"' if bold else ""
        self._elements.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{colour}"'
            f' text-anchor="{anchor}"{weight}>{escape(text)}</text>'
        )

    def write(self, path: Path) -> None:
        """One element a line, so that changes can be read."""
        width, height = self._size
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}"'
            f' width="{width:g}" height="{height:g}" font-family="{FONT}">'
        )
        path.write_text("\n".join([head, *self._elements, "</svg>", ""]), encoding="utf-8")
