"""What a suite is, and how one gets its figures from the measured program."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import TYPE_CHECKING, Any

from hesper.bench.sides import Server, Side, run_client
from hesper.errors import HesperError

if TYPE_CHECKING:
    from hesper.bench.metric import Metric, Values

CLIENT_SECONDS = 300.0


class RunError(HesperError):
    """A run that has failed; the text says on which side and why."""


@dataclass(frozen=True)
class Options:
    """What is the same in all runs."""

    quick: bool = False
    clients: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of clients at a time, for the suite `scale`."""
    crowd: int = 200
    """Clients that are there together while memory is looked at, for the same suite; 0: none."""
    software: bool = False
    """Whether the driver draws on the processor: some work would take hours there."""
    model: Path | None = None
    """A model for llama-bench."""
    soak_seconds: float = 3600.0
    """How long the suite `soak` works on each side."""


@dataclass(frozen=True)
class Run:
    """One run on one side."""

    side: Side
    server: Server | None
    options: Options


class Suite(ABC):
    """Figures that belong together."""

    name: str
    title: str
    own_servers: bool = False
    """Whether every run starts a server of its own."""
    most_runs: int | None = None
    """How many runs there are at most, the warm-up apart."""
    depends_on_view: bool = False
    """Whether what it measures does other things where the driver shows less of itself."""

    @abstractmethod
    def measure(self, run: Run) -> dict[str, float]:
        """The figures of one run, by key.  Raises `RunError`."""

    @abstractmethod
    def metric(self, key: str) -> Metric:
        """What a key means."""

    def prepare(self, options: Options, folder: Path) -> list[str]:
        """Get ready, once; files go to `folder`.  Returns notes for people."""
        del options, folder
        return []

    def derive(self, found: Mapping[str, Mapping[str, Values]]) -> dict[str, dict[str, Values]]:
        """Further figures, by side and key, from those of all runs."""
        del found
        return {}


def finish(
    client: Popen[str], run: Run, task: str, *, seconds: float = CLIENT_SECONDS
) -> dict[str, Any]:
    """Wait for the measured program and read its answer.  Raises `RunError`."""
    try:
        output, errors = client.communicate(timeout=seconds)
    except TimeoutExpired:
        client.kill()
        client.communicate()
        raise RunError(f"{task} on {run.side.title}: not done in {seconds:g} s") from None
    if client.returncode != 0:
        raise RunError(f"{task} on {run.side.title}: {_last_line(errors, client.returncode)}")
    # A driver may print on standard output too; the answer is the last line.
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer


def ask(run: Run, task: str, *, seconds: float = CLIENT_SECONDS) -> dict[str, Any]:
    """Run the measured program; returns its answer.  Raises `RunError`."""
    client = run_client(run.side, run.server, task, quick=run.options.quick)
    return finish(client, run, task, seconds=seconds)


def await_ready(client: Popen[str], run: Run, task: str) -> None:
    """Wait for the client's word; a driver may print before it.  Raises `RunError`."""
    if client.stdout is None:
        raise RunError(f"{task}: the client has no standard output")
    for line in client.stdout:
        if line == "ready\n":
            return
    finish(client, run, task)
    raise RunError(f"{task} on {run.side.title}: it has ended before its work")


def start(client: Popen[str]) -> None:
    """Have a client go on that is ready."""
    if client.stdin is not None:
        client.stdin.write("\n")
        client.stdin.flush()


def _last_line(errors: str, status: int) -> str:
    lines = errors.strip().splitlines()
    return lines[-1] if lines else f"ended with status {status} and no word"
