"""The suite `app`: real programs, and one of ours that does nothing but compute."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

from hesper.bench.metric import Metric, Unit
from hesper.bench.random_llama import Shape, write
from hesper.bench.suites.base import Options, Run, RunError, Suite, ask
from hesper.bench.suites.programs import (
    BackendOps,
    LlamaBench,
    Program,
    Vkmark,
    find_backend_ops,
)

PROGRAM_SECONDS = 600.0


class AppSuite(Suite):
    """Whatever is installed of vkmark, llama-bench and test-backend-ops."""

    name = "app"
    title = "Programs"
    depends_on_view = True

    def __init__(self) -> None:
        """Know no program yet."""
        self._programs: dict[str, Program] = {}

    def prepare(self, options: Options, folder: Path) -> list[str]:
        """Find the programs; make a model if none is given."""
        self._programs = {}
        notes = []
        if path := shutil.which("vkmark"):
            self._programs["vkmark"] = Vkmark(path)
        else:
            notes.append("vkmark is not installed")
        if path := shutil.which("llama-bench"):
            model = options.model
            if model is None:
                model = folder / "random.gguf"
                write(model, Shape())
            self._programs["llama-bench"] = LlamaBench(path, model)
        else:
            notes.append("llama-bench is not installed")
        if path := find_backend_ops():
            self._programs["test-backend-ops"] = BackendOps(path)
        else:
            notes.append("test-backend-ops is not installed")
        return notes

    def measure(self, run: Run) -> dict[str, float]:
        """Run them one after the other."""
        figures: dict[str, float] = ask(run, "compute")["figures"]
        for name, program in self._programs.items():
            found: dict[str, float] = {}
            for command in program.commands(run.options):
                found |= program.read(_run(run, program, command))
            figures |= {f"{name}/{key}": value for key, value in found.items()}
        return figures

    def metric(self, key: str) -> Metric:
        """Ask the program."""
        if key == "compute":
            return Metric.rate("multiply-adds on the device", Unit.OPERATIONS_PER_SECOND)
        name, _, rest = key.partition("/")
        return self._programs[name].metric(rest)


def _run(run: Run, program: Program, command: list[str]) -> str:
    """Run one program to its end; returns what it has printed."""
    where = f"{shlex.join(command)} on {run.side.title}"
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROGRAM_SECONDS,
            check=False,
            env=run.side.client_environment(run.server) | dict(program.environment),
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"{where}: not done in {PROGRAM_SECONDS:g} s") from None
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise RunError(f"{where}: {lines[-1] if lines else f'ended with {done.returncode}'}")
    return done.stdout
