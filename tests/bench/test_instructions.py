"""The kernel's cost as instructions a command, which no busy machine can change.

callgrind counts what the kernel executes for a fixed stream into a driver of no-ops.  The numbers
in `instructions.toml` are what it was when they were written down; a compiler may be worse by some
of `MARGIN`, a mistake in the hot path is worse by more.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hesper.bench.client.decode import COMMAND_KINDS

HERE = Path(__file__).parent
EXPECTED: dict[str, float] = tomllib.loads((HERE / "instructions.toml").read_text())["instructions"]
MARGIN = 1.3
COUNT = 10_000


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Instructions a command, by kind."""
    valgrind = shutil.which("valgrind")
    assert valgrind, "valgrind is needed; scripts/test installs it"
    folder = tmp_path_factory.mktemp("callgrind")
    done = subprocess.run(
        [
            valgrind,
            "--tool=callgrind",
            "--dump-before=hesper_bench_cut",
            f"--callgrind-out-file={folder}/out",
            sys.executable,
            str(HERE / "count_stream.py"),
            str(COUNT),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names = done.stdout.split()
    assert names == list(COMMAND_KINDS)
    # Part 1 ends at the first cut, so every second part is what ran between two.
    parts = [(folder / f"out.{2 * index + 2}").read_text() for index in range(len(names))]
    return {name: instructions(part) / COUNT for name, part in zip(names, parts, strict=True)}


def instructions(part: str) -> int:
    """The instructions of one of callgrind's files."""
    assert "events: Ir\n" in part
    found = re.search(r"^(?:summary|totals): (\d+)$", part, re.MULTILINE)
    assert found, part[:2000]
    return int(found[1])


@pytest.mark.parametrize("kind", list(COMMAND_KINDS))
def test_a_command_costs_what_it_did(counted: dict[str, float], kind: str) -> None:
    assert counted[kind] <= EXPECTED[kind] * MARGIN, (
        f"{kind}: {counted[kind]:.0f} instructions a command, {EXPECTED[kind]:.0f} before;"
        " if that is meant, say why in the commit and change tests/bench/instructions.toml"
    )


def test_the_count_is_one_of_the_kernel(counted: dict[str, float]) -> None:
    # Fewer than these and the stream has not been decoded at all.
    assert all(count > 20 for count in counted.values()), counted
    assert counted["push"] > counted["draw"], counted
