"""Say what Hesper needs on this machine, what is missing, and the command that mends it."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from hesper import diagnose
from hesper.api.diagnosis import BROKEN, NOTE, OK, Diagnosis
from hesper.api.recording import SUFFIX, last_recording
from hesper.api.recording import attach as add_recording
from hesper.api.report import report as make_report
from hesper.cli import EXIT_FAILURE, PLAIN_WIDTH, fail

_MARKS = {OK: ("ok", "green"), NOTE: ("note", "yellow"), BROKEN: ("BROKEN", "red")}


def command(
    *,
    json: Annotated[bool, Parameter(negative=())] = False,
    report: Path | None = None,
    recording: Path | None = None,
    attach: Literal["anonymous", "whole", "none"] = "anonymous",
) -> None:
    """Say what Hesper needs on this machine, what is missing, and the command that mends it.

    Tells a real GPU from a silent fall-back to software. Ends with 1 when guests could not be
    served here; what only some uses need (QEMU, Mesa's Venus) is noted and does not count.

    Parameters
    ----------
    json:
        Print the findings as JSON.
    report:
        Write the findings, all drivers with what was tried of them, and what machine this is, to
        this file, to be sent with a report of what does not work. Read it before: it is text.
        Your last recording, if there is one, comes to lie beside it.
    recording:
        Attach this recording to the report in place of the last one that you have made.
    attach:
        Whether the recording goes with the report without contents of memory, strings and other
        data of its owner, as it is, or not at all.
    """
    found = diagnose()
    attached: dict[str, Any] = {}
    if report is not None:
        chosen = recording or last_recording()
        try:
            told = make_report(found)
            report.write_text("", encoding="utf-8")
            if attach != "none" and chosen is not None:
                beside = report.with_suffix(SUFFIX)
                attached = add_recording(chosen, beside, is_anonymous=attach == "anonymous")
                told["recording"] = attached
            report.write_text(f"{json_module.dumps(told, indent=2)}\n", encoding="utf-8")
        except OSError as error:
            fail(f"--report {report}: {error.strerror}")
    elif recording is not None:
        fail("--recording: say --report FILE, which it is to go with")
    if json:
        findings = [asdict(each) for each in found.findings]
        answer = {"able": found.able, "findings": findings, "mend": found.mends}
        print(json_module.dumps(answer, indent=2))
    else:
        _show(found)
        if report is not None:
            print(f"written: {report}")
            _say(attached, report)
    if not found.able:
        raise SystemExit(EXIT_FAILURE)


def _say(attached: dict[str, Any], report: Path) -> None:
    """Say which recording goes with the report."""
    if "left_out" in attached:
        print(f"not attached: the recording {attached['of']}: {attached['left_out']}")
    elif attached:
        how = "without its owner's data" if attached["anonymous"] else "as it is"
        path = report.with_name(attached["file"])
        print(f"written: {path}, the recording {attached['of']} {how}, {attached['size']} bytes")


def _show(found: Diagnosis) -> None:
    """Print for people; colours only on a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    table = Table.grid(padding=(0, 2))
    for finding in found.findings:
        mark, colour = _MARKS[finding.status]
        table.add_row(Text(mark, style=colour), Text(finding.topic, style="bold"), finding.text)
    console.print(table)
    console.print()
    verdict = "Hesper can serve guests here." if found.able else "Hesper cannot serve guests here."
    console.print(verdict, style="green" if found.able else "red")
    if found.mends:
        console.print("To mend what is noted:" if found.able else "To mend it:")
        for mend in found.mends:
            console.print(f"  {mend}", style="bold", soft_wrap=True, markup=False)
