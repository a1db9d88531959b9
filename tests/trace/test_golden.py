"""Golden recordings of each Mesa at hand, replayed on drivers of all kinds without their clients.

`-k machine` takes those of this machine's Mesa alone, as `scripts/bare` does on systems made anew.
"""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from golden import PROGRAMS, check_codec, record
from servers import FAKES, HESPER, Place, Setup, debian_root, server_driver, this_machine

pytestmark = [pytest.mark.programs, pytest.mark.slow]

SECONDS = 240.0
DRIVERS = (Setup("lavapipe"), *FAKES)


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Records a program with the Mesa of a place, once."""

    @functools.cache
    def place(name: str) -> Place:
        if name == "machine":
            return this_machine(tmp_path_factory.mktemp("exchange"))
        return debian_root(name)

    @functools.cache
    def recording(of: str, program: str) -> Path:
        return record(place(of), program, tmp_path_factory.mktemp(f"{of}-{program}-"))

    return recording


@pytest.fixture(params=["machine", "trixie"])
def mesa(request: pytest.FixtureRequest) -> str:
    """Whose Mesa the clients have."""
    name: str = request.param
    return name


def replay(path: Path, setup: Setup, *words: str) -> subprocess.CompletedProcess[str]:
    """What comes of a recording on a setup's driver."""
    return subprocess.run(
        [*HESPER, "replay", str(path), "--driver", str(server_driver(setup)), *words],
        env={**os.environ, **setup.environ},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.mark.parametrize("setup", DRIVERS, ids=lambda setup: setup.name)
@pytest.mark.parametrize("program", PROGRAMS)
def test_it_is_replayed(
    golden: Callable[[str, str], Path], mesa: str, program: str, setup: Setup
) -> None:
    # What vulkaninfo is told hangs on the driver, of which it is the whole purpose.
    is_same = program != "vulkaninfo" or setup.name == "lavapipe"
    done = replay(golden(mesa, program), setup, *(["--verify"] if is_same else []))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ended at" not in done.stdout
    if is_same:
        assert "same, 0 others" in done.stdout
    if setup.mode and program != "vulkaninfo":
        assert "allocations" in done.stdout, "its memory types are others"


@pytest.mark.parametrize("profile", ["moltenvk", "kosmickrisp"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_it_is_replayed_as_on_a_mac(
    golden: Callable[[str, str], Path], mesa: str, program: str, profile: str
) -> None:
    done = replay(golden(mesa, program), Setup("lavapipe"), "--host-profile", profile)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ended at" not in done.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_codec_makes_the_same_of_every_command(
    golden: Callable[[str, str], Path], mesa: str, program: str
) -> None:
    check_codec(golden(mesa, program))
