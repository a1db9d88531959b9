"""List the Venus commands: how each is served, and what is refused and why."""

from __future__ import annotations

import json as json_module
from collections import Counter
from typing import Annotated

import msgspec
from cyclopts import Parameter

from hesper import protocol
from hesper.api.commands import How, ServedCommand, served_commands
from hesper.cli import PLAIN_WIDTH


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
    model = protocol.load()
    rows = served_commands()
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


def _show(rows: list[ServedCommand]) -> None:
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
