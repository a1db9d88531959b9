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
from typing import Any

from hesper.host.drivers import Device, Driver, sort_devices
from hesper.host.seen import MemorySeen

PROBE_SECONDS = 30.0
"""How long drivers may take to answer, all of them together: some need many seconds for eight GPUs,
or on a machine that is busy."""

_MOST_CRASHES = 8
"""How often a driver is asked again without the step that it has crashed in."""

_PARALLEL = max(2, os.cpu_count() or 2)


def probe_drivers(
    drivers: Sequence[Driver], environ: Mapping[str, str] = os.environ
) -> list[Driver]:
    """Each of `drivers` with its devices, or with the reason why it has none, in order."""
    deadline = time.monotonic() + PROBE_SECONDS
    waiting = list(enumerate(drivers))
    running: list[tuple[int, _Question]] = []
    results: dict[int, Driver] = {}
    while waiting or running:
        while waiting and len(running) < _PARALLEL:
            index, driver = waiting.pop(0)
            running.append((index, _Question(driver, environ, deadline)))
        index, question = running.pop(0)
        results[index] = question.answer()
    return [results[index] for index in range(len(drivers))]


class _Question:
    """One driver's process, started again without the step of a trial that it has crashed in."""

    def __init__(self, driver: Driver, environ: Mapping[str, str], deadline: float) -> None:
        """Start the process, which has until `deadline`."""
        self._driver = driver
        self._environ = environ
        self._deadline = deadline
        self._lost: list[str] = []
        self._process = _start(driver, environ, self._lost)

    def answer(self) -> Driver:
        """Wait for the driver with its devices, or the reason why it has none."""
        while True:
            try:
                left = max(0.0, self._deadline - time.monotonic())
                output, errors = self._process.communicate(timeout=left)
            except subprocess.TimeoutExpired:
                self._process.kill()
                output, errors = self._process.communicate()
                step = _last_step(output)
                where = f" (it was at: {step})" if step else ""
                return self._failed(f"did not answer within {PROBE_SECONDS:.0f} s{where}")
            if self._process.returncode >= 0:
                return self._read(output, errors)
            step = _last_step(output)
            if not step or step in self._lost or len(self._lost) == _MOST_CRASHES:
                return self._failed(f"crashed with signal {-self._process.returncode}")
            self._lost.append(step)
            self._process = _start(self._driver, self._environ, self._lost)

    def _failed(self, problem: str) -> Driver:
        return replace(self._driver, problem=problem)

    def _read(self, output: bytes, errors: bytes) -> Driver:
        # A driver may print on standard output too; the answer is the last line.
        lines = output.decode(errors="replace").splitlines()
        try:
            answer = json.loads(lines[-1])
            if answer["problem"]:
                return self._failed(answer["problem"])
            return sort_devices(self._driver, [self._device(each) for each in answer["devices"]])
        except (IndexError, KeyError, ValueError):
            last = errors.decode(errors="replace").strip().splitlines()[-1:]
            reason = last[0] if last else f"exit status {self._process.returncode}"
            return self._failed(f"probe failed: {reason}")

    def _device(self, answer: dict[str, Any]) -> Device:
        """The device that a process describes."""
        prefix = f"{answer['index']} "
        lost = tuple(step.removeprefix(prefix) for step in self._lost if step.startswith(prefix))
        memory = answer.pop("memory")
        return Device(
            **{**answer, "features": tuple(answer["features"])},
            memory=memory and MemorySeen.from_answer(memory, lost),
        )


def _last_step(output: bytes) -> str:
    """The step that was announced last; empty when none was."""
    for line in reversed(output.decode(errors="replace").splitlines()):
        try:
            step = json.loads(line)["step"]
        except (KeyError, TypeError, ValueError):
            continue
        return str(step)
    return ""


def _start(
    driver: Driver, environ: Mapping[str, str], leave_out: Sequence[str]
) -> subprocess.Popen[bytes]:
    """Start the process that asks `driver`, without some steps of its trials."""
    variables = {**environ, **driver.environment}
    for name in ("VK_INSTANCE_LAYERS", "VK_LOADER_LAYERS_ENABLE", "VK_LOADER_DEBUG"):
        variables.pop(name, None)
    # The child must find this very package, however this process has found it.
    variables["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-S", "-m", "hesper.host.describe"]
    return subprocess.Popen(
        [*command, driver.library, driver.library_path, *leave_out],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=variables,
    )
