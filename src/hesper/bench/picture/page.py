"""The page: two kinds of panels, bars of Hesper and the peer against the bare driver.

Rates are shown as shares of the bare driver's, on a straight scale.  Times are shown as multiples
of the bare driver's on a logarithmic one, since a call into a driver takes nanoseconds and one to
another process cannot.  What the bare driver does not have stands as numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hesper.bench.sides import BARE, HESPER, PEER, SEEN, TITLES

if TYPE_CHECKING:
    from hesper.bench.document import Document, SuiteResult
    from hesper.bench.metric import Row
    from hesper.bench.picture.canvas import Canvas

WIDTH = 980.0
MARGIN = 28.0
GUTTER = 36.0
COLUMN = (WIDTH - 2 * MARGIN - GUTTER) / 2
LABEL = 190.0
VALUE = 64.0
BAR = 9.0
ROW_GAP = 7.0
HEAD = 84.0
PANEL_HEAD = 40.0
PANEL_GAP = 26.0

COLOURS = {BARE: "#8c959f", SEEN: "#b9c2cc", HESPER: "#0a7d62", PEER: "#d08a2b"}
FAINT, GRID = "#656d76", "#d8dee4"

FULL = 1.1
"""The end of the straight scale."""


@dataclass(frozen=True)
class Panel:
    """Rows that share a scale."""

    title: str
    hint: str
    rows: tuple[Row, ...]
    scale: str
    """`share`, `times` or `numbers`."""

    def sides(self) -> list[str]:
        """Sides that have a bar (or a number)."""
        wanted = [side for side in TITLES if side != BARE or self.scale == "numbers"]
        return [side for side in wanted if any(side in row.values for row in self.rows)]

    def row_height(self) -> float:
        """Points from one row to the next."""
        return BAR * max(1, len(self.sides())) + ROW_GAP if self.scale != "numbers" else 17.0

    def height(self) -> float:
        """Points it takes."""
        return PANEL_HEAD + len(self.rows) * self.row_height()


def draw_page(document: Document, canvas: Canvas) -> None:
    """Draw all suites."""
    columns = _columns([panel for suite in document.suites for panel in panels(suite)])
    tallest = max((_stack_height(column) for column in columns), default=0.0)
    canvas.begin(WIDTH, HEAD + tallest + MARGIN)
    _draw_head(document, canvas)
    for index, column in enumerate(columns):
        x, y = MARGIN + index * (COLUMN + GUTTER), HEAD
        for panel in column:
            _draw_panel(panel, canvas, x, y)
            y += panel.height() + PANEL_GAP


def panels(suite: SuiteResult) -> list[Panel]:
    """The panels of one suite."""
    shown = [row for row in suite.rows if not row.metric.detail]
    compared = [row for row in shown if row.ratio(HESPER, BARE) is not None]
    shares = [row for row in compared if row.metric.more_is_better]
    times = [row for row in compared if not row.metric.more_is_better]
    numbers = [row for row in shown if row not in compared]
    kinds = (
        (shares, "share of the bare driver's figure; longer is better", "share"),
        (times, "times the bare driver's figure, logarithmic; shorter is better", "times"),
        (numbers, _direction(numbers), "numbers"),
    )
    return [Panel(suite.title, hint, tuple(rows), scale) for rows, hint, scale in kinds if rows]


def _direction(rows: Sequence[Row]) -> str:
    """What is better, where that is the same for all."""
    kinds = {row.metric.more_is_better for row in rows}
    if len(kinds) != 1:
        return ""
    return "more is better" if kinds.pop() else "less is better"


def _columns(all_panels: list[Panel]) -> list[list[Panel]]:
    """Two columns of about the same height, in reading order."""
    total = sum(panel.height() + PANEL_GAP for panel in all_panels)
    left: list[Panel] = []
    rest = list(all_panels)
    while rest and _stack_height(left) + (rest[0].height() + PANEL_GAP) / 2 < total / 2:
        left.append(rest.pop(0))
    return [left, rest]


def _stack_height(column: Sequence[Panel]) -> float:
    return sum(panel.height() + PANEL_GAP for panel in column)


def _draw_head(document: Document, canvas: Canvas) -> None:
    machine = document.machine
    canvas.text(MARGIN, 34, f"Hesper {document.version}", size=20, bold=True)
    canvas.text(
        MARGIN,
        54,
        f"{document.driver} · {machine.processor}, {machine.cores} cores · {machine.system}",
        colour=FAINT,
    )
    canvas.text(MARGIN, 70, f"medians of {document.runs} runs, {document.time[:10]}", colour=FAINT)
    x = WIDTH - MARGIN
    for side in reversed(TITLES):
        if side in document.devices:
            title = f"{TITLES[side]} = 1" if side == BARE else TITLES[side]
            canvas.text(x, 34, title, anchor="end")
            x -= 5.6 * len(title) + 8
            canvas.rectangle(x - 8, 25, 10, 10, COLOURS[side])
            x -= 26


def _draw_panel(panel: Panel, canvas: Canvas, x: float, y: float) -> None:
    canvas.text(x, y + 12, panel.title, size=13, bold=True)
    canvas.text(x, y + 27, panel.hint, size=10, colour=FAINT)
    top = y + PANEL_HEAD
    if panel.scale == "numbers":
        _draw_numbers(panel, canvas, x, top)
        return
    start, width = x + LABEL, COLUMN - LABEL - VALUE
    bottom = top + len(panel.rows) * panel.row_height() - ROW_GAP / 2
    limit = _limit(panel)
    for mark in _marks(panel, limit):
        at = start + width * _position(panel, mark, limit)
        canvas.line(at, top - 3, bottom, COLOURS[BARE] if mark == 1 else GRID)
        canvas.text(at, top - 5, f"{mark:g}", size=8, colour=FAINT, anchor="middle")
    for row in panel.rows:
        canvas.text(x, top + panel.row_height() / 2, row.metric.title, size=9.5)
        for index, side in enumerate(panel.sides()):
            ratio = row.ratio(side, BARE)
            if ratio is not None:
                bar = top + index * BAR
                length = width * min(1.0, _position(panel, ratio, limit))
                canvas.rectangle(start, bar, length, BAR - 1, COLOURS[side])
                text = f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"
                shown = f"{text} · {row.metric.show(row.values[side].median)}"
                canvas.text(start + width + 4, bar + BAR - 2, shown, size=7.5, colour=FAINT)
        top += panel.row_height()


def _draw_numbers(panel: Panel, canvas: Canvas, x: float, top: float) -> None:
    sides = panel.sides()
    for row in panel.rows:
        canvas.text(x, top + 9, row.metric.title, size=9.5)
        at = x + COLUMN
        for side in reversed(sides):
            if side in row.values:
                text = row.metric.show(row.values[side].median)
                canvas.text(
                    at, top + 9, text, size=9.5, colour=COLOURS[side], anchor="end", bold=True
                )
            at -= 74
        top += panel.row_height()


def _limit(panel: Panel) -> float:
    """The ratio at the end of the scale."""
    ratios = [row.ratio(side, BARE) or 1.0 for row in panel.rows for side in panel.sides()]
    if panel.scale == "share":
        return max(FULL, *ratios) if max(ratios) < 1.5 else 1.5
    return 10.0 ** math.ceil(math.log10(max(10.0, *ratios)))


def _position(panel: Panel, ratio: float, limit: float) -> float:
    """Where a ratio lies on the scale, 0 to 1."""
    if panel.scale == "share":
        return ratio / limit
    # One decade below 1, for what is faster than the bare driver.
    return max(0.0, (math.log10(max(ratio, 0.1)) + 1) / (math.log10(limit) + 1))


def _marks(panel: Panel, limit: float) -> list[float]:
    if panel.scale == "share":
        return [0.25, 0.5, 0.75, 1.0]
    return [10.0**power for power in range(int(math.log10(limit)) + 1)]
