"""Say what Hesper needs on this machine, what is missing, and the command that mends it."""

from __future__ import annotations

import json as json_module
import re
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from hesper.cli import EXIT_FAILURE, PLAIN_WIDTH
from hesper.host.diagnosis import BROKEN, NOTE, OK, Finding, diagnose

_MARKS = {OK: ("ok", "green"), NOTE: ("note", "yellow"), BROKEN: ("BROKEN", "red")}
_INSTALL = re.compile(r"^((?:sudo )?(?:apt-get install|dnf install|pacman -S|brew install)) (.+)$")


def command(*, json: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Say what Hesper needs on this machine, what is missing, and the command that mends it.

    Tells a real GPU from a silent fall-back to software. Ends with 1 when guests could not be
    served here; what only some uses need (QEMU, Mesa's Venus) is noted and does not count.

    Parameters
    ----------
    json:
        Print the findings as JSON.
    """
    findings = diagnose()
    mends = merge_mends(finding.mend for finding in findings)
    able = all(finding.status != BROKEN for finding in findings)
    if json:
        answer = {"able": able, "findings": [asdict(each) for each in findings], "mend": mends}
        print(json_module.dumps(answer, indent=2))
    else:
        _show(findings, mends, able=able)
    if not able:
        raise SystemExit(EXIT_FAILURE)


def merge_mends(mends: Iterable[str]) -> list[str]:
    """Commands that mend everything: each once, and one per package manager."""
    packages: dict[str, list[str]] = {}
    others: list[str] = []
    for mend in mends:
        match = _INSTALL.match(mend)
        if match:
            packages.setdefault(match[1], []).extend(match[2].split())
        elif mend and mend not in others:
            others.append(mend)
    installs = [f"{tool} {' '.join(dict.fromkeys(names))}" for tool, names in packages.items()]
    return installs + others


def _show(findings: list[Finding], mends: list[str], *, able: bool) -> None:
    """Print for people; colours only on a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        mark, colour = _MARKS[finding.status]
        table.add_row(Text(mark, style=colour), Text(finding.topic, style="bold"), finding.text)
    console.print(table)
    console.print()
    verdict = "Hesper can serve guests here." if able else "Hesper cannot serve guests here."
    console.print(verdict, style="green" if able else "red")
    if mends:
        console.print("To mend what is noted:" if able else "To mend it:")
        for mend in mends:
            console.print(f"  {mend}", style="bold", soft_wrap=True, markup=False)
