"""`hesper top`: what programs do, on a terminal, as it happens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.coordinate import Coordinate
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Static

from hesper.errors import HesperError
from hesper.observe.asking import WatchError
from hesper.observe.words import age, amount, plain, rate, user

if TYPE_CHECKING:
    from hesper.observe.look import Look, Seen
    from hesper.observe.rates import Row
    from hesper.observe.wire import Report

COLUMNS = (
    ("ID", True),
    ("PID", True),
    ("program", False),
    ("user", False),
    ("GPU", True),
    ("frames/s", True),
    ("submits/s", True),
    ("commands/s", True),
    ("memory", True),
    ("of limit", True),
    ("since", True),
    ("waits for", False),
)
"""Titles, and whether they are numbers."""
ORDERS: tuple[tuple[str, Callable[[Row], float]], ...] = (
    ("GPU", lambda row: row.busy),
    ("commands", lambda row: row.commands),
    ("memory", lambda row: row.client.memory),
    ("age", lambda row: row.client.seconds),
)
"""By what programs are sorted, most first."""
End = Callable[[str, int], str]
"""Ends the program of that number that a server on that socket serves; says what has happened."""


class AskEnd(ModalScreen[bool]):
    """Asks whether a program is to be ended."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "end it"),
        Binding("n,escape", "answer(False)", "let it be"),
    ]
    DEFAULT_CSS = """
    AskEnd { align: center middle; }
    AskEnd > Static { width: auto; max-width: 80%; padding: 1 2; border: round $warning; }
    """

    def __init__(self, question: str) -> None:
        """Ask `question`."""
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """The question."""
        yield Static(Text(f"{self._question}\n\ny: end it    n: let it be"))

    def action_answer(self, answer: bool) -> None:
        """Say so."""
        self.dismiss(answer)


class TopApp(App[str]):
    """The programs, and more about one of them.  Its result is why it has ended, if not by `q`."""

    TITLE = "hesper top"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("s", "sort", "sort by another"),
        Binding("k", "end", "end program"),
    ]
    CSS = """
    #servers { height: auto; padding: 0 1; background: $panel; }
    #more { height: auto; max-height: 40%; padding: 0 1; border-top: solid $primary; }
    DataTable { height: 1fr; }
    """

    def __init__(self, look: Look, interval: float, end: End) -> None:
        """Look every `interval` seconds; `end` ends a program."""
        super().__init__()
        self._look = look
        self._interval = interval
        self._end = end
        self._order = 0
        # Asked for by their names, they would be looked for on the screen in front.
        self._servers = Static(id="servers")
        self._programs: DataTable[Text] = DataTable(
            id="programs", cursor_type="row", zebra_stripes=True
        )
        self._more = Static(id="more")
        self._rows: list[tuple[str, Row]] = []

    def compose(self) -> ComposeResult:
        """Servers, their programs, and what one of these has."""
        with Vertical():
            yield self._servers
            yield self._programs
            yield self._more
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        for title, _ in COLUMNS:
            self._programs.add_column(title, key=title)
        self.look_again()
        self.set_interval(self._interval, self.look_again)

    def look_again(self) -> None:
        """Look once more, in a thread; what there is shows itself."""
        self.run_worker(self._see, thread=True, exclusive=True, exit_on_error=False)

    def _see(self) -> None:
        try:
            seen = self._look.see()
        except (WatchError, OSError) as error:
            self.call_from_thread(self.exit, str(error))
            return
        self.call_from_thread(self.show, seen)

    def show(self, seen: list[Seen]) -> None:
        """Show what was seen."""
        if not self._programs.is_mounted:
            return  # it has ended meanwhile
        self._servers.update(Text("\n").join(map(server_line, seen)))
        rows = [(_place(each), row) for each in seen for row in each.rows]
        rows.sort(key=lambda row: ORDERS[self._order][1](row[1]), reverse=True)
        chosen = self._chosen()
        self._rows = rows
        table = self._programs
        table.clear()
        for _, row in rows:
            table.add_row(*row_cells(row))
        names = [(place, row.client.context) for place, row in rows]
        if chosen in names:
            table.move_cursor(row=names.index(chosen), animate=False)
        self._show_more()

    def _chosen(self) -> tuple[str, int] | None:
        """The program at the cursor."""
        place = self._programs.cursor_coordinate
        if place == Coordinate(0, 0) or not 0 <= place.row < len(self._rows):
            return None
        where, row = self._rows[place.row]
        return where, row.client.context

    def on_data_table_row_highlighted(self) -> None:
        """Another program is to be seen closely."""
        self._show_more()

    def _show_more(self) -> None:
        row = self._programs.cursor_row
        self._more.update(_more(self._rows[row][1]) if 0 <= row < len(self._rows) else _nobody())

    def action_sort(self) -> None:
        """Sort by something else."""
        self._order = (self._order + 1) % len(ORDERS)
        self.notify(f"sorted by {ORDERS[self._order][0]}", timeout=2)
        self.look_again()

    def action_end(self) -> None:
        """End the program at the cursor, if that is wanted."""
        number = self._programs.cursor_row
        if not 0 <= number < len(self._rows):
            return
        place, row = self._rows[number]
        client = row.client
        question = f"End {plain(client.name) or 'the program'} ({client.context}) at once?"
        self.push_screen(AskEnd(question), partial(self._ended, place, client.context))

    def _ended(self, place: str, context: int, wanted: bool | None) -> None:
        if not wanted:
            return
        try:
            said = self._end(place, context)
        except (HesperError, OSError) as error:
            said = str(error)
        self.notify(plain(said, 300), timeout=5, markup=False)
        self.look_again()


