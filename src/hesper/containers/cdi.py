"""CDI: how a container runtime adds a GPU of Hesper's to a container, as a file it reads.

Source: the Container Device Interface's specification, SPEC.md of version 1.1.0.  What is written
needs its version 0.4.0, which is what the file says: runtimes refuse what is newer than they are.

A device is a server's socket.  `hesper.dev/gpu=all` is the server of a machine; `class-NAME` is
another, with limits of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import stat
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import elftools

import hesper
from hesper.api.client import client_environment
from hesper.containers.driver_set import DRIVER_FOLDER, DriverSet
from hesper.containers.injection import HOST_FOLDER, MANIFEST
from hesper.errors import HesperError

KIND = "hesper.dev/gpu"
VERSION = "0.4.0"
"""The oldest that has a mount's type."""

ALL = "all"
CLASS_PREFIX = "class-"

SPEC_FOLDERS = ("/etc/cdi", "/var/run/cdi")
"""Where runtimes look for such files; the second is for those that a machine's start removes."""

SOCKET_FOLDER = "/run/hesper"
"""In the container: the folder of the server's socket."""

IMAGE_DRIVERS = "virtio*"
"""Mesa's Venus among the manifests of an image: distributions give it different names."""

_CLASS = re.compile(r"[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?")
_HOOK_SECONDS = 20
_CONNECT_SECONDS = 2.0


class CdiError(HesperError):
    """A device that cannot be given to containers, or a file of such that cannot be used."""


@dataclass(frozen=True)
class CdiDevice:
    """A device of Hesper's that container runtimes find."""

    name: str
    """As `--device` takes it: `hesper.dev/gpu=all`."""
    socket: str
    """Of the server, on this machine."""
    injects: bool
    """Whether images without a Venus driver get this machine's."""
    is_served: bool
    """Whether a server answers there."""
    file: str


def device_name(name: str) -> str:
    """The name by which `--device` takes a device of ours."""
    return f"{KIND}={name}"


def specification(
    server: Path | None, classes: Mapping[str, Path], found: DriverSet | None
) -> dict[str, Any]:
    """The file for a server's socket, and those of classes by name.

    found: what images without a Venus driver get; without it they have to have one.  Raises
    `CdiError`.
    """
    sockets = {ALL: server} if server is not None else {}
    for name, path in classes.items():
        if not _CLASS.fullmatch(name):
            raise CdiError(
                f"{name!r} is no name of a class: it must be up to 50 small letters, digits and"
                " dashes, with no dash at an end"
            )
        sockets[CLASS_PREFIX + name] = path
    if not sockets:
        raise CdiError("no device: name the socket of a server (--socket), or of a class (--class)")
    _check_folders(sockets)
    devices = [{"name": n, "containerEdits": _edits(p)} for n, p in sockets.items()]
    edits = _injecting(found) if found else {"env": _environment(None)}
    return {"cdiVersion": VERSION, "kind": KIND, "devices": devices, "containerEdits": edits}


