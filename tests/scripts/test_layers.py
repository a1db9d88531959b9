"""The check that each room imports only rooms below it: it sees what it has to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.programs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The package as the check reads it."""
    subprocess.run([sys.executable, ROOT / "build-aux/import_tree.py", tmp_path], check=True)
    return tmp_path


def check(tree: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_no_room_imports_one_above_it(tree: Path) -> None:
    result = check(tree)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("lower", "statement", "upper"),
    [
        ("protocol/codec", "from hesper.kernel.engine import Engine", "kernel.engine"),
        ("kernel/engine", "from hesper.guest import capset", "guest.capset"),
        ("guest/queue", "if TYPE_CHECKING:\n    import hesper.vtest.wire", "vtest.wire"),
        ("gpu/device", "from hesper.vhost import virtqueue", "vhost.virtqueue"),
    ],
)
def test_an_import_upwards_is_found(tree: Path, lower: str, statement: str, upper: str) -> None:
    with (tree / "hesper" / f"{lower}.py").open("a") as module:
        module.write(f"\n{statement}\n")
    result = check(tree)
    assert result.returncode == 1
    assert f"hesper.{lower.replace('/', '.')} -> hesper.{upper}" in result.stdout


def test_a_circle_in_the_kernel_is_found(tree: Path) -> None:
    with (tree / "hesper/kernel/core/arena.py").open("a") as module:
        module.write("\nfrom hesper.kernel.core.context import anything\n")
    result = check(tree)
    assert result.returncode == 1
    assert "the kernel's modules form no circle BROKEN" in result.stdout


def test_what_compiled_modules_import_counts(tree: Path) -> None:
    server = (tree / "hesper/vtest/server.py").read_text()
    assert "from hesper.isolation.service import ClientError" in server
    # A cimport in its source.
    assert "from hesper.kernel.port import Port" in server
