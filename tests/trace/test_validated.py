"""A replay keeps Vulkan's rules on another driver as well as on the recording's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_drivers import METAL, MODES, make_driver
from given_away import give_away
from guest_client import Guest
from recorded_guest import lavapipe, record_to
from servers import this_machine
from validation import errors, layer

pytestmark = [pytest.mark.programs, pytest.mark.slow]

HESPER = (sys.executable, "-c", "from hesper.cli import main; main()")
COMPUTE = Path(__file__).parents[1] / "clients" / "compute_program.py"
SECONDS = 240.0


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image that is drawn to and given away."""
    path = tmp_path_factory.mktemp("given") / "given.hesper"
    recorder = record_to(path)
    guest = Guest(lavapipe(), tape=recorder.tape).start()
    give_away(guest, asks=True)
    guest.close()
    recorder.close()
    return path


@pytest.fixture(scope="module")
def compute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that computes, in parts of memory that it divides by itself."""
    folder = tmp_path_factory.mktemp("compute")
    words = (
        "--driver",
        "lavapipe",
        "--record",
        folder,
        "--",
        sys.executable,
        COMPUTE,
        folder / "o",
    )
    run("record", *words)
    (path,) = folder.glob("*.hesper")
    return path


@pytest.fixture(params=["given", "compute"])
def recording(request: pytest.FixtureRequest) -> Path:
    """Each of them."""
    path: Path = request.getfixturevalue(request.param)
    return path


def run(*words: str | Path, **environ: str) -> None:
    done = subprocess.run(
        [*HESPER, *map(str, words)],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def said(recording: Path, driver: str | Path, folder: Path, **environ: str) -> dict[str, str]:
    """What the layer says of a replay; the sandbox would keep it from its files."""
    active = layer(folder, this_machine(folder.parent), log=True, hazards=True)
    words = ("--driver", driver, "--sandbox", "off", "--verify")
    run("replay", recording, *words, **active, **environ)
    return errors((folder / "log").read_text(errors="replace"))


@pytest.mark.parametrize("mode", MODES)
def test_nothing_new(recording: Path, mode: str, tmp_path: Path) -> None:
    known = said(recording, "lavapipe", tmp_path / "own")
    driver = make_driver(tmp_path / "driver", mode)
    pages = {"HESPER_PAGE_SIZE": "16384"} if mode in METAL else {}
    found = said(recording, driver.manifest, tmp_path / "other", **pages)
    new = [message for name, message in found.items() if name not in known]
    assert not new, "\n".join(new)
