"""How clients share the GPU's time, for the suite `scale`: alike, by weight, beside idle ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from subprocess import Popen

from hesper.bench.metric import Metric, Unit
from hesper.bench.sides import HESPER, Server, SideError, run_client
from hesper.bench.suites.base import Run, RunError, await_ready, finish, start

EQUALS = 8
WEIGHT = 4
HEAVY = "heavy"
"""Name of the class that has that weight."""

METRICS = {
    "equal_least": Metric(f"{EQUALS} that compute: least / mean", Unit.SHARE, more_is_better=True),
    "equal_most": Metric(f"{EQUALS} that compute: most / mean", Unit.SHARE, more_is_better=False),
    "brief": Metric(
        "submissions of a quarter beside whole ones: ratio of work",
        Unit.SHARE,
        more_is_better=True,
    ),
    "weights": Metric(
        f"weight {WEIGHT} to weight 1: ratio of work", Unit.SHARE, more_is_better=True
    ),
    "given_away": Metric(
        "one that computes beside one that rests / alone", Unit.SHARE, more_is_better=True
    ),
    "light_alone_p50": Metric.cost("light client alone, p50", detail=True),
    "light_alone_p99": Metric.cost("light client alone, p99"),
    "light_p50": Metric.cost(f"light client beside {EQUALS - 1} that compute, p50", detail=True),
    "light_p99": Metric.cost(f"light client beside {EQUALS - 1} that compute, p99"),
    "light_brief_p50": Metric.cost(
        f"light client beside {EQUALS - 1} that submit a quarter, p50", detail=True
    ),
    "light_brief_p99": Metric.cost(f"light client beside {EQUALS - 1} that submit a quarter, p99"),
}


def measure(run: Run) -> dict[str, float]:
    """All figures; those of weights on Hesper's side alone."""
    figures = {}
    rates = [each["steps"] for each in together(run, ["share"] * EQUALS)]
    mean = sum(rates) / len(rates)
    figures["equal_least"], figures["equal_most"] = min(rates) / mean, max(rates) / mean
    alone = together(run, ["share"])[0]["steps"]
    # Beside one that works for some hundredths of the time: those are not its to have.
    figures["given_away"] = together(run, ["share", "light"])[0]["steps"] / alone
    brief, whole = together(run, ["brief", "share"])
    figures["brief"] = brief["steps"] / whole["steps"]
    light = together(run, ["light"])[0]
    beside = together(run, ["light", *["share"] * (EQUALS - 1)])[0]
    beside_brief = together(run, ["light", *["brief"] * (EQUALS - 1)])[0]
    for part in ("p50", "p99"):
        figures[f"light_alone_{part}"] = light[f"light_{part}"]
        figures[f"light_{part}"] = beside[f"light_{part}"]
        figures[f"light_brief_{part}"] = beside_brief[f"light_{part}"]
    if run.side.name == HESPER:
        figures["weights"] = _by_weight(run)
    return figures


def _by_weight(run: Run) -> float:
    """How much more work one of the larger weight gets done than one beside it."""
    more = ("--class", f"{HEAVY}:weight={WEIGHT}", "--socket", "{socket}-heavy:class=" + HEAVY)
    try:
        with replace(run.side, server=(*run.side.server, *more)).serving() as server:
            if server is None:
                raise RunError("there is no server")
            path = server.socket
            heavy = replace(server, socket=path.with_name(f"{path.name}-heavy"))
            one, other = together(run, ["share"] * 2, [heavy, server])
    except SideError as error:
        raise RunError(f"weights: {error}") from None
    return one["steps"] / other["steps"]


def together(
    run: Run, tasks: Sequence[str], servers: Sequence[Server | None] = ()
) -> list[dict[str, float]]:
    """Have clients get ready, one after the other, and start together; their figures.

    servers: of each, where that is not the run's.
    """
    clients: list[Popen[str]] = []
    where = servers or [run.server] * len(tasks)
    try:
        for task, server in zip(tasks, where, strict=True):
            clients.append(run_client(run.side, server, task, quick=run.options.quick))
            await_ready(clients[-1], run, task)
        for client in clients:
            start(client)
        return [finish(c, run, task)["figures"] for c, task in zip(clients, tasks, strict=True)]
    finally:
        for client in clients:
            if client.poll() is None:
                client.kill()
                client.communicate()
