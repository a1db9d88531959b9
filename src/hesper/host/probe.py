"""Ask drivers for their devices, each in a process of its own.

A driver may crash, hang or print; none of it reaches the caller.  `describe.py` is that process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hesper.host.drivers import Device, Driver, sort_devices

PROBE_SECONDS = 15.0
"""How long drivers may take to answer, all of them together."""

_PARALLEL = max(2, os.cpu_count() or 2)


def probe_drivers(
    drivers: Sequence[Driver], environ: Mapping[str, str] = os.environ
) -> list[Driver]:
    """Each of `drivers` with its devices, or with the reason why it has none, in order."""
    deadline = time.monotonic() + PROBE_SECONDS
    waiting = list(enumerate(drivers))
    running: list[tuple[int, Driver, subprocess.Popen[bytes]]] = []
    results: dict[int, Driver] = {}
    while waiting or running:
        while waiting and len(running) < _PARALLEL:
            index, driver = waiting.pop(0)
            running.append((index, driver, _start(driver, environ)))
        index, driver, process = running.pop(0)
        results[index] = _finish(driver, process, deadline)
    return [results[index] for index in range(len(drivers))]


def _start(driver: Driver, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the process that asks `driver`."""
    variables = {**environ, **driver.environment}
    for name in ("VK_INSTANCE_LAYERS", "VK_LOADER_LAYERS_ENABLE", "VK_LOADER_DEBUG"):
        variables.pop(name, None)
    # The child must find this very package, however this process has found it.
    variables["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-S", "-m", "hesper.host.describe", driver.library, driver.library_path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=variables,
    )


def _finish(driver: Driver, process: subprocess.Popen[bytes], deadline: float) -> Driver:
    """Wait for one process and read its answer."""
    try:
        output, errors = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return replace(driver, problem=f"did not answer within {PROBE_SECONDS:.0f} s")
    if process.returncode < 0:
        return replace(driver, problem=f"crashed with signal {-process.returncode}")
    # A driver may print on standard output too; the answer is the last line.
    lines = output.decode(errors="replace").splitlines()
    try:
        answer = json.loads(lines[-1])
    except (IndexError, ValueError):
        last = errors.decode(errors="replace").strip().splitlines()[-1:]
        reason = last[0] if last else f"exit status {process.returncode}"
        return replace(driver, problem=f"probe failed: {reason}")
    if answer["problem"]:
        return replace(driver, problem=answer["problem"])
    return sort_devices(driver, [Device(**device) for device in answer["devices"]])
