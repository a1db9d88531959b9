"""What is followed in a container's root stays in it, whatever somebody changes there meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from between_calls import Swapped, before_each_call
from hesper.containers.driver_set import DRIVER_FOLDER
from hesper.containers.hook import HookError, carry_out
from hesper.containers.injection import InjectionError, Plan
from hesper.containers.inside import Inside, PathError
from hesper.containers.rootfs import Root


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """Has a root, and outside of it a folder with the same names in it."""
    for folder in ("root/usr/lib", "outside/lib", f"root{DRIVER_FOLDER}", "outside/hesper-driver"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "root/lib").symlink_to("usr/lib")
    (tmp_path / "root/usr/lib/file").write_text("of the image")
    for folder in ("outside", "outside/lib"):
        (tmp_path / folder / "file").write_text("of the host")
    return tmp_path


def everything(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("name", ["usr", "usr/lib"])
def test_nothing_outside_is_read(top: Path, name: str) -> None:
    swapped = Swapped(top / "root" / name, top / "outside")
    root = Root(top / "root", {})
    found = []
    for outcome in before_each_call(lambda: root.read("/lib/file"), swapped.swap):
        swapped.put_back()
        found.append(outcome)
    assert set(found) == {b"of the image", None}
    (top / "outside/of the host").touch()
    (top / "outside/lib/of the host").touch()
    names = []
    for outcome in before_each_call(lambda: root.files("/lib", ""), swapped.swap):
        swapped.put_back()
        names.append(tuple(each.name for each in outcome))  # type: ignore[attr-defined]
    assert set(names) == {("file",), ()}


@pytest.mark.parametrize("name", ["usr", "usr/lib", "run", DRIVER_FOLDER[1:]])
def test_nothing_outside_is_written(top: Path, name: str) -> None:
    swapped = Swapped(top / "root" / name, top / "outside")
    planned = Plan({}, {"/lib/libvulkan.so.1": "/target"})
    before = everything(top / "outside")
    outcomes = []

    def work() -> None:
        carry_out(Root(top / "root", {}), planned)

    for outcome in before_each_call(work, swapped.swap, HookError, InjectionError):
        swapped.put_back()
        outcomes.append(type(outcome))
        assert everything(top / "outside") == before
        (top / "root/usr/lib/libvulkan.so.1").unlink(missing_ok=True)
    assert type(None) in outcomes
    assert {HookError, InjectionError} & set(outcomes)


def test_a_file_that_becomes_something_else_is_not_opened(top: Path) -> None:
    """Opening a device has it do things, and one that waits for a writer would hold the hook."""
    path, away = top / "root/usr/lib/file", top / "root/usr/lib/away"

    def swap() -> None:
        path.rename(away)
        os.mkfifo(path)

    root = Root(top / "root", {})
    found = []
    for outcome in before_each_call(lambda: root.read("/lib/file"), swap):
        found.append(outcome)
        if away.exists():
            path.unlink()
            away.rename(path)
    assert set(found) == {b"of the image", None}


def test_folders_in_each_other_have_an_end(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a"] * 120)
    deep.mkdir(parents=True)
    inside = Inside(tmp_path)
    with inside.folder("a/" * 90) as found:
        assert found is not None
    with pytest.raises(PathError, match="too many folders"), inside.folder("a/" * 120):
        pass


def test_no_descriptor_is_left(top: Path) -> None:
    def descriptors() -> set[str]:
        return set(os.listdir("/dev/fd"))

    before = descriptors()
    root = Root(top / "root", {})
    for path in ("/lib/file", "/lib/none", "/lib/../usr/lib", "/none/more"):
        root.read(path)
        root.files(path, "")
    del root
    assert descriptors() == before
