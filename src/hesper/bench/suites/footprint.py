"""The suite `footprint`: what a server costs that has one client with nothing to do."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from subprocess import Popen
from typing import Any

from hesper.bench.metric import Metric, Unit, Values
from hesper.bench.processes import Activity, activity, memory_use
from hesper.bench.sides import BARE, Server, SideError, run_client
from hesper.bench.suites.base import Run, RunError, Suite

SETTLE_SECONDS = 15.0
SETTLED_SECONDS = 0.5
GOING_TO_SLEEP_SECONDS = 0.01

_METRICS = {
    "ready": Metric.cost("server: start to ready", Unit.MILLISECONDS),
    "instance": Metric.cost("connect to vkCreateInstance done", Unit.MILLISECONDS),
    "device": Metric.cost("vkCreateDevice", Unit.MILLISECONDS, detail=True),
    "client": Metric.cost("what the program itself holds for its device", Unit.BYTES, detail=True),
    "supervisor": Metric.cost("supervisor, resident", Unit.BYTES),
    "supervisor_shared": Metric.cost("supervisor, shared pages divided", Unit.BYTES, detail=True),
    "worker": Metric.cost("worker with a device, resident", Unit.BYTES, detail=True),
    "worker_shared": Metric.cost(
        "worker with a device, shared pages divided", Unit.BYTES, detail=True
    ),
    "over": Metric.cost("worker over what the bare driver needs", Unit.BYTES),
    "standby": Metric.cost("processes waiting for the next client", Unit.BYTES, detail=True),
    "idle_cpu": Metric.cost("idle client: processor time a second", Unit.MICROSECONDS),
    "idle_wake_ups": Metric.cost("idle client: wake-ups a second", Unit.PER_SECOND),
}


class FootprintSuite(Suite):
    """Start-up, memory, idleness.  The client and all processes of the server count."""

    name = "footprint"
    title = "Footprint: start-up, memory, idleness"
    own_servers = True

    def measure(self, run: Run) -> dict[str, float]:
        """Start a server and a client, look at them, stop both."""
        try:
            with run.side.serving() as server:
                client = run_client(run.side, server, "hold")
                try:
                    return self._look(run, server, client)
                finally:
                    client.kill()
                    client.communicate()
        except SideError as error:
            raise RunError(f"footprint: {error}") from None

    def metric(self, key: str) -> Metric:
        """Look it up."""
        return _METRICS[key]

    def derive(self, found: Mapping[str, Mapping[str, Values]]) -> dict[str, dict[str, Values]]:
        """Take what the bare driver needs off what workers hold."""
        if "client" not in found.get(BARE, {}):
            return {}
        needed = found[BARE]["client"].median
        return {
            side: {"over": Values(tuple(each - needed for each in figures["worker"].runs))}
            for side, figures in found.items()
            if "worker" in figures
        }

    def _look(self, run: Run, server: Server | None, client: Popen[str]) -> dict[str, float]:
        answer = self._answer(run, client)
        figures = {
            "instance": answer["instance_ms"],
            "device": answer["device_ms"],
            "client": float(answer["resident"]),
        }
        processes = [client.pid]
        if server is not None:
            figures["ready"] = server.ready_ms
            _settle(server)
            processes += server.processes()
            figures |= _memory(server)
        self._touch(client)
        # The client has said so, and has yet to go back to sleep.
        time.sleep(GOING_TO_SLEEP_SECONDS)
        before, start = activity(processes), time.perf_counter()
        time.sleep(0.5 if run.options.quick else 3.0)
        return figures | _idleness(before, activity(processes), time.perf_counter() - start)

    @staticmethod
    def _answer(run: Run, client: Popen[str]) -> dict[str, Any]:
        if client.stdout is not None:
            for line in client.stdout:
                if line.startswith("{"):
                    answer: dict[str, Any] = json.loads(line)
                    return answer
        errors = client.communicate()[1].strip().splitlines()
        raise RunError(f"hold on {run.side.title}: {errors[-1] if errors else 'no answer'}")

    @staticmethod
    def _touch(client: Popen[str]) -> None:
        """Have the client make a call; returns 10 ms after it."""
        if client.stdin is not None and client.stdout is not None:
            client.stdin.write("call\n")
            client.stdin.flush()
            client.stdout.readline()


def _settle(server: Server) -> None:
    """Wait until the server has nothing left to do (a worker for the next client, say)."""
    deadline = time.monotonic() + SETTLE_SECONDS
    before: Activity | None = None
    while time.monotonic() < deadline:
        try:
            now = activity(server.processes())
        except ProcessLookupError:
            continue  # one has ended while we looked
        if now == before:
            return
        before = now
        time.sleep(SETTLED_SECONDS)


def _memory(server: Server) -> dict[str, float]:
    """Memory by role: the first process; the largest other one; the rest."""
    first, *others = server.processes() or [server.process.pid]
    supervisor = memory_use(first)
    figures = {
        "supervisor": float(supervisor.resident),
        "supervisor_shared": float(supervisor.proportional),
    }
    if others:
        used = sorted((memory_use(pid) for pid in others), key=lambda each: each.resident)
        figures |= {
            "worker": float(used[-1].resident),
            "worker_shared": float(used[-1].proportional),
            "standby": float(sum(each.resident for each in used[:-1])),
        }
    return {key: value for key, value in figures.items() if value or key == "standby"}


def _idleness(before: Activity, after: Activity, seconds: float) -> dict[str, float]:
    figures = {"idle_cpu": (after.cpu - before.cpu) / seconds * 1e6}
    if before.wake_ups is not None and after.wake_ups is not None:
        figures["idle_wake_ups"] = (after.wake_ups - before.wake_ups) / seconds
    return figures
