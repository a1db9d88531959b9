"""The hook, as a runtime calls it: a container's state comes in, its driver's manifest is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import elftools
import pytest
from libraries import LOADER, add_driver, make_root

import hesper
from hesper.containers.cdi import specification
from hesper.containers.driver_set import DRIVER_FOLDER, DriverSet
from hesper.containers.injection import HOST_FOLDER


@pytest.fixture
def bundle(root: Path) -> Path:
    """A container as a runtime describes it, whose root is `root`."""
    (root / DRIVER_FOLDER[1:]).mkdir(parents=True)
    config = {"root": {"path": "root"}, "process": {"env": ["PATH=/bin", "ODD"]}}
    (root.parent / "config.json").write_text(json.dumps(config))
    return root.parent


def call(bundle: Path, driver_set: DriverSet, state: object = None) -> tuple[int, str]:
    """Call the hook that a CDI file names; its exit status, and what it says."""
    content = specification(Path("/run/hesper/all/vtest"), {}, driver_set)
    (hook,) = content["containerEdits"]["hooks"]
    assert hook["hookName"] == "createContainer"
    environment = dict(each.split("=", 1) for each in hook["env"])
    if state is None:
        state = {"ociVersion": "1.0.2", "id": "c", "status": "creating", "bundle": str(bundle)}
    done = subprocess.run(
        hook["args"],
        executable=hook["path"],
        env=environment,
        cwd="/",
        input=json.dumps(state) if not isinstance(state, str) else state,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_a_container_gets_what_it_lacks(bundle: Path, root: Path, driver_set: DriverSet) -> None:
    for _ in "a start", "another start of the same":
        assert call(bundle, driver_set) == (0, "")
        folder = root / DRIVER_FOLDER[1:]
        manifest = json.loads((folder / "venus.json").read_text())
        assert manifest["ICD"]["library_path"] == f"{HOST_FOLDER}/libvulkan_virtio.so"
        assert (folder / "venus.json").stat().st_mode & 0o777 == 0o644
        assert os.readlink(folder / "libwindow.so.1") == f"{HOST_FOLDER}/libwindow.so.1"
        assert os.readlink(root / "lib64" / LOADER) == f"{HOST_FOLDER}/{LOADER}"


def test_the_hook_finds_what_its_python_does_not(
    bundle: Path, driver_set: DriverSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime starts it with nothing of the environment that Hesper was found in."""
    bare = tmp_path / "bare"
    venv.create(bare)
    monkeypatch.setattr("sys.executable", str(bare / "bin/python"))
    assert call(bundle, driver_set) == (0, "")


def test_a_container_keeps_its_driver(bundle: Path, root: Path, driver_set: DriverSet) -> None:
    add_driver(root, "25.0.0")
    assert call(bundle, driver_set) == (0, "")
    assert os.listdir(root / DRIVER_FOLDER[1:]) == ["venus.json"]
    assert not (root / "lib64" / LOADER).exists()


def test_a_refusal_is_one_line_and_no_container(tmp_path: Path, driver_set: DriverSet) -> None:
    root = make_root(tmp_path / "root", newest="GLIBC_2.2.5")
    (tmp_path / "config.json").write_text(json.dumps({"root": {"path": str(root)}}))
    status, says = call(tmp_path, driver_set)
    assert (status, says.count("\n")) == (1, 1)
    assert says.startswith("hesper: the image has no Venus driver that can be used, and ")


def test_nothing_is_written_outside_of_the_container(
    bundle: Path, root: Path, driver_set: DriverSet, tmp_path: Path
) -> None:
    """An image whose links lead to the host's files: they are followed within the image."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / DRIVER_FOLDER[1:]).rmdir()
    (root / DRIVER_FOLDER[1:]).symlink_to(outside)
    status, says = call(bundle, driver_set)
    assert (status, says) == (
        1,
        "hesper: the container has no /run/hesper-driver: is the CDI file Hesper's own?\n",
    )
    (root / DRIVER_FOLDER[1:]).unlink()
    (root / DRIVER_FOLDER[1:]).mkdir()
    (root / DRIVER_FOLDER[1:] / "venus.json").symlink_to(outside / "file")
    assert call(bundle, driver_set) == (0, "")
    assert list(outside.iterdir()) == []
    assert not (root / DRIVER_FOLDER[1:] / "venus.json").is_symlink()


def test_what_is_in_the_loader_s_place_stays(
    bundle: Path, root: Path, driver_set: DriverSet
) -> None:
    (root / "lib64" / LOADER).write_text("no library")
    status, says = call(bundle, driver_set)
    assert status == 1
    assert "/lib64/libvulkan.so.1 cannot be made in it: File exists" in says
    assert (root / "lib64" / LOADER).read_text() == "no library"


@pytest.mark.parametrize(
    "state", ["", "{", "[]", "{}", '{"bundle": 1}', '{"bundle": "/nowhere"}', "[" * 100_000]
)
def test_a_runtime_that_says_nothing_sensible_is_told_so(
    bundle: Path, driver_set: DriverSet, state: str
) -> None:
    status, says = call(bundle, driver_set, state)
    assert status == 1
    assert says.startswith("hesper: the runtime describes no container: ")
    assert says.count("\n") == 1


@pytest.mark.parametrize("config", ["{", "{}", '{"root": {"path": 1}}', '{"root": 1}'])
def test_so_is_one_whose_bundle_is_none(bundle: Path, driver_set: DriverSet, config: str) -> None:
    (bundle / "config.json").write_text(config)
    status, says = call(bundle, driver_set)
    assert status == 1
    assert says.startswith("hesper: the runtime describes no container: ")


def test_a_set_that_is_gone_is_named(bundle: Path) -> None:
    command = [sys.executable, "-m", "hesper.containers.hook"]
    state = json.dumps({"bundle": str(bundle)})
    done = subprocess.run(
        [*command, "/nowhere"], input=state, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("hesper: /nowhere has no driver for containers: ")
    done = subprocess.run(command, input=state, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "hesper: say hesper.containers.hook SET\n")


def test_the_hook_imports_little() -> None:
    """It is started with each container."""
    script = (
        "import sys; sys.path += sys.argv[1:]; import hesper.containers.hook;"
        "print({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)"
        " - {'__main__'})"
    )
    folders = [str(Path(str(package.__file__)).parents[1]) for package in (hesper, elftools)]
    command = [sys.executable, "-I", "-S", "-c", script, *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout in {"{'hesper', 'elftools'}\n", "{'elftools', 'hesper'}\n"}, done.stderr