def _place(seen: Seen) -> str:
    return next(iter(seen.report.sockets), "")


def server_line(seen: Seen) -> Text:
    """A server in one line."""
    report = seen.report
    line = Text(f"hesper {report.kind}", style="bold")
    line.append(f" on {plain(_place(seen))}, {devices(report)}: ")
    count = len(seen.rows)
    line.append(f"{count} program{'' if count == 1 else 's'}", style="bold")
    line.append(f", {rate(sum(row.commands for row in seen.rows))} commands/s")
    line.append(f", {amount(sum(row.client.memory for row in seen.rows))}")
    for screen in seen.screens:
        size = f"{screen.width}x{screen.height}" if screen.width else "nothing"
        line.append(f"; screen {screen.screen}: {size}, {rate(screen.frames)} frames/s")
    if report.retired:
        line.append("; retired, another takes clients")
    return line


def devices(report: Report) -> str:
    """What clients are served with."""
    if not report.gpus:
        return f"{plain(report.device)} ({plain(report.driver)})"
    return ", ".join(
        f"{number}: {plain(each.device)} ({plain(each.driver)})"
        for number, each in enumerate(report.gpus)
    )


def row_cells(row: Row) -> list[Text]:
    """A program's line of the table."""
    client = row.client
    used = sum(client.accounts.values())
    values = (
        str(client.context),
        str(client.process or "-"),
        plain(client.name, 40) or "-",
        user(client.user),
        f"{row.busy:.0%}" + (f" of {row.gpu}" if row.gpu is not None else ""),
        rate(row.frames),
        rate(row.submissions),
        rate(row.commands),
        amount(client.memory),
        f"{used / client.limit:.0%}" if client.limit else "-",
        age(client.seconds),
        row.waits_for,
    )
    return [
        Text(value, justify="right" if is_number else "left")
        for value, (_, is_number) in zip(values, COLUMNS, strict=True)
    ]


def _more(row: Row) -> Text:
    """What a program holds, and what each of its streams does."""
    client = row.client
    text = Text(plain(client.name) or "-", style="bold")
    done = f", {rate(client.commands)} commands in {age(client.seconds)}"
    if row.each:
        done += f", {row.each * 1e3:.3g} ms of the GPU a submission"
    if client.kind:
        done += f", of the class {plain(client.kind)}"
    text.append(f"{done}\n", style="not bold")
    accounts = ", ".join(f"{name} {amount(size)}" for name, size in client.accounts.items())
    text.append(f"memory limit {amount(client.limit)}, of it: {accounts}\n", style="not bold")
    held = ", ".join(f"{kind} {number} of {most}" for kind, (number, most) in client.held.items())
    text.append(f"{held}\n", style="not bold")
    names = ("socket", *(f"ring {number}" for number in range(1, len(client.doing))))
    streams = (
        f"{name}: {stage}{' ' + command if command else ''}"
        for name, (stage, command) in zip(names, client.doing, strict=False)
    )
    text.append("; ".join(streams), style="not bold")
    return text


def _nobody() -> Text:
    return Text("No program is served.")
