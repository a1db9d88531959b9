"""`python -m hesper.bench.client TASK [--quick]`: do one task, print one JSON line.

The line holds the device's name, what making it took, and the task's figures: times in
microseconds (`hesper.bench.suites` says what is what), rates a second.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

from hesper.bench.client.device import Device
from hesper.bench.client.loops import VulkanError
from hesper.bench.client.work import WORKS
from hesper.bench.processes import memory_use

MEASURED = ("latency", "stream", "memory", "compute", "load", "instances")
SHARING = ("share", "brief", "light")
TASKS = (*MEASURED, *SHARING, "decode", "hold", "probe", "work", "soak")


def run(task: str, *, quick: bool, work: str = "") -> dict[str, Any]:
    """Do a task; returns what is printed.  work: what the task `work` repeats."""
    if task == "decode":
        from hesper.bench.client.decode import measure

        return {"device": "", "figures": measure(quick=quick)}
    before = memory_use(os.getpid())
    device = Device()
    answer: dict[str, Any] = {
        "device": device.name,
        "instance_ms": device.instance_ms,
        "device_ms": device.device_ms,
        "figures": {},
    }
    if task == "hold":
        from hesper.bench.client.hold import hold

        after = memory_use(os.getpid())
        answer["resident"] = after.resident - before.resident
        answer["proportional"] = after.proportional - before.proportional
        print(json.dumps(answer), flush=True)
        hold(device)
        return {}
    if task == "soak":
        from hesper.bench.client.soak import soak

        soak(device, quick=quick)
        return {}
    if task == "work":
        from hesper.bench.client.work import prepare, repeat

        repeat(prepare(device, work), quick=quick)
        return answer
    if task == "probe":
        from hesper.bench.client.scene import Workplace

        Workplace(device)
        return answer
    measure_task: Callable[..., dict[str, float]] = import_module(
        f"hesper.bench.client.{task}"
    ).measure
    answer["figures"] = measure_task(device, quick=quick)
    return answer


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m hesper.bench.client", description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--work", choices=WORKS, default=WORKS[0])
    options = parser.parse_args()
    try:
        answer = run(options.task, quick=options.quick, work=options.work)
    except VulkanError as error:
        raise SystemExit(f"hesper bench: {error}") from None
    if answer:
        print(json.dumps(answer), flush=True)
    # Drivers' threads may still run; what the process holds goes with it.
    os._exit(0)


if __name__ == "__main__":
    main()
