"""Watch what programs do with the GPU: commands, frames, memory, time of the GPU."""

from __future__ import annotations

import contextlib
import json as json_module
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hesper.cli import PLAIN_WIDTH, fail
from hesper.extras import needed
from hesper.observe.asking import Watched, end_among, only, servers
from hesper.observe.look import Look, Seen, as_json

with needed("hesper top", "watch"):
    from hesper.observe.top import COLUMNS, TopApp, row_cells, server_line
    from hesper.observe.trace import TraceWriter


def _check_seconds(_: object, seconds: float) -> None:
    if not 0.1 <= seconds <= 300.0:
        raise ValueError("must be 0.1 to 300")


Seconds = Annotated[float, Parameter(metavar="SECONDS", validator=_check_seconds)]


def command(
    *,
    socket: Annotated[Path | None, Parameter(negative=())] = None,
    interval: Seconds = 1.0,
    once: Annotated[bool, Parameter(negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
    trace: Annotated[Path | None, Parameter(negative=())] = None,
    seconds: Seconds = 10.0,
) -> None:
    """Watch what programs do with the GPU: commands, frames, memory, time of the GPU.

    Shows all servers of yours (`hesper serve`, `run`, `gpu`, `vm`), whether they began before or
    after. GPU is how much of the time a program's queues had work: from a submission until its
    fence was seen to be signalled; waiting for other programs counts. Frames are those that a
    program has got an image for.

    Examples: `hesper top`, `hesper top --once --json`, `hesper top --trace gpu.pftrace`

    Parameters
    ----------
    socket:
        Only the server that its clients reach there.
    interval:
        Seconds between two looks.
    once:
        Look for one interval, print what there is, and end.
    json:
        With --once: print JSON.
    trace:
        Write what happens, for some seconds, to this file, for ui.perfetto.dev: rings, queues,
        fences and screens on one time line.
    seconds:
        With --trace: for how long.
    """
    if json and not once:
        fail("--json: it wants --once")
    if once and trace is not None:
        fail("--once and --trace: choose one of them")
    if trace is not None:
        _trace(trace, socket, seconds)
        return
    look = Look(socket, interval)
    if once:
        seen = look.see_twice(interval)
        if json:
            print(json_module.dumps(as_json(seen), indent=2))
        else:
            _print(seen)
        return
    look.see()  # what there is not is said before the screen is taken
    why = TopApp(look, interval, _end).run()
    if why:
        fail(why)


def _print(seen: list[Seen]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    for each in seen:
        console.print(server_line(each))
        if each.rows:
            table = Table(box=None, pad_edge=False, header_style="bold")
            for title, is_number in COLUMNS:
                table.add_column(title, justify="right" if is_number else "left")
            for row in each.rows:
                table.add_row(*row_cells(row))
            console.print(table)


def _end(place: str, context: int) -> str:
    with servers(Path(place)) as found:
        name = end_among(found, context)
    return f"{context} has left already" if name is None else f"ended {context} ({name})"


def _trace(path: Path, socket: Path | None, seconds: float) -> None:
    """Trace one server, and write the file."""
    from hesper.api.commands import served_commands

    names = {each.number: each.name for each in served_commands()}
    with servers(socket) as found, contextlib.ExitStack() as stack:
        server = _only(found)
        try:
            file = stack.enter_context(path.open("wb"))
        except OSError as error:
            fail(f"--trace {path}: {error.strerror}")
        title = f"hesper {server.report().kind}"
        print(f"tracing for {seconds:g} s", flush=True)
        trace = server.trace(seconds)
        try:
            count = TraceWriter(file, names).add(trace, title)
        finally:
            trace.close()
    programs = len(trace.clients)
    print(f"{path}: {count} entries of {programs} programs; open it with https://ui.perfetto.dev")


def _only(found: list[Watched]) -> Watched:
    reports = [(server, server.report()) for server in found]
    current = [each for each in reports if not each[1].retired] or reports
    return only(current, "--socket")
