"""The CDI file, held against what the specification says of one; and the commands."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hesper.containers.cdi import (
    CdiError,
    answers,
    changeable,
    devices,
    specification,
    write,
)
from hesper.containers.driver_set import DriverSet

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
HOOKS = {"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}
FIELDS: dict[str, dict[str, type]] = {
    "": {"cdiVersion": str, "kind": str, "devices": list, "containerEdits": dict},
    "device": {"name": str, "containerEdits": dict},
    "edits": {"env": list, "deviceNodes": list, "hooks": list, "mounts": list},
    "mount": {"hostPath": str, "containerPath": str, "type": str, "options": list},
    "hook": {"hookName": str, "path": str, "args": list, "env": list, "timeout": int},
}
REQUIRED: dict[str, set[str]] = {
    "": {"cdiVersion", "kind", "devices"},
    "device": {"name", "containerEdits"},
    "edits": set(),
    "mount": {"hostPath", "containerPath"},
    "hook": {"hookName", "path"},
}


def conforms(content: dict[str, Any]) -> None:
    """Hold a CDI file against SPEC.md: what runtimes refuse is an assertion here."""
    fields(content, "")
    version = tuple(map(int, content["cdiVersion"].split(".")))
    assert version >= (0, 3, 0)
    vendor, _, kind = content["kind"].partition("/")
    assert all(map(DNS_LABEL.fullmatch, vendor.split(".")))
    assert NAME.fullmatch(kind)
    assert len(kind) <= 63
    names = [device["name"] for device in content["devices"]]
    assert names
    assert len(set(names)) == len(names)
    for device in content["devices"]:
        fields(device, "device")
        assert NAME.fullmatch(device["name"])
        # Before 0.5.0 a name may not begin with a digit.
        assert device["name"][0].isalpha() or version >= (0, 5, 0)
        assert device["containerEdits"], "a device that changes nothing is none"
    for edits in (content["containerEdits"], *(d["containerEdits"] for d in content["devices"])):
        fields(edits, "edits")
        for variable in edits.get("env", []):
            assert re.match(r"[A-Z_]+=", variable)
        for mount in edits.get("mounts", []):
            fields(mount, "mount")
            assert mount["containerPath"].startswith("/")
            assert mount["hostPath"].startswith("/") or mount.get("type") == "tmpfs"
            assert "type" not in mount or version >= (0, 4, 0)
        for hook in edits.get("hooks", []):
            fields(hook, "hook")
            assert hook["hookName"] in HOOKS
            assert hook["path"].startswith("/")
            assert hook["timeout"] > 0
            assert all("=" in variable for variable in hook["env"])


def fields(content: dict[str, Any], kind: str) -> None:
    """A runtime does not read a file with fields that it does not know."""
    assert set(content) >= REQUIRED[kind]
    for name, value in content.items():
        assert isinstance(value, FIELDS[kind][name])


@contextlib.contextmanager
def listening(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield


def test_a_file_conforms(driver_set: DriverSet) -> None:
    gold = {"gold": Path("/run/hesper/gold/vtest")}
    for content in (
        specification(Path("/run/hesper/all/vtest"), {}, driver_set),
        specification(Path("/run/hesper/all/vtest"), gold, driver_set),
        specification(None, gold, driver_set),
        specification(Path("/run/hesper/all/vtest"), gold, None),
    ):
        conforms(content)
        assert content["kind"] == "hesper.dev/gpu"


def test_a_container_gets_the_socket_s_folder_read_only(driver_set: DriverSet) -> None:
    content = specification(
        Path("/run/hesper/all/vtest"), {"gold": Path("/srv/gold/socket")}, driver_set
    )
    everyone, gold = content["devices"]
    assert [everyone["name"], gold["name"]] == ["all", "class-gold"]
    (mount,) = gold["containerEdits"]["mounts"]
    assert (mount["hostPath"], mount["containerPath"]) == ("/srv/gold", "/run/hesper")
    assert gold["containerEdits"]["env"] == ["VTEST_SOCKET_NAME=/run/hesper/socket"]
    mounts = [mount, *content["containerEdits"]["mounts"]]
    assert ["ro" in each["options"] for each in mounts] == [True, True, False]
    assert mounts[2]["type"] == "tmpfs"
    assert "VN_DEBUG=vtest" in content["containerEdits"]["env"]
    assert "VK_DRIVER_FILES=/run/hesper-driver/venus.json" in content["containerEdits"]["env"]


def test_without_injection_the_image_s_driver_is_named() -> None:
    content = specification(Path("/run/hesper/all/vtest"), {}, None)
    assert set(content["containerEdits"]) == {"env"}
    env = dict(each.split("=", 1) for each in content["containerEdits"]["env"])
    assert env["VK_LOADER_DRIVERS_SELECT"] == "virtio*"
    assert env["VN_DEBUG"] == "vtest"
    assert not {"VK_DRIVER_FILES", "VK_ICD_FILENAMES"} & set(env), "no file that may not be there"


@pytest.mark.parametrize("name", ["", "-gold", "Gold", "a b", "a/b", "a" * 51, "gold\n"])
def test_a_class_has_a_name_that_all_runtimes_take(name: str) -> None:
    with pytest.raises(CdiError, match="is no name of a class"):
        specification(None, {name: Path("/run/hesper/gold/vtest")}, None)


def test_a_folder_with_more_in_it_is_not_given_away(tmp_path: Path) -> None:
    for path in ("/tmp/.virgl_test", "/run/vtest", "/vtest"):
        with pytest.raises(CdiError, match="is for more than a socket"):
            specification(Path(path), {}, None)
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(CdiError, match="is for more than a socket"):
        specification(tmp_path / "open" / "vtest", {}, None)
    with pytest.raises(CdiError, match="share a folder: containers that get one would reach the"):
        specification(Path("/run/hesper/a"), {"gold": Path("/run/hesper/b")}, None)
    with pytest.raises(CdiError, match="no device: name the socket"):
        specification(None, {}, None)


def test_devices_are_listed(tmp_path: Path, driver_set: DriverSet) -> None:
    server, gold = tmp_path / "all" / "vtest", tmp_path / "gold" / "vtest"
    one, two = tmp_path / "etc", tmp_path / "run"
    write(specification(server, {"gold": gold}, driver_set), one / "hesper.json")
    assert [path.name for path in one.iterdir()] == ["hesper.json"]
    (one / "other.json").write_text('{"kind": "vendor.com/gpu"}')
    (one / "list.json").write_text("[]")
    with listening(server):
        assert answers(server)
        found = devices([one, two])
    assert [(each.name, each.is_served, each.injects) for each in found] == [
        ("hesper.dev/gpu=all", True, True),
        ("hesper.dev/gpu=class-gold", False, True),
    ]
    assert [each.socket for each in found] == [str(server), str(gold)]
    assert not answers(server)
    write(specification(server, {}, None), two / "hesper.json")
    newer, _ = devices([one, two])
    assert (newer.file, newer.injects) == (str(two / "hesper.json"), False)
    for content in (
        "{",
        '{"kind": "hesper.dev/gpu"}',
        '{"kind": "hesper.dev/gpu", "devices": [1]}',
    ):
        (two / "hesper.json").write_text(content)
        with pytest.raises(CdiError, match="no CDI file of Hesper's"):
            devices([two])


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(CdiError, match=r"from a file that ends in \.json"):
        write({}, tmp_path / "hesper.yaml")
    (tmp_path / "file").write_text("")
    with pytest.raises(CdiError, match=r"cannot be written: (Not a directory|File exists)"):
        write({}, tmp_path / "file" / "hesper.json")


def test_who_else_can_change_what_root_runs_is_seen(tmp_path: Path) -> None:
    me = os.geteuid()
    program, other = tmp_path / "a/b/program", tmp_path / "c/other"
    for each in (program, other):
        each.parent.mkdir(parents=True)
        each.touch()
        each.chmod(0o755)
    assert changeable([program, other], me) == []
    (tmp_path / "c/link").symlink_to(program)
    assert changeable([tmp_path / "c/link"], me) == []
    (tmp_path / "a").chmod(0o777)
    assert changeable([program, other], me) == [tmp_path / "a"]
    assert changeable([tmp_path / "c/link"], me) == [tmp_path / "a"]
    (tmp_path / "a").chmod(0o1777)
    assert changeable([program], me) == []
    other.chmod(0o757)
    assert changeable([program, other], me) == [other]
    if me:
        assert changeable([program]) == [program]


def hesper(*arguments: object) -> subprocess.CompletedProcess[str]:
    script = "import sys; from hesper.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "cdi", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_commands(tmp_path: Path, root: Path) -> None:
    """`generate` takes this machine's own Venus driver; so does `check`, with its own glibc."""
    server, file = tmp_path / "all" / "vtest", tmp_path / "cdi" / "hesper.json"
    sets = tmp_path / "sets"
    done = hesper("generate", "--socket", server, "--output", file, "--driver-folder", sets)
    assert done.returncode == 0
    # Of where the tests lie, nobody knows who can write there.
    assert all("others than root can change" in line for line in done.stderr.splitlines())
    assert done.stdout == f"{file}: hesper.dev/gpu=all\n"
    content = json.loads(file.read_text())
    conforms(content)
    (folder,) = sets.iterdir()
    assert content["containerEdits"]["mounts"][0]["hostPath"] == str(folder)
    done = hesper("list", "--folder", file.parent, "--json")
    (row,) = json.loads(done.stdout)
    assert row["name"] == "hesper.dev/gpu=all"
    done = hesper("list", "--folder", file.parent)
    assert done.returncode == 1, "nothing serves there"
    assert "hesper.dev/gpu=all" in done.stdout
    done = hesper("list", "--folder", tmp_path)
    assert done.stderr == (
        f"hesper: no device of Hesper's in {tmp_path}: say hesper cdi generate\n"
    )
    assert hesper("check", "/", "--driver-set", folder).stdout.startswith("/ has a Venus driver, ")
    done = hesper("check", root, "--driver-set", folder)
    assert done.returncode == 1
    assert "its glibc is too old (up to GLIBC_2.34)" in done.stderr
    assert hesper("check", tmp_path / "none").stderr == f"hesper: {tmp_path}/none: no such folder\n"


def test_generate_prints_without_a_file(tmp_path: Path) -> None:
    done = hesper("generate", "--class", f"gold={tmp_path}/gold/vtest", "--no-inject")
    content = json.loads(done.stdout)
    conforms(content)
    assert [device["name"] for device in content["devices"]] == ["class-gold"]
    assert hesper("generate", "--class", "gold").returncode != 0
    twice = hesper("generate", "--class", "gold=/a/b/v", "--class", "gold=/a/c/v", "--no-inject")
    assert twice.returncode != 0
    said = " ".join(twice.stderr.replace("│", " ").split())
    assert "class gold: it stands there twice" in said
    assert "is for more than a socket" in hesper("generate", "--socket", "/tmp/x").stderr
