"""List the programs that servers of yours serve."""

from __future__ import annotations

import json as json_module
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from hesper.cli import PLAIN_WIDTH
from hesper.observe.asking import servers
from hesper.observe.words import age, amount, plain, user

if TYPE_CHECKING:
    from hesper.observe.wire import Client, Report


def command(
    *,
    socket: Annotated[Path | None, Parameter(negative=())] = None,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """List the programs that servers of yours serve: `hesper serve`, `run`, `gpu` and `vm`.

    Ends with 1 when no server of yours runs. PID and user are those of the program, where it runs
    on this machine; programs in a virtual machine have none.

    Parameters
    ----------
    socket:
        Only of the server that its clients reach there.
    json:
        Print them as JSON.
    """
    with servers(socket) as found:
        reports = [server.report() for server in found]
    if json:
        print(json_module.dumps([msgspec.to_builtins(report) for report in reports], indent=2))
    else:
        _show(reports)


def _show(reports: list[Report]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    table = Table(box=None, pad_edge=False, header_style="bold")
    # Which, only where there are several.
    have_several = any(report.gpus for report in reports)
    have_classes = any(client.kind for report in reports for client in report.clients)
    columns = ["ID", "PID", "program", "user", "memory", "since", "served on"]
    more = [*(["class"] if have_classes else []), *(["GPU"] if have_several else [])]
    for name in [*columns, *more]:
        table.add_column(name, justify="right" if name in {"ID", "PID", "memory"} else "left")
    for report in reports:
        for client in report.clients:
            since = time.strftime("%F %T", time.localtime(time.time() - client.seconds))
            table.add_row(
                str(client.context),
                str(client.process or "-"),
                Text(plain(client.name) or "-"),
                Text(user(client.user)),
                amount(client.memory),
                f"{since} ({age(client.seconds)})",
                Text(_place(report) + (" (retired)" if report.retired else "")),
                *([Text(plain(client.kind) or "-")] if have_classes else []),
                *([Text(_gpu(report, client))] if have_several else []),
            )
    if table.row_count:
        console.print(table)
    else:
        where = ", ".join(plain(each) for report in reports for each in report.sockets)
        print(f"no program is served by {where}")


def _place(report: Report) -> str:
    """Where its clients connect; which of several it was, a program's class says."""
    first = next(iter(report.sockets), report.kind)
    others = len(report.sockets) - 1
    return plain(first) + (f" and {others} more" if others > 0 else "")


def _gpu(report: Report, client: Client) -> str:
    """On which of its server's GPUs a program is."""
    if not 0 <= client.gpu < len(report.gpus):
        return plain(report.device)
    return f"{client.gpu}: {plain(report.gpus[client.gpu].device)}"
