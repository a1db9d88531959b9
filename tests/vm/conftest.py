"""The guests' files, made once: a tree, and the programs that run in guests."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guest_vm import compile_program, exchange
from initramfs import Tree
from named_machines import Machines

HERE = Path(__file__).parent


def _tree_folder() -> Path:
    """HESPER_TEST_TREE, or the root that `scripts/client-root trixie` makes."""
    if "HESPER_TEST_TREE" in os.environ:
        return Path(os.environ["HESPER_TEST_TREE"])
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("HESPER_CACHE") or user / "hesper") / "roots/trixie"


@pytest.fixture(scope="session", autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered of disks is not kept for whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def tree() -> Tree:
    """A Debian root with QEMU, a kernel, Mesa and busybox."""
    folder = _tree_folder()
    assert folder.is_dir(), f"no {folder}: run scripts/client-root trixie first"
    done = subprocess.run(
        [HERE / "add-to-tree", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Tree(folder)


@pytest.fixture
def machines(tree: Tree) -> Iterator[Machines]:
    """None runs yet; those that do are ended."""
    with exchange(tree) as place:
        made = Machines(place)
        yield made
        for each in json.loads(made.hesper("list", "--json")):
            made.hesper("stop", each["name"], "--now")


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Compile a program of `guest/`, once."""
    folder = tmp_path_factory.mktemp("programs")
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = compile_program(name, folder)
        return made[name]

    return make
