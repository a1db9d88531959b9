"""scripts/lib.sh: when Hesper is built, when anew, and when what is there will do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[2] / "scripts" / "lib.sh"
SETUP = """
. "$1"
root=$2 venv=$2
source_digest() { printf '%s' "$DIGEST"; }
quietly() { :; }
ensure_hesper
summary
"""
BUILT, UP_TO_DATE = "installed Hesper into", "up to date"
Ensure = Callable[..., str]


@pytest.fixture
def ensure(tmp_path: Path) -> Ensure:
    """Set Hesper up, with everything but the decision left out; returns what is said."""
    for name in ("cat", "dirname", "rm"):
        tool = shutil.which(name)
        assert tool is not None
        (tmp_path / name).symlink_to(tool)
    npm = tmp_path / "npm"

    def run(*, digest: str = "one", with_npm: bool) -> str:
        npm.unlink(missing_ok=True)
        if with_npm:
            npm.symlink_to("/bin/true")
        environ = {"PATH": str(tmp_path), "DIGEST": digest}
        return subprocess.run(
            ["/bin/bash", "-c", SETUP, "bash", LIBRARY, tmp_path],
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    return run


@pytest.mark.parametrize("with_npm", [False, True])
def test_it_is_built_once(ensure: Ensure, with_npm: bool) -> None:
    assert BUILT in ensure(with_npm=with_npm)
    assert UP_TO_DATE in ensure(with_npm=with_npm)
    assert BUILT in ensure(digest="other", with_npm=with_npm)


def test_the_web_page_comes_with_npm(ensure: Ensure) -> None:
    assert "without the web page" in ensure(with_npm=False)
    assert "with the web page" in ensure(with_npm=True)
    # What has it may keep it.
    assert UP_TO_DATE in ensure(with_npm=False)
    assert UP_TO_DATE in ensure(with_npm=True)


@pytest.mark.parametrize(("age", "kept"), [(-1, True), (1, False)])
def test_what_older_versions_built_is_removed(tmp_path: Path, age: int, kept: bool) -> None:
    constraints, folder = tmp_path / "constraints.txt", tmp_path / "build"
    folder.mkdir()
    for file, time in ((constraints, 1000 + age), (folder / "build.ninja", 1000)):
        file.touch()
        os.utime(file, (time, time))
    script = '. "$1"; constraints=$2; fresh_build "$3"; fresh_build "$3/none"'
    subprocess.run(["/bin/bash", "-c", script, "bash", LIBRARY, constraints, folder], check=True)
    assert folder.exists() == kept


def dependencies(extras: str) -> set[str]:
    """Names of what `scripts/lib.sh` says that Hesper with `extras` depends on."""
    script = '. "$1"; venv=$2; dependencies "$3"'
    done = subprocess.run(
        ["/bin/bash", "-c", script, "bash", LIBRARY, Path(sys.prefix), extras],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.split()
    assert len(set(lines)) == len(lines)
    return {line.partition(">")[0] for line in lines}


def test_dependencies_go_by_extras() -> None:
    plain = {"cyclopts", "msgspec", "rich", "structlog"}
    display = {"aiohttp", "cryptography", "numpy", "pillow", "prometheus-client"}
    assert dependencies("") == plain
    assert dependencies("bench") == plain | {"numpy", "pillow"}
    assert dependencies("vm") == plain | display | {"qemu.qmp"}
    assert dependencies(",bench,vm") == plain | display | {"qemu.qmp"}
    assert dependencies("all") == plain | display | {
        "qemu.qmp",
        "glfw",
        "grpcio",
        "perfetto",
        "protobuf",
        "pyelftools",
        "rendercanvas",
        "textual",
        "wgpu",
        "zstandard",
    }


VENV = """
. "$1"
root=$2 venv=$2/venv constraints=$2/constraints.txt
quietly() { printf '%s\\n' "$*"; }
shift 2
ensure_venv "$@"
"""


def test_the_environment_gets_what_it_lacks(tmp_path: Path) -> None:
    """Once, until more is asked for or what is asked for changes."""
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/python").symlink_to(sys.executable)
    for name in ("pyproject.toml", "build-aux/constraints.txt"):
        shutil.copy(LIBRARY.parents[1] / name, tmp_path)
    requirements = tmp_path / "venv/.hesper-requirements"

    def ensure(*wanted: str) -> str:
        command: list[str | Path] = ["/bin/bash", "-c", VENV, "bash", LIBRARY, tmp_path, *wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return "\n".join(line for line in done.stdout.splitlines() if "pip install" in line)

    first = ensure("hesper[bench,vm]", "build", "demo")
    assert f"--group {tmp_path}/pyproject.toml:build" in first
    assert f"-r {requirements}" in first
    assert "hesper[" not in first
    assert "qemu.qmp" in requirements.read_text()
    assert "glfw" not in requirements.read_text()
    assert ensure("hesper[bench,vm]", "build") == ""
    more = ensure("hesper[all]", "demo")
    assert "--group" not in more
    assert "glfw" in requirements.read_text()
    assert ensure("hesper[all]", "hesper[bench,vm]", "build", "demo") == ""
    plain = ensure("constraints")
    assert ":constraints" in plain
    assert "numpy" not in requirements.read_text()
    (tmp_path / "constraints.txt").write_text("# others")
    assert ":build" in ensure("build")
