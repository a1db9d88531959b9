"""Control groups: a part of the tree that is ours, a group a worker, and nobody else moved."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from hesper.sandbox import groups
from hesper.sandbox.groups import Groups, Tree


class MadeUp:
    """A tree of files like the kernel's: a container's own, with one process in it."""

    def __init__(self, folder: Path, path: str = "/") -> None:
        self.mounted = folder / "mounted"
        self.group = self.mounted / path.lstrip("/")
        for place in (self.group, *self.group.parents):
            if self.mounted in (place, *place.parents):
                self._fill(place)
        self.own = folder / "own"
        self.enter(self.group)
        self.members(os.getpid())

    @staticmethod
    def _fill(place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        (place / "cgroup.controllers").write_text("cpu io memory pids\n")
        (place / "cgroup.type").write_text("domain\n")
        (place / "cgroup.procs").write_text("")
        (place / "cgroup.subtree_control").write_text("")

    @property
    def tree(self) -> Tree:
        return Tree(self.mounted, self.own)

    def enter(self, group: Path) -> None:
        """Have the kernel say that this process is there."""
        path = group.relative_to(self.mounted)
        self.own.write_text(f"12:cpu:/elsewhere\n0::/{'' if path == Path() else path}\n")

    def members(self, *pids: int) -> None:
        (self.group / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))

    def settle(self) -> None:
        """Have it done, and the kernel hand the controllers on."""
        groups.settle(self.tree)
        moved = self.group / groups.SETTLED / "cgroup.procs"
        if moved.exists():
            assert moved.read_text() == f"{os.getpid()}\n"
            assert (self.group / "cgroup.subtree_control").read_text() == "+memory +pids\n"
            (self.group / "cgroup.subtree_control").write_text("memory pids\n")
            self.enter(self.group / groups.SETTLED)


@pytest.fixture(autouse=True)
def _groups_are_removed_as_by_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group goes with the files in it."""
    monkeypatch.setattr(Path, "rmdir", shutil.rmtree)


def test_each_worker_has_a_group_with_bounds(tmp_path: Path) -> None:
    made = MadeUp(tmp_path)
    assert groups.obstacle(made.tree) == ""
    made.settle()
    assert groups.obstacle(made.tree) == ""
    one = Groups(1 << 30, 100, made.tree)
    assert one.are_there
    one.put(4711)
    group = made.mounted / "worker-4711"
    assert (group / "cgroup.procs").read_text() == "4711\n"
    assert (group / "memory.max").read_text() == f"{(1 << 30) + groups.UNCOUNTED}\n"
    assert (group / "pids.max").read_text() == f"{100 + groups.PROCESSES}\n"
    assert one.end(4711) == ""
    assert not group.exists()
    one.put(4712)
    (made.mounted / "worker-4712" / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    assert one.end(4712).startswith("was killed: more than ")
    one.put(4713)
    one.close()
    assert not list(made.mounted.glob("worker-*"))
    assert one.end(4713) == ""


def test_settling_again_changes_nothing(tmp_path: Path) -> None:
    made = MadeUp(tmp_path)
    made.settle()
    groups.settle(made.tree)
    assert not (made.mounted / groups.SETTLED / groups.SETTLED).exists()


def test_nobody_else_is_moved(tmp_path: Path) -> None:
    made = MadeUp(tmp_path)
    made.members(os.getpid(), 1)
    assert groups.obstacle(made.tree) == "processes that are not Hesper's are in its group, as 1"
    made.settle()
    assert (made.group / "cgroup.procs").read_text() == f"{os.getpid()}\n1\n"
    assert not (made.group / groups.SETTLED).exists()
    one = Groups(1 << 30, 100, made.tree)
    assert not one.are_there
    one.put(4711)
    assert not list(made.mounted.glob("worker-*"))


def test_a_part_of_a_tree_counts_where_it_was_left_to_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = MadeUp(tmp_path, "/user.slice/hesper.scope")
    assert "/user.slice/hesper.scope is not delegated" in groups.obstacle(made.tree)

    def marks(path: Path, name: str) -> bytes:
        if (path, name) != (made.group, "user.delegate"):
            raise OSError
        return b"1"

    monkeypatch.setattr(os, "getxattr", marks)
    assert groups.obstacle(made.tree) == ""
    made.settle()
    one = Groups(1 << 30, 100, made.tree)
    one.put(4711)
    assert (made.group / "worker-4711").is_dir()


def test_who_is_started_by_a_reload_goes_to_where_the_server_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is put into a group of its own, where no worker could have one."""
    made = MadeUp(tmp_path, "/system.slice/hesper.service")
    delegated = {made.group}

    def marks(path: Path, name: str) -> bytes:
        if path not in delegated or name != "trusted.delegate":
            raise OSError
        return b"1"

    monkeypatch.setattr(os, "getxattr", marks)
    groups.leave_control(made.tree)
    made.settle()  # the old one
    control = made.group / groups.CONTROL
    made.enter(control)
    (made.group / groups.SETTLED / "cgroup.procs").write_text("")
    groups.leave_control(made.tree)
    moved = made.group / groups.SETTLED / "cgroup.procs"
    assert moved.read_text() == f"{os.getpid()}\n"
    made.enter(moved.parent)
    one = Groups(1 << 30, 100, made.tree)
    one.put(4711)
    assert (made.group / "worker-4711").is_dir()
    # Where the old one could not make room for workers' groups, the new one comes out all the same.
    (made.group / "cgroup.subtree_control").write_text("")
    made.enter(control)
    moved.write_text("")
    groups.leave_control(made.tree)
    assert moved.read_text() == f"{os.getpid()}\n"
    made.enter(moved.parent)
    assert not Groups(1 << 30, 100, made.tree).are_there
    # A group of that name that is in nobody's part of the tree is none of systemd's.
    delegated.clear()
    made.enter(control)
    moved.write_text("")
    groups.leave_control(made.tree)
    assert moved.read_text() == ""


def test_what_is_lacking_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = MadeUp(tmp_path)
    (made.mounted / "cgroup.controllers").write_text("cpu pids\n")
    assert groups.obstacle(made.tree) == "the group / has no controller for memory"
    monkeypatch.setattr(os, "access", lambda *_: False)
    (made.mounted / "cgroup.controllers").write_text("memory pids\n")
    assert groups.obstacle(made.tree) == "the group / may not be written to"
    (made.mounted / "cgroup.type").unlink()  # the machine's own root
    assert groups.obstacle(made.tree) == "the group / is not delegated to Hesper"
    (made.mounted / "cgroup.controllers").unlink()
    nothing = "there is no tree of control groups of version 2"
    assert groups.obstacle(made.tree) == nothing
    assert groups.obstacle(Tree(tmp_path, tmp_path / "nowhere")) == nothing
    groups.settle(Tree(tmp_path, tmp_path / "nowhere"))
