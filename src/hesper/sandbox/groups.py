"""Control groups: the kernel's own bounds of memory and processes, one group a worker.

They need a part of the tree of version 2 that is ours (`cgroups(7)`): a service or scope of systemd
with `Delegate=yes`, or a container that has its tree for writing.  Where a group has members, no
controllers can be handed on to groups in it: a program takes the place of all Hesper's processes
below (`settle`), and moves nobody else.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from hesper.log import get_logger

MOUNTED = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
WANTED = ("memory", "pids")
"""Controllers."""
SETTLED = "hesper"
"""Name of the group in which Hesper's own processes are."""
CONTROL = ".control"
"""Name of the group, in one that is delegated, where systemd runs `ExecReload=` and the like."""
UNCOUNTED = 1 << 30
"""Bytes that a worker may have besides what its client is allowed: the process, and its driver."""
PROCESSES = 256
"""Threads that it may have besides: the driver's."""
_DELEGATED = ("user.delegate", "trusted.delegate")
"""What systemd marks a group with that it leaves to others."""

_log = get_logger(__name__)


@dataclass(frozen=True)
class Tree:
    """Where the system tells of groups; another one for tests."""

    mounted: Path = MOUNTED
    own: Path = OWN

    def group(self) -> Path | None:
        """The group of this process; None where there is no tree of version 2."""
        with contextlib.suppress(OSError):
            for line in self.own.read_text(encoding="utf-8", errors="replace").splitlines():
                if line.startswith("0::/") and (self.mounted / "cgroup.controllers").is_file():
                    parts = [part for part in line[3:].split("/") if part not in {"", ".."}]
                    return self.mounted.joinpath(*parts)
        return None


def obstacle(tree: Tree = Tree()) -> str:
    """Why workers cannot have groups of their own; empty where they can."""
    group = tree.group()
    if group is None:
        return "there is no tree of control groups of version 2"
    if group.name == SETTLED:
        group = group.parent
    elif not _is_ours(group, tree):
        return f"the group {_shown(group, tree)} is not delegated to Hesper"
    elif others := sorted(_members(group) - {os.getpid()}):
        return f"processes that are not Hesper's are in its group, as {others[0]}"
    missing = set(WANTED) - set(_read(group / "cgroup.controllers").split())
    if missing:
        names = " and ".join(sorted(missing))
        return f"the group {_shown(group, tree)} has no controller for {names}"
    if not all(os.access(group / name, os.W_OK) for name in ("", "cgroup.procs")):
        return f"the group {_shown(group, tree)} may not be written to"
    return ""


def leave_control(tree: Tree = Tree()) -> None:
    """Go to where the server is whose place this process takes, if `ExecReload=` has started it.

    The group of such commands is nobody's part of the tree: no worker could have a group below it.
    For programs, before they start others.
    """
    group = tree.group()
    if group is None or group.name != CONTROL or not _is_ours(group.parent, tree):
        return
    try:
        _settle_below(group.parent)
    except OSError as error:
        _log.warning("workers have no control groups", group=str(group), reason=str(error))


def settle(tree: Tree = Tree()) -> None:
    """Make room for groups of workers, by having this process in one of its own.

    For programs, before they start others.  Nothing where that is not to be had.
    """
    group = tree.group()
    if group is None or group.name == SETTLED or obstacle(tree):
        return
    try:
        _settle_below(group)
        _write(group / "cgroup.subtree_control", " ".join(f"+{name}" for name in WANTED))
    except OSError as error:
        _log.warning("workers have no control groups", group=str(group), reason=str(error))


def _settle_below(group: Path) -> None:
    """Have this process in the group for Hesper's own below that one.  Raises `OSError`."""
    (group / SETTLED).mkdir(exist_ok=True)
    _write(group / SETTLED / "cgroup.procs", os.getpid())


class Groups:
    """The groups of one supervisor's workers.  Life: made, used, `close`d."""

    def __init__(self, memory: int, threads: int, tree: Tree = Tree()) -> None:
        """memory, threads: what one client may have; nothing is done where `settle` did nothing."""
        group = tree.group()
        self._parent = None
        if group is not None and group.name == SETTLED:
            handed = set(_read(group.parent / "cgroup.subtree_control").split())
            self._parent = group.parent if handed >= set(WANTED) else None
        self._bounds = {"memory.max": memory + UNCOUNTED, "pids.max": threads + PROCESSES}
        self._groups: dict[int, Path] = {}

    @property
    def are_there(self) -> bool:
        """Whether workers have groups."""
        return self._parent is not None

    def put(self, pid: int) -> None:
        """Put a worker into a group of its own.  A failure is logged, and the worker goes on."""
        if self._parent is None or not pid:
            return
        group = self._parent / f"worker-{pid}"
        try:
            group.mkdir(exist_ok=True)
            self._groups[pid] = group
            for name, value in self._bounds.items():
                _write(group / name, value)
            _write(group / "cgroup.procs", pid)
        except OSError as error:
            if error.errno != errno.ESRCH:  # else it has ended
                _log.warning("a worker has no control group", worker=pid, reason=str(error))

    def end(self, pid: int) -> str:
        """Remove the group of a worker that has ended; say what it has died of, if of a bound."""
        group = self._groups.pop(pid, None)
        if group is None:
            return ""
        events = dict(line.split() for line in _read(group / "memory.events").splitlines())
        with contextlib.suppress(OSError):
            group.rmdir()
        if events.get("oom_kill", "0") != "0":
            return f"was killed: more than {self._bounds['memory.max']} bytes of memory"
        return ""

    def close(self) -> None:
        """Remove all groups."""
        for pid in tuple(self._groups):
            self.end(pid)


def _is_ours(group: Path, tree: Tree) -> bool:
    """Whether somebody has left it to us: systemd, or who has made the container."""
    for name in _DELEGATED:
        with contextlib.suppress(OSError, AttributeError):
            if os.getxattr(group, name) == b"1":
                return True
    # What is mounted in a container is a group; the machine's own root has no such file.
    return group == tree.mounted and (group / "cgroup.type").is_file()


def _members(group: Path) -> set[int]:
    return {int(word) for word in _read(group / "cgroup.procs").split() if word.isdecimal()}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _write(path: Path, value: int | str) -> None:
    path.write_text(f"{value}\n", encoding="ascii")


def _shown(group: Path, tree: Tree) -> str:
    return f"/{group.relative_to(tree.mounted)}".replace("/.", "/")
