"""Real programs are recorded, looked into, cut off, and done again without them."""

from __future__ import annotations

import io
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fake_drivers import METAL, make_driver
from golden import check_codec, commands
from screen import virtual_screen

from hesper.trace.records import Kind, command_of
from hesper.trace.records import Reader as RecordingReader

pytestmark = [pytest.mark.programs, pytest.mark.slow]

HESPER = (sys.executable, "-c", "from hesper.cli import main; main()")
COMPUTE = Path(__file__).parents[1] / "clients" / "compute_program.py"
SECONDS = 240.0


def hesper(*words: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [*HESPER, *map(str, words)],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def record(folder: Path, *program: str | Path, driver: str = "lavapipe", **environ: str) -> Path:
    """The recording of a program; it must be one."""
    done = hesper("record", "--driver", driver, "--record", folder, "--", *program, **environ)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.hesper")
    assert path.stat().st_mode & 0o777 == 0o600
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def vulkaninfo(folder: Path) -> Path:
    return record(folder / "vulkaninfo", "vulkaninfo")


@pytest.fixture(scope="module")
def compute(folder: Path) -> Path:
    out = folder / "product"
    path = record(folder / "compute", sys.executable, COMPUTE, out)
    assert out.stat().st_size
    return path


@pytest.fixture(scope="module")
def vkcube(folder: Path) -> Path:
    with virtual_screen() as screen:
        return record(
            folder / "vkcube",
            *("vkcube", "--c", "30", "--suppress_popups"),
            DISPLAY=screen.display,
            MESA_VK_WSI_DEBUG="sw",
        )


@pytest.fixture(params=["vulkaninfo", "compute", "vkcube"])
def recording(request: pytest.FixtureRequest) -> Path:
    """Each of them."""
    path: Path = request.getfixturevalue(request.param)
    return path


def test_a_recording_says_what_it_is_of(recording: Path) -> None:
    done = hesper("inspect", recording)
    assert done.returncode == 0, done.stderr
    assert "llvmpipe" in done.stdout
    assert "cut off" not in done.stdout
    assert "end: " in done.stdout


def test_a_replay_without_the_program_comes_to_the_same(recording: Path) -> None:
    done = hesper("replay", recording, "--driver", "lavapipe", "--verify")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 others" in done.stdout


def test_vkcubes_pictures_are_drawn_again(vkcube: Path, tmp_path: Path) -> None:
    picture = tmp_path / "cube.png"
    done = hesper("replay", vkcube, "--driver", "lavapipe", "--verify", "--picture", picture)
    assert done.returncode == 0, done.stdout + done.stderr
    from PIL import Image

    with Image.open(picture) as image:
        assert image.size == (500, 500)
        assert len(image.getcolors(1 << 20) or []) > 100, "the cube has a texture"


@pytest.mark.parametrize("mode", ["moltenvk", "discrete"])
def test_vkcubes_pictures_are_those_of_other_drivers(
    vkcube: Path, mode: str, tmp_path: Path
) -> None:
    driver = make_driver(tmp_path, mode)
    pages = {"HESPER_PAGE_SIZE": "16384"} if mode in METAL else {}
    done = hesper("replay", vkcube, "--driver", driver.manifest, "--verify", **pages)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "allocations" in done.stdout, "its memory types are others"
    assert " 0 others" in done.stdout


def test_buffers_that_lie_nearer_than_lavapipe_allows_are_replayed(tmp_path: Path) -> None:
    driver = make_driver(tmp_path / "driver", "discrete", places=(16, 16))
    out = tmp_path / "product"
    path = record(
        tmp_path / "recordings", sys.executable, COMPUTE, out, driver=str(driver.manifest)
    )
    assert out.stat().st_size
    done = hesper("replay", path, "--driver", "lavapipe", "--verify")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"translated: [1-9]\d* buffers and images moved", done.stdout), done.stdout
    assert " 0 others" in done.stdout


def test_the_last_second_before_a_driver_died_is_done_again(tmp_path: Path) -> None:
    driver = make_driver(tmp_path / "driver", "plain", ["vkQueueSubmit* 2000 segv"])
    folder = tmp_path / "recordings"
    cube = ("vkcube", "--c", "5000", "--suppress_popups")
    with virtual_screen() as screen:
        done = hesper(
            *("record", "--driver", driver.manifest, "--record", folder, "--last", "0.3s"),
            *("--", *cube),
            DISPLAY=screen.display,
            MESA_VK_WSI_DEBUG="sw",
        )
    assert done.returncode != 0
    (path,) = folder.iterdir()
    said = hesper("inspect", path).stdout
    assert "earlier: " in said, said
    assert "unfinished when the process died: " in said
    done = hesper("replay", path, "--driver", "lavapipe", "--picture", tmp_path / "last.png")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ended at" not in done.stdout
    assert " 0 submissions" not in done.stdout
    assert "not waited for" not in done.stdout
    from PIL import Image

    with Image.open(tmp_path / "last.png") as image:
        assert len(image.getcolors(1 << 20) or []) > 100, "the cube has a texture"


def test_a_replay_goes_on_with_less(vulkaninfo: Path) -> None:
    done = hesper("replay", vulkaninfo, "--driver", "lavapipe", "--host-profile", "moltenvk")
    assert "ended at" not in done.stdout, done.stdout
    assert done.returncode == 0, done.stderr


def test_the_codec_makes_the_same_of_every_command(recording: Path) -> None:
    check_codec(recording)


def test_ten_files_cut_off_anywhere_are_read(recording: Path) -> None:
    whole = recording.read_bytes()
    every = commands(recording)
    random.seed(recording.parent.name)
    with recording.open("rb") as file:
        start = RecordingReader(file).chunks.position
    for _ in range(10):
        reader = RecordingReader(io.BytesIO(whole[: random.randrange(start, len(whole))]))
        found = [command_of(r).data for r in reader if r.kind == Kind.COMMAND]
        assert found == every[: len(found)]


def test_what_is_given_away_names_nobody(recording: Path, tmp_path: Path) -> None:
    other = tmp_path / "given.hesper"
    done = hesper("inspect", recording, "--anonymize", other)
    assert done.returncode == 0, done.stderr
    text = hesper("inspect", other, "--commands", "--whole").stdout
    assert text.count("\n") > 100
    for word in (os.getcwd(), "vkcube", "wgpu", "python", str(recording.parent)):
        assert word not in text
    assert hesper("replay", other, "--driver", "lavapipe").returncode == 0


def test_a_hostile_file_gets_a_sentence_with_the_byte(vulkaninfo: Path, tmp_path: Path) -> None:
    broken = bytearray(vulkaninfo.read_bytes())
    broken[len(broken) // 2] ^= 0xFF
    path = tmp_path / "broken.hesper"
    path.write_bytes(broken)
    for what in ("inspect", "replay"):
        done = hesper(what, path)
        assert done.returncode == 1
        assert done.stderr.startswith("hesper: byte "), done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
