"""What a container runtime calls before a container starts: `python -m hesper.containers.hook SET`.

It is a createContainer hook of the OCI's runtime specification: it runs in the container's mount
namespace, before the container's root becomes the root, and reads the container's state from
standard input.  It writes the driver manifest that the device's environment names.  A container
that cannot use the GPU does not start: one line says why, on standard error, which runc shows, and
in the system's log, since crun shows nobody what a hook says.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import syslog
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from hesper.containers.driver_set import DRIVER_FOLDER, load_set
from hesper.containers.injection import MANIFEST, InjectionError, Plan, plan
from hesper.containers.rootfs import Root
from hesper.errors import HesperError

_MOST_STATE = 16 << 20
_ODD = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading a description that is none raises."""


class HookError(HesperError):
    """A container runtime that gives the hook something else than it should."""


def container_root(state: BinaryIO) -> Root:
    """The root of the container that a runtime describes.  Raises `HookError`."""
    try:
        bundle = Path(json.loads(state.read(_MOST_STATE))["bundle"])
        config = json.loads((bundle / "config.json").read_bytes())
        folder = bundle / config["root"]["path"]
        environ = (config.get("process") or {}).get("env") or []
        return Root(folder, dict(each.partition("=")[::2] for each in environ))
    except _ODD as error:
        raise HookError(f"the runtime describes no container: {error!r}") from None


def carry_out(root: Root, planned: Plan) -> None:
    """Write what is planned into the container.  Raises `HookError` and `InjectionError`."""
    with root.folder(DRIVER_FOLDER) as folder:
        if folder is None:
            raise HookError(f"the container has no {DRIVER_FOLDER}: is the CDI file Hesper's own?")
        _write(folder, json.dumps(planned.manifest, indent=2) + "\n")
    for path, target in planned.links.items():
        parent, _, name = path.rpartition("/")
        with root.folder(parent) as folder:
            if folder is None:
                raise HookError(f"the container has no folder {parent}")
            with contextlib.suppress(OSError):
                if os.readlink(name, dir_fd=folder) == target:
                    continue  # of a start before this one
            try:
                os.symlink(target, name, dir_fd=folder)
            except OSError as error:
                raise InjectionError(f"{path} cannot be made in it: {error.strerror}") from None


def _write(folder: int, text: str) -> None:
    """Write the manifest into the container's folder of that descriptor."""
    name = PurePosixPath(MANIFEST).name
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, how, 0o644, dir_fd=folder)
        with open(fd, "w", encoding="utf-8") as file:
            os.fchmod(fd, 0o644)
            file.write(text)
    except OSError as error:
        raise HookError(
            f"{MANIFEST} cannot be written in the container: {error.strerror}"
        ) from None


def run(arguments: list[str], state: BinaryIO) -> None:
    """Give the container that `state` describes what it lacks.  Raises `HesperError`."""
    if len(arguments) != 1:
        raise HookError("say hesper.containers.hook SET")
    root = container_root(state)
    carry_out(root, plan(root, load_set(Path(arguments[0]))))


def main() -> int | str:
    """Be the hook; the exit status, or what is wrong."""
    try:
        run(sys.argv[1:], sys.stdin.buffer)
    except (HesperError, OSError) as error:
        syslog.openlog("hesper")
        syslog.syslog(syslog.LOG_ERR, str(error))
        return f"hesper: {error}"
    return 0


if __name__ == "__main__":
    sys.exit(main())
