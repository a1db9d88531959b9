"""Half a minute of chaos; `scripts/chaos` makes more of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from supervised import HERE, environment

SECONDS, CLIENTS = 25, 16


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_honest_clients_are_served_and_nothing_is_left() -> None:
    rooms = [HERE.parent / room for room in ("drivers", "guest", "vtest")]
    paths = [str(HERE.parent), *map(str, rooms)]
    environ = environment()
    environ["PYTHONPATH"] = ":".join([*paths, environ["PYTHONPATH"]])
    program = str(Path(__file__).with_name("chaos.py"))
    wanted = ["--minutes", str(SECONDS / 60), "--clients", str(CLIENTS), "--seed", "1"]
    done = subprocess.run(
        [sys.executable, program, *wanted], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
