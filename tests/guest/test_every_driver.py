"""Whatever a guest is offered works, on every driver of our own making (`tests/drivers`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_drivers import METAL, MODES, make_driver

pytestmark = pytest.mark.programs

PROGRAM = Path(__file__).with_name("every_driver.py")


def run(folder: Path, mode: str, *handles: str) -> str:
    """Run the program on a fake driver; what it printed."""
    driver = make_driver(folder, mode)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if mode in METAL:
        environment["HESPER_PAGE_SIZE"] = "16384"
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(driver.manifest), *handles],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("mode", ["plain", *MODES])
def test_what_is_offered_works(tmp_path: Path, mode: str) -> None:
    assert run(tmp_path, mode).startswith("HostPointer: ")


@pytest.mark.parametrize("handle", ["DMA_BUF", "OPAQUE_FD"])
def test_it_does_where_memory_is_exported(tmp_path: Path, handle: str) -> None:
    assert run(tmp_path, "discrete-export", handle).startswith("Exported: ")
