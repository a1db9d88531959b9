"""The suite `soak`: the same work again and again has to hold the same memory."""

from __future__ import annotations

import time
from subprocess import Popen
from typing import TYPE_CHECKING

from hesper.bench.metric import Metric, Unit
from hesper.bench.processes import KINDS, memory_kinds, memory_use
from hesper.bench.sides import Server, SideError, run_client
from hesper.bench.suites.base import Run, RunError, Suite, finish

if TYPE_CHECKING:
    from collections.abc import Mapping

WARM_UP = 2
"""Rounds after which memory is taken to have its size."""
HOUR = 3600.0

_METRICS = {
    "rounds": Metric.rate("rounds of work", detail=True),
    "first": Metric.cost("memory after the warm-up", Unit.BYTES, detail=True),
    "last": Metric.cost("memory at the end", Unit.BYTES),
    "growth": Metric.cost("growth", Unit.BYTES),
    "hourly": Metric.cost("growth an hour, at that rate", Unit.BYTES, detail=True),
    "growth_heap": Metric.cost(
        "  of it heap: the driver's, object tables, Python", Unit.BYTES, detail=True
    ),
    "growth_shared": Metric.cost("  of it memory shared with the guest", Unit.BYTES, detail=True),
    "growth_files": Metric.cost("  of it mapped files", Unit.BYTES, detail=True),
}


class SoakSuite(Suite):
    """What the process that has the driver holds: the worker, or the program on the bare driver.

    What the bare driver grows by, it grows by in a worker; the rest is the server's.
    """

    name = "soak"
    title = "Soak: the same work must hold the same memory"
    own_servers = True
    most_runs = 1

    def measure(self, run: Run) -> dict[str, float]:
        """Work for as long as is wanted, and look at memory between rounds."""
        try:
            with run.side.serving() as server:
                client = run_client(run.side, server, "soak", quick=run.options.quick)
                try:
                    return self._soak(run, server, client)
                finally:
                    client.kill()
                    client.communicate()
        except SideError as error:
            raise RunError(f"soak: {error}") from None

    def metric(self, key: str) -> Metric:
        """Look it up."""
        return _METRICS[key]

    def _soak(self, run: Run, server: Server | None, client: Popen[str]) -> dict[str, float]:
        self._await(run, client, "ready")
        pid = client.pid if server is None else _worker(server)
        for _ in range(WARM_UP):
            self._round(run, client)
        first, start = memory_kinds(pid), time.monotonic()
        rounds = 0
        while rounds == 0 or time.monotonic() - start < run.options.soak_seconds:
            self._round(run, client)
            rounds += 1
        return _figures(first, memory_kinds(pid), rounds, time.monotonic() - start)

    def _round(self, run: Run, client: Popen[str]) -> None:
        try:
            if client.stdin is not None:
                client.stdin.write("round\n")
                client.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: the next says why
        self._await(run, client, "done")

    @staticmethod
    def _await(run: Run, client: Popen[str], word: str) -> None:
        """Wait for the client's word; a driver may print before it."""
        for line in client.stdout or ():
            if line == f"{word}\n":
                return
        finish(client, run, "soak")
        raise RunError(f"soak on {run.side.title}: it has ended before its time")


def _worker(server: Server) -> int:
    """The server's process that has the client: the largest, besides the first."""
    others = server.processes()[1:] or [server.process.pid]
    return max(others, key=lambda pid: memory_use(pid).resident)


def _figures(
    first: Mapping[str, int], last: Mapping[str, int], rounds: int, seconds: float
) -> dict[str, float]:
    before, after = sum(first.values()), sum(last.values())
    growth = {kind: float(last[kind] - first[kind]) for kind in KINDS}
    return {
        "rounds": rounds / seconds,
        "first": float(before),
        "last": float(after),
        "growth": float(after - before),
        "hourly": (after - before) * HOUR / seconds,
        **{f"growth_{kind}": value for kind, value in growth.items()},
    }
