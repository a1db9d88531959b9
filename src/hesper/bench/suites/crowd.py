"""What a crowd of clients costs, for the suite `scale`: memory, and how fast one more is served."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from subprocess import Popen

from hesper.bench.client.statistics import median
from hesper.bench.metric import Metric, Unit
from hesper.bench.processes import memory_use
from hesper.bench.sides import HESPER, Server, run_client
from hesper.bench.suites.base import Run, RunError, finish

LOOKED_AT = 9
"""Clients whose way to an instance is timed, alone and beside the others: the fastest counts, since
nothing but others on the machine makes one of them slow."""
SETTLE_SECONDS = 2.0

METRICS = {
    "crowd": Metric("clients at once, each with a device", Unit.SHARE, more_is_better=True),
    "crowd_worker": Metric.cost("of many: a worker, shared pages divided", Unit.BYTES),
    "crowd_memory": Metric.cost("of many: all of the server, a client", Unit.BYTES),
    "crowd_alone": Metric.cost(
        f"connect to vkCreateInstance done, alone, best of {LOOKED_AT}",
        Unit.MILLISECONDS,
        detail=True,
    ),
    "crowd_instance": Metric.cost("the same beside many / alone", Unit.SHARE),
}


def measure(run: Run) -> dict[str, float]:
    """All figures, on Hesper's side alone."""
    if run.side.name != HESPER or run.server is None or run.options.crowd <= LOOKED_AT:
        return {}
    alone = []
    for _ in range(LOOKED_AT):
        with _held(run, 1) as (instance,):
            alone.append(instance)
    with _held(run, run.options.crowd - LOOKED_AT), contextlib.ExitStack() as stack:
        time.sleep(SETTLE_SECONDS)
        beside = [stack.enter_context(_held(run, 1))[0] for _ in range(LOOKED_AT)]
        figures = _memory(run.server, run.options.crowd)
    return figures | {
        "crowd": float(run.options.crowd),
        "crowd_alone": min(alone),
        "crowd_instance": min(beside) / min(alone),
    }


@contextlib.contextmanager
def _held(run: Run, count: int) -> Iterator[list[float]]:
    """Have so many clients with a device each; ms from connecting to an instance, of each."""
    clients: list[Popen[str]] = []
    found: list[float] = []
    abreast = os.cpu_count() or 1
    try:
        while len(found) < count:
            while len(clients) < min(count, len(found) + abreast):
                clients.append(run_client(run.side, run.server, "hold", quick=run.options.quick))
            found.append(_instance(run, clients[len(found)]))
        yield found
    finally:
        for client in clients:
            client.kill()
        for client in clients:
            client.communicate()


def _instance(run: Run, client: Popen[str]) -> float:
    if client.stdout is not None:
        for line in client.stdout:
            if line.startswith("{"):
                return float(json.loads(line)["instance_ms"])
    finish(client, run, "hold")
    raise RunError(f"hold on {run.side.title}: no answer")


def _memory(server: Server, count: int) -> dict[str, float]:
    """Memory of a server's processes; the supervisor is the first."""
    used = []
    for pid in server.processes():
        with contextlib.suppress(ProcessLookupError):
            used.append(memory_use(pid).proportional)
    if not any(used):  # where the system does not tell
        return {}
    # Those that serve have more than those that wait.
    serving = sorted(used[1:], reverse=True)[:count]
    return {"crowd_worker": median(serving), "crowd_memory": sum(used) / count}
