"""What serves others does not look through all of Python's modules for garbage, now and then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from supervised import environment

PROGRAM = """
import gc, os, sys
import hesper.cli.{name} as program
from hesper.cli import main

def harden(mode):
    # As late as that all there is has been imported.
    print("never looked at:", gc.get_freeze_count(), flush=True)
    os.killpg(0, 9)

program.harden = harden
main()
"""


@pytest.mark.parametrize("name", ["serve", "gpu"])
def test_a_program_that_is_up_keeps_what_it_has(tmp_path: Path, name: str) -> None:
    options = ["--socket", str(tmp_path / "socket"), "--sandbox", "off"]
    if name == "gpu":
        options += ["--vnc", "off", "--web", "off"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(name=name), name, *options],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        process_group=0,
    )
    _, _, count = done.stdout.partition("never looked at: ")
    assert int(count.split()[0]) > 10_000, done.stderr
