"""List the Venus commands: how each is served, and what is refused and why."""

from __future__ import annotations

import json as json_module
from collections import Counter
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter

from hesper.cli import PLAIN_WIDTH

How = Literal["kernel", "python", "refused"]


class Row(msgspec.Struct):
    """One command of the protocol."""

    number: int
    name: str
    served: How
    reason: str = ""


def command(
    *,
    served: How | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """List the Venus commands: how each is served, and what is refused and why.

    kernel: decoded, called and answered by the compiled kernel alone. python: a handler decides.
    refused: a guest that sends it breaks the protocol.

    Parameters
    ----------
    served:
        Show only the commands that are served so.
    json:
        Print the commands, structs and extensions as JSON.
    """
    from hesper.protocol import load

    model = load()
    rows = _rows()
    counts = Counter(row.served for row in rows)
    rows = [row for row in rows if served in (None, row.served)]
    structs = sum(s.wire for s in model.structs.values())
    if json:
        document = {
            "registry": model.header_version,
            "commands": [msgspec.to_builtins(row) for row in rows],
            "structs": structs,
            "extensions": {n: msgspec.to_builtins(e) for n, e in model.extensions.items()},
        }
        print(json_module.dumps(document, indent=2))
        return
    _show(rows)
    print(
        f"\n{counts['kernel']} commands in the kernel, {counts['python']} in Python, "
        f"{counts['refused']} refused; {structs} structs, {len(model.extensions)} extensions; "
        f"from Vulkan registry 1.4.{model.header_version}"
    )


def _rows() -> list[Row]:
    """All commands by number."""
    from hesper.guest.handlers import all_handlers
    from hesper.kernel.engine import commands
    from hesper.protocol import load

    handlers = all_handlers()
    model = load()
    rows = []
    for number, name, how in commands():
        served: How = "refused" if how == "refused" else "python" if name in handlers else "kernel"
        if how == "python" and name not in handlers:
            raise RuntimeError(f"{name}: neither the kernel nor a handler serves it")
        rows.append(Row(number, name, served, model.commands[name].refused))
    return rows


def _show(rows: list[Row]) -> None:
    """Print for people; colours only on a terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    styles = {"kernel": "green", "python": "cyan", "refused": "dim"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("Number", "Command", "Served", "Why refused"):
        table.add_column(title, justify="right" if title == "Number" else "left")
    for row in rows:
        table.add_row(str(row.number), row.name, row.served, row.reason, style=styles[row.served])
    console.print(table)
