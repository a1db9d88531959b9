"""What a process gives up that costs nothing: on Linux by prctl, elsewhere what POSIX has."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from hesper.portable import close_others, is_linux
from hesper.sandbox.system import DUMPABLE, NO_NEW_PRIVS, PTRACER, call, prctl

OOM_SCORE = 500
"""Where memory is short, a worker ends before what it works for (`proc(5)`, oom_score_adj)."""
_CAPABILITY_VERSION = 0x20080522
"""_LINUX_CAPABILITY_VERSION_3 (`linux/capability.h`)."""


def forbid_privileges() -> None:
    """No program that this process starts gets more rights than it has.  Raises `OSError`."""
    prctl(NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Give up what root may do, for this thread and what it starts.  Raises `OSError`."""
    header = _CAPABILITY_VERSION.to_bytes(4, sys.byteorder) + bytes(4)
    call("capset", header, bytes(24))


def needs_root(paths: Iterable[str]) -> bool:
    """Whether root may read those only because it is root: they are somebody's private files."""
    for path in paths:
        place = Path(path)
        for each in (place, *place.parents):
            with contextlib.suppress(OSError):
                found = each.stat()
                allowed = found.st_mode >> 6 if found.st_uid == 0 else found.st_mode
                if (not allowed & 4 and each == place) or (not allowed & 1 and each.is_dir()):
                    return True
    return False


def own_files() -> set[str]:
    """Where modules lie that may yet be imported: Hesper's, Python's, and those that are installed.

    Not all of `sys.path`: it may have the folder that a program was started in.
    """
    packages = Path(msgspec.__file__).resolve().parents[1]
    own = Path(__file__).resolve().parents[1]
    program, library = os.path.realpath(sys.executable), os.path.realpath(os.__file__)
    # NVIDIA's driver reads the program that it is in, and its libraries.
    return {str(own), str(packages), program, os.path.dirname(os.path.dirname(library))}


def forbid_cores() -> None:
    """Write no core files: they hold the guest's memory, and the driver's."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def forbid_urgency() -> None:
    """Never run before others: who may have real-time threads can stop the machine by one.

    Systems let users who make music.
    """
    for name in ("RLIMIT_RTPRIO", "RLIMIT_NICE"):
        if (limit := getattr(resource, name, None)) is not None:
            resource.setrlimit(limit, (0, 0))


def let_look(pid: int) -> None:
    """Let another process look into this one, where the system forbids that by default."""
    with contextlib.suppress(OSError):
        prctl(PTRACER, pid)


def give_up(*kept: int, hidden: bool) -> None:
    """Do all that; keep no descriptor but standard streams and those.  Raises `OSError`.

    hidden: no process of the same user may look into this one.
    """
    close_others(*kept)
    forbid_cores()
    forbid_urgency()
    if not is_linux():
        return
    with contextlib.suppress(OSError):  # where /proc is not to be had
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE), encoding="ascii")
    forbid_privileges()
    if os.geteuid() != 0 or not needs_root(own_files()):
        drop_capabilities()
    if hidden:
        prctl(DUMPABLE, 0)
