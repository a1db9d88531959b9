"""Results as tables on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from hesper.bench.sides import BARE, HESPER, PEER, SEEN, TITLES

if TYPE_CHECKING:
    from hesper.bench.document import Document, SuiteResult
    from hesper.bench.metric import Row

NOISY = 0.1
"""A spread above which a figure is shown as one that says little."""


def show(document: Document, console: Console) -> None:
    """Print everything."""
    console.print(heading(document), soft_wrap=True)
    for suite in document.suites:
        console.print()
        console.print(table(suite))
    for note in document.notes:
        console.print(f"note: {note}", style="yellow", markup=False, soft_wrap=True)
    for failure in document.failures:
        console.print(f"FAILED: {failure}", style="bold red", markup=False, soft_wrap=True)


def heading(document: Document) -> RenderableType:
    """What was measured, where, and how to read it."""
    machine = document.machine
    return Group(
        Text(f"Hesper {document.version} on {document.driver}", style="bold"),
        Text(f"{machine.processor}, {machine.cores} cores, {machine.system}, {document.time}"),
        Text(
            f"medians of {document.runs} runs; ± is half of what lies between the extremes;"
            " x is the multiple of the bare driver's figure, green where it is as good",
            style="dim",
        ),
    )


def table(suite: SuiteResult) -> Table:
    """One suite."""
    present = [side for side in TITLES if any(side in row.values for row in suite.rows)]
    made = Table(title=suite.title, title_justify="left", title_style="bold", box=None)
    made.add_column("")
    for side in present:
        made.add_column(TITLES[side], justify="right")
        made.add_column("", justify="right", style="dim")
        if side != BARE:
            made.add_column("x", justify="right")
    others = [other for other in (SEEN, PEER) if other in present and HESPER in present]
    for other in others:
        made.add_column(
            f"Hesper / {'as seen' if other == SEEN else TITLES[other]}", justify="right"
        )
    for row in suite.rows:
        cells: list[RenderableType] = [row.metric.title]
        for side in present:
            cells += _cells(row, side)
        cells += [_ratio(row, HESPER, other) for other in others]
        made.add_row(*cells)
    return made


def _cells(row: Row, side: str) -> list[RenderableType]:
    values = row.values.get(side)
    if values is None:
        return [""] * (2 if side == BARE else 3)
    spread = values.spread
    cells: list[RenderableType] = [
        row.metric.show(values.median),
        Text(f"±{spread:.0%}" if spread else "", style="yellow" if spread > NOISY else "dim"),
    ]
    if side != BARE:
        cells.append(_ratio(row, side, BARE))
    return cells


def _ratio(row: Row, side: str, base: str) -> Text:
    """The ratio of two medians, coloured by whether it is good."""
    ratio = row.ratio(side, base)
    if ratio is None:
        return Text("")
    text = f"{ratio:.2f}" if ratio < 100 else f"{ratio:.0f}"
    good = ratio >= 0.95 if row.metric.more_is_better else ratio <= 1.05
    return Text(text, style="green" if good else "")
