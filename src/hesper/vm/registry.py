"""Machines by their names: where each listens for what it is asked, and asking it.

One line of JSON asks, one line answers.  The sockets are in a folder of this user's.
"""

from __future__ import annotations

import json
import os
import re
import socket
import stat
from collections.abc import Set
from pathlib import Path
from typing import Any

from hesper.errors import HesperError

COMMON = Path("/tmp")
"""Where users without a folder of their own for such things have one."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")
ANSWER_SECONDS = 30.0
MAX_LINE = 64 << 20
"""Bytes of an answer: a picture of each screen is in it."""
_SOCKET = ".machine"


class MachineError(HesperError):
    """There is no such machine, or it does not do what it is asked; the text says why."""


def machines_folder() -> Path:
    """Return the folder, made if it is missing.  Raises `MachineError` where it is not ours."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    usable = 0 < len(runtime) < 40 and os.access(runtime, os.W_OK)
    base = Path(runtime) / "hesper" if usable else COMMON / f"hesper-{os.getuid()}"
    folder = base / "vm"
    for each in (base, folder):
        each.mkdir(mode=0o700, exist_ok=True)
        status = each.lstat()
        if (
            not stat.S_ISDIR(status.st_mode)
            or status.st_uid != os.getuid()
            or status.st_mode & 0o022
        ):
            raise MachineError(
                f"{each} is not this user's alone: remove it, or set XDG_RUNTIME_DIR"
            )
    return folder


def socket_of(name: str) -> Path:
    """Where the machine of that name listens.  Raises `MachineError` for what is no name."""
    if not NAME.fullmatch(name):
        raise MachineError(f"{name!r} is no name: up to 40 letters, digits, and any of _.-")
    return machines_folder() / f"{name}{_SOCKET}"


def log_of(name: str) -> Path:
    """What a machine in the background has to say."""
    return socket_of(name).with_suffix(".log")


def name_for(path: Path, taken: Set[str]) -> str:
    """A name after a disk or a kernel, which is not one of those that are taken."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", path.stem).strip("-_.")[:32] or "machine"
    tries = (plain if number == 1 else f"{plain}-{number}" for number in range(1, len(taken) + 2))
    return next(each for each in tries if each not in taken)


def names() -> list[str]:
    """Names of the machines that run, in order."""
    found = []
    for path in machines_folder().glob(f"*{_SOCKET}"):
        try:
            _connect(path).close()
        except OSError:
            continue
        found.append(path.name.removesuffix(_SOCKET))
    return sorted(found)


def ask(name: str, what: str, **arguments: Any) -> dict[str, Any]:
    """Ask a machine.  Raises `MachineError`."""
    try:
        with _connect(socket_of(name)) as sock, sock.makefile("rwb") as file:
            file.write(json.dumps({"ask": what, **arguments}).encode() + b"\n")
            file.flush()
            line = file.readline(MAX_LINE)
    except (FileNotFoundError, ConnectionRefusedError):
        there = ", ".join(names())
        hint = f"there are {there}" if there else "none runs"
        raise MachineError(f"no machine {name}: {hint}") from None
    except OSError as error:
        raise MachineError(f"{name} does not answer: {error}") from None
    if not line.endswith(b"\n"):
        raise MachineError(f"{name} has ended")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise MachineError(f"{name}: {answer['error']}")
    return answer


def _connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(ANSWER_SECONDS)
        sock.connect(str(path))
    except BaseException:
        sock.close()
        raise
    return sock