def write(content: Mapping[str, Any], path: Path) -> None:
    """Write a specification, whole or not at all; its folder is made.  Raises `CdiError`."""
    if path.suffix != ".json":
        raise CdiError(f"{path}: runtimes read this as JSON only from a file that ends in .json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Runtimes watch the folder, and would read a half-written file that ends in .json.
        fd, temporary = tempfile.mkstemp(prefix=".hesper-", dir=path.parent)
        with open(fd, "w", encoding="utf-8") as file:
            os.fchmod(fd, 0o644)
            file.write(json.dumps(content, indent=2) + "\n")
        os.replace(temporary, path)
    except OSError as error:
        raise CdiError(f"{path}: cannot be written: {error.strerror}") from None


def hook_places() -> list[Path]:
    """What the hook is made of: this Python, and then Hesper and the library that it wants."""
    return [Path(sys.executable), Path(hesper.__file__).parent, Path(elftools.__file__).parent]


def changeable(places: Iterable[Path], owner: int = 0) -> list[Path]:
    """Of each place, the nearest file or folder on the way to it that others can change, if any.

    owner: the user who may, besides root.
    """
    found = {}
    for place in places:
        for way in (place.absolute(), place.resolve()):
            for each in (way, *way.parents):
                if _is_changeable(each.lstat(), {0, owner}):
                    found[each] = True
                    break
    return list(found)


def _is_changeable(status: os.stat_result, trusted: set[int]) -> bool:
    """Whether others than the trusted users can change a file, or what is in a folder by name."""
    if status.st_uid not in trusted:
        return True
    if stat.S_ISLNK(status.st_mode) or status.st_mode & stat.S_ISVTX:
        return False
    by_group = status.st_mode & stat.S_IWGRP and status.st_gid not in trusted
    return bool(status.st_mode & stat.S_IWOTH or by_group)


def devices(folders: Iterable[Path]) -> list[CdiDevice]:
    """The devices of our kind in `folders`; where two files have one, the later folder's counts.

    Raises `CdiError` for a file of ours that cannot be used.
    """
    found: dict[str, CdiDevice] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.json")):
            found |= {device.name: device for device in _read(path)}
    return list(found.values())


def answers(path: str | Path) -> bool:
    """Whether a server takes connections on a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_CONNECT_SECONDS)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def _read(path: Path) -> list[CdiDevice]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("kind") != KIND:
            return []
        injects = "hooks" in content.get("containerEdits", {})
        rows = []
        for device in content["devices"]:
            host = str(device["containerEdits"]["mounts"][0]["hostPath"])
            env = dict(each.split("=", 1) for each in device["containerEdits"]["env"])
            server = f"{host}/{Path(env['VTEST_SOCKET_NAME']).name}"
            name = device_name(str(device["name"]))
            rows.append(CdiDevice(name, server, injects, answers(server), str(path)))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise CdiError(f"{path}: no CDI file of Hesper's: {error!r}") from None
    return rows


def _check_folders(sockets: Mapping[str, Path]) -> None:
    """Raise `CdiError` unless each socket has a folder of its own."""
    homes: dict[Path, Path] = {}
    for path in map(Path.absolute, sockets.values()):
        folder = path.parent
        shared = len(folder.parts) < 3
        with contextlib.suppress(OSError):  # the server will make it
            shared |= bool(folder.stat().st_mode & stat.S_IWOTH)
        if shared:
            raise CdiError(
                f"{path}: the folder {folder} is for more than a socket, and containers get all of"
                " the folder: serve in one that is for the socket alone, as"
                " /run/hesper/all/vtest"
            )
        if homes.setdefault(folder, path) != path:
            raise CdiError(
                f"{path} and {homes[folder]} share a folder: containers that get one would reach"
                " the other as well"
            )


def _edits(path: Path) -> dict[str, Any]:
    """What a container gets to reach the server on `path`."""
    mount = {
        "hostPath": str(path.absolute().parent),
        "containerPath": SOCKET_FOLDER,
        "options": ["ro", "nosuid", "nodev", "noexec", "bind"],
    }
    return {"env": [f"VTEST_SOCKET_NAME={SOCKET_FOLDER}/{path.name}"], "mounts": [mount]}


def _environment(manifest: str | None) -> list[str]:
    """The variables that have nothing to do with which server it is.

    manifest: of the driver, in the container; without it, one of the image's that the loader finds.
    """
    variables = client_environment(Path(manifest or "/"), SOCKET_FOLDER, {})
    del variables["VTEST_SOCKET_NAME"]
    if manifest is None:
        # Naming files that may not be there has the loader complain of each, in every program.
        del variables["VK_DRIVER_FILES"], variables["VK_ICD_FILENAMES"]
        variables["VK_LOADER_DRIVERS_SELECT"] = IMAGE_DRIVERS
    return [f"{name}={value}" for name, value in variables.items()]


def _injecting(found: DriverSet) -> dict[str, Any]:
    """What a container gets besides, where images may lack a Venus driver."""
    host = {
        "hostPath": found.folder,
        "containerPath": HOST_FOLDER,
        "options": ["ro", "nosuid", "nodev", "bind"],
    }
    filled = {
        "hostPath": "tmpfs",
        "containerPath": DRIVER_FOLDER,
        "type": "tmpfs",
        "options": ["nosuid", "nodev", "noexec", "mode=0755", "size=256k"],
    }
    # They may lie where this Python does not look by itself.
    folders = dict.fromkeys(str(each.absolute().parent) for each in hook_places()[1:])
    hook = {
        "hookName": "createContainer",
        "path": sys.executable,
        "args": [sys.executable, "-s", "-P", "-m", "hesper.containers.hook", found.folder],
        "env": [f"PYTHONPATH={os.pathsep.join(folders)}"],
        "timeout": _HOOK_SECONDS,
    }
    return {"env": _environment(MANIFEST), "mounts": [host, filled], "hooks": [hook]}
