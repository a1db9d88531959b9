"""What a page is drawn on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

Anchor = Literal["start", "middle", "end"]


class Canvas(Protocol):
    """A sheet that is drawn on from the top left, in points; colours are `#rrggbb`."""

    def begin(self, width: float, height: float) -> None:
        """Set the sheet's size; comes first."""

    def rectangle(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """A filled rectangle."""

    def line(self, x: float, top: float, bottom: float, colour: str) -> None:
        """A thin upright line."""

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
        """One line of text; `y` is its baseline."""

    def write(self, path: Path) -> None:
        """Write the file.  Raises `OSError`."""
