"""Which layers are in force on this machine, and why one is not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hesper.portable import is_linux, is_macos
from hesper.sandbox import groups, landlock, seccomp

_SYSCTL = Path("/proc/sys")
_TRY = "from hesper.sandbox import namespaces; print(namespaces.obstacle())"
_TRY_SECONDS = 30.0


@dataclass(frozen=True)
class Layer:
    """A layer of the sandbox."""

    name: str
    what: str
    """What it does, in a few words."""
    lacks: str = ""
    """Why it is not in force; empty where it is."""
    mend: str = ""
    """What to do about that."""


def layers() -> list[Layer]:
    """Look at all of them; it takes a moment."""
    if is_macos():
        return [Layer("sandbox profile", "written for macOS, and never run there")]
    if not is_linux():
        return [Layer("sandbox", "no layer but limits", "this system has none that Hesper knows")]
    checks: tuple[Callable[[], Layer], ...] = (_calls, _files, _namespaces, _groups)
    return [
        Layer("process", "no new privileges, no core files, limits, few variables"),
        *(check() for check in checks),
    ]


def _calls() -> Layer:
    return Layer("seccomp", "a list of system calls", seccomp.obstacle())


def _files() -> Layer:
    try:
        version = landlock.abi()
    except OSError as error:
        return Layer(
            "landlock",
            "few files",
            str(error),
            "Linux 5.13 or later, with landlock among what its parameter `lsm=` names",
        )
    what = f"few files (ABI {version})"
    return Layer("landlock", what if version < 4 else f"few files, no network (ABI {version})")


def _namespaces() -> Layer:
    # They are tried in a process of one thread.
    tried = subprocess.run(
        [sys.executable, "-P", "-c", _TRY],
        capture_output=True,
        text=True,
        check=False,
        timeout=_TRY_SECONDS,
        env={"PYTHONPATH": ":".join(filter(None, sys.path))},
    )
    why = tried.stdout.strip() or (tried.stderr.strip()[-200:] if tried.returncode else "")
    what = "processes, network, mounts and users of their own"
    return Layer("namespaces", what, why, _lending() if why else "")


def _groups() -> Layer:
    why = groups.obstacle()
    mend = "systemd-run --user --scope -p Delegate=yes hesper serve, or Delegate=yes in its service"
    what = "memory and threads of each worker bounded by the kernel"
    return Layer("control groups", what, why, mend if why else "")


def _lending() -> str:
    """What the system is to be told so that it lends namespaces."""
    for name, forbids, wanted in (
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("user/max_user_namespaces", "0", "10000"),
    ):
        file = _SYSCTL / name
        if file.is_file() and file.read_text(encoding="ascii").strip() == forbids:
            return f"sudo sysctl {name.replace('/', '.')}={wanted}"
    return "in a container, one that may make namespaces of users (docs: Containers)"
