"""Where Hesper's time goes: its streams are looked at while a program works.

The server samples what the threads of its streams are doing (`hesper serve --sample`), and logs
what it has seen when the program leaves.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from hesper.bench.client.work import WORKS
from hesper.bench.sides import Server, Side, SideError, client_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INTERVAL_US = 200
"""Microseconds between two looks."""

LOG_SECONDS = 10.0
PROGRAM_SECONDS = 600.0

STAGES = {
    "asleep": "blocked until the guest has something",
    "wait": "awake, waiting for commands",
    "decode": "reading commands, keeping objects",
    "driver": "in the driver",
    "reply": "writing replies",
    "handler": "in Python",
}


@dataclass(frozen=True)
class Explained:
    """What the ring threads did during one piece of work."""

    title: str
    stages: dict[str, dict[str, int]]
    """Samples by stage and command."""

    @property
    def total(self) -> int:
        """All samples."""
        return sum(sum(commands.values()) for commands in self.stages.values())

    def share(self, stage: str) -> float:
        """How much of the time went to a stage."""
        return sum(self.stages.get(stage, {}).values()) / max(1, self.total)

    def top(self, count: int) -> list[tuple[str, str, float]]:
        """Stage, command and share of what took longest while there was work."""
        samples: Counter[tuple[str, str]] = Counter()
        for stage, commands in self.stages.items():
            for command, number in commands.items():
                if command:
                    samples[stage, command] += number
        return [(*what, number / max(1, self.total)) for what, number in samples.most_common(count)]


def explain(
    side: Side, words: Sequence[str], say: Callable[[str], None], *, quick: bool
) -> Iterator[Explained]:
    """Do each piece of work, or run the program `words`, and say where the time went.

    Raises `SideError`.
    """
    sampled = replace(side, server=(*side.server, "--sample", str(INTERVAL_US), "--json"))
    with sampled.serving() as server:
        if server is None:
            raise SideError(f"{side.title}: there is no server to look at")
        pieces: dict[str, list[str]] = {shlex.join(words): list(words)} if words else {}
        for work in () if words else WORKS:
            pieces[work] = client_command("work", "--work", work, quick=quick)
        for title, command in pieces.items():
            say(f"explaining {title}")
            seen = len(_sampled(server))
            _run(sampled, server, command)
            yield Explained(title, _await(server, seen)["rings"])


def table(found: Sequence[Explained]) -> Table:
    """Shares of the ring threads' time, and what took most of it."""
    made = Table(box=None, title="Where the ring threads' time goes", title_justify="left")
    made.add_column("")
    for stage in STAGES:
        made.add_column(stage, justify="right")
    made.add_column("most of it")
    for each in found:
        cells = [Text(f"{each.share(stage):.0%}") for stage in STAGES]
        top = ", ".join(f"{command} ({stage}) {share:.0%}" for stage, command, share in each.top(4))
        made.add_row(Text(each.title), *cells, Text(top))
    return made


def _run(side: Side, server: Server, command: list[str]) -> None:
    """Run one program to its end."""
    environment = side.client_environment(server)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROGRAM_SECONDS,
            check=False,
            env=environment,
        )
    except OSError as error:
        raise SideError(f"cannot run {command[0]}: {os.strerror(error.errno or 0)}") from None
    except subprocess.TimeoutExpired:
        raise SideError(f"{shlex.join(command)}: not done in {PROGRAM_SECONDS:g} s") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise SideError(f"{shlex.join(command)}: {lines[-1] if lines else done.returncode}")


def _sampled(server: Server) -> list[dict[str, Any]]:
    """What the server has logged about clients that have left."""
    lines = server.log.read_text(errors="replace").splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    return [event for event in events if event.get("event") == "sampled"]


def _await(server: Server, seen: int) -> dict[str, Any]:
    """What the server says of the clients after the first `seen`: the one that did most."""
    deadline = time.monotonic() + LOG_SECONDS
    while time.monotonic() < deadline:
        new = _sampled(server)[seen:]
        if new:
            return max(new, key=lambda event: len(json.dumps(event["rings"])))
        time.sleep(0.02)
    raise SideError("the server has not said what it has seen")
