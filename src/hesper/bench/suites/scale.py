"""The suite `scale`: several clients at once, each in a process of its own."""

from __future__ import annotations

from subprocess import Popen

from hesper.bench.metric import Metric, Unit
from hesper.bench.sides import run_client
from hesper.bench.suites import crowd, fairness
from hesper.bench.suites.base import Run, Suite, await_ready, finish, start


class ScaleSuite(Suite):
    """What they get done together, how evenly, and what many of them cost."""

    name = "scale"
    title = "Several clients at once"

    def measure(self, run: Run) -> dict[str, float]:
        """One round for each number of clients, how they share the GPU's time, then many."""
        figures = {}
        for count in run.options.clients:
            rates = self._round(run, count)
            figures[f"total_{count}"] = sum(rates)
            if count > 1:
                figures[f"fairness_{count}"] = min(rates) / (sum(rates) / count)
        return figures | fairness.measure(run) | crowd.measure(run)

    def metric(self, key: str) -> Metric:
        """Make it of the number in the key."""
        known = fairness.METRICS | crowd.METRICS
        if key in known:
            return known[key]
        what, _, count = key.rpartition("_")
        if what == "total":
            return Metric.rate(f"{count} at once, together")
        return Metric(f"{count} at once: slowest / mean", Unit.SHARE, more_is_better=True)

    def _round(self, run: Run, count: int) -> list[float]:
        """Let `count` clients get ready, then start them together; returns their rates."""
        clients: list[Popen[str]] = []
        try:
            while len(clients) < count:
                clients.append(run_client(run.side, run.server, "load", quick=run.options.quick))
            for client in clients:
                await_ready(client, run, "load")
            for client in clients:
                start(client)
            return [float(finish(c, run, "load")["figures"]["commands"]) for c in clients]
        finally:
            for client in clients:
                if client.poll() is None:
                    client.kill()
                    client.communicate()
