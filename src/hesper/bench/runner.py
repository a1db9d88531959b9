"""Running suites on all sides by turns, so that what changes on the machine changes for all."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from hesper.bench.document import SuiteResult
from hesper.bench.metric import Row, Values
from hesper.bench.sides import BARE, PEER, SEEN, Server, Side, SideError
from hesper.bench.suites.base import Options, Run, RunError, Suite, ask
from hesper.errors import HesperError

PROBE_SECONDS = 60.0
"""How long a side may take to show that it works."""

Say = Callable[[str], None]
"""Is told what is being done, a line at a time."""


class BenchError(HesperError):
    """Nothing can be measured; the text says why."""


class Runner:
    """Measures suites on sides.

    Life: construct, `check` once, `measure` for each suite; then read `notes` and `failures`.
    """

    def __init__(self, sides: Sequence[Side], options: Options, runs: int, say: Say) -> None:
        """runs: rounds in which every side has its turn."""
        self.sides = list(sides)
        self.devices: dict[str, str] = {}
        self.notes: list[str] = []
        self.failures: list[str] = []
        self._options = options
        self._runs = runs
        self._say = say

    def check(self) -> None:
        """See that every side works and reaches the same device.

        A peer that does not is left out, with a note.  Raises `BenchError` for any other side.
        """
        for side in list(self.sides):
            self._say(f"trying {side.title}")
            try:
                with side.serving() as server:
                    run = Run(side.for_probe(), server, self._options)
                    answer = ask(run, "probe", seconds=PROBE_SECONDS)
                    self.devices[side.name] = str(answer["device"])
            except (RunError, SideError) as error:
                if side.name != PEER:
                    raise BenchError(str(error)) from None
                self.notes.append(f"the peer does not work here: {error}")
                self.sides.remove(side)
        bare = self.devices[BARE]
        for name, device in self.devices.items():
            if bare not in device:
                raise BenchError(f"{name} has reached {device}, the bare driver {bare}")

    def measure(self, suite: Suite) -> SuiteResult:
        """Measure one suite on all sides."""
        with tempfile.TemporaryDirectory(prefix="hesper-bench-") as folder:
            self.notes += suite.prepare(self._options, Path(folder))
            found = self._rounds(suite)
        values = {
            side: {key: Values(tuple(each)) for key, each in figures.items()}
            for side, figures in found.items()
        }
        for side, further in suite.derive(values).items():
            values[side] |= further
        keys = dict.fromkeys(key for figures in values.values() for key in figures)
        rows = [
            Row(
                key,
                suite.metric(key),
                {side: figures[key] for side, figures in values.items() if key in figures},
            )
            for key in keys
        ]
        return SuiteResult(suite.name, suite.title, tuple(rows))

    def _rounds(self, suite: Suite) -> dict[str, dict[str, list[float]]]:
        """All runs: by side, by key.  The first round warms up and does not count."""
        found: dict[str, dict[str, list[float]]] = {side.name: {} for side in self.sides}
        left = [side for side in self.sides if side.name != SEEN or suite.depends_on_view]
        with contextlib.ExitStack() as stack:
            servers = {side.name: self._server(suite, side, stack) for side in left}
            runs = min(self._runs, suite.most_runs or self._runs)
            for number in range(runs + 1):
                # Whoever goes first has it warmer or colder: let each be first by turns.
                shift = number % len(left) if left else 0
                for side in left[shift:] + left[:shift]:
                    what = f"run {number} of {runs}" if number else "warming up"
                    self._say(f"{suite.name}: {what}, {side.title}")
                    options = self._options
                    if not number:
                        options = replace(options, quick=True, soak_seconds=0.0)
                    run = Run(side, servers[side.name], options)
                    try:
                        figures = suite.measure(run)
                    except RunError as error:
                        self._failed(side, error)
                        left.remove(side)
                        continue
                    for key, value in figures.items() if number else ():
                        found[side.name].setdefault(key, []).append(value)
        return found

    def _server(self, suite: Suite, side: Side, stack: contextlib.ExitStack) -> Server | None:
        if suite.own_servers:
            return None
        try:
            return stack.enter_context(side.serving())
        except SideError as error:
            raise BenchError(str(error)) from None

    def _failed(self, side: Side, error: RunError) -> None:
        """A side that fails is out of the suite; for the peer that is no failure of ours."""
        (self.notes if side.name == PEER else self.failures).append(str(error))
