"""What processes use: memory, processor time, wake-ups; of one, or of a whole tree.

Wake-ups and shares of shared pages are read from /proc where there is one, and are unknown
elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hesper.portable import process_usage

_PROC = Path("/proc")


@dataclass(frozen=True)
class MemoryUse:
    """Memory of a process, in bytes."""

    resident: int
    """All it has touched, shared pages included."""
    proportional: int
    """The same, each shared page divided by those who share it; 0 where that is unknown."""


@dataclass(frozen=True)
class Activity:
    """What processes have done so far."""

    cpu: float
    """Processor time in seconds."""
    wake_ups: int | None
    """How often threads have been put on a processor; None where that is unknown."""


def memory_use(pid: int) -> MemoryUse:
    """Memory of a running process.  Raises `ProcessLookupError`."""
    return MemoryUse(process_usage(pid).resident, _proportional(pid))


KINDS = ("heap", "shared", "files")
"""Kinds of memory, see `memory_kinds`."""


def memory_kinds(pid: int) -> dict[str, int]:
    """Resident memory of a running process in bytes, by kind.

    heap: its own, whoever in it has asked for it; shared: shared memory, which guests have mapped;
    files: libraries and the like.  Where there is no /proc, all of it counts as heap.
    Raises `ProcessLookupError`.
    """
    if not _PROC.is_dir():
        return {**dict.fromkeys(KINDS, 0), "heap": process_usage(pid).resident}
    found = dict.fromkeys(KINDS, 0)
    kind = "heap"
    try:
        text = (_PROC / str(pid) / "smaps").read_text(encoding="utf-8", errors="replace")
    except PermissionError:  # a confined worker's, for who is not root
        return {**found, "heap": process_usage(pid).resident}
    except OSError:
        raise ProcessLookupError(f"no process {pid}") from None
    for line in text.splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            kind = _kind(words[5] if len(words) > 5 else "")
        elif words[0] == "Rss:":
            found[kind] += int(words[1]) * 1024
    return found


def _kind(mapped: str) -> str:
    """The kind of memory that a mapping of that name is."""
    if mapped.startswith(("/memfd:", "/dev/shm/", "/dev/zero")):
        return "shared"
    return "files" if mapped.startswith("/") else "heap"


def activity(pids: Iterable[int]) -> Activity:
    """What the threads of some running processes have done.  Raises `ProcessLookupError`."""
    wanted = list(pids)
    if not _PROC.is_dir():
        return Activity(sum(process_usage(pid).cpu for pid in wanted), None)
    cpu, wake_ups = 0, 0
    for pid in wanted:
        for task in _tasks(pid):
            try:
                ran, _, slices = (task / "schedstat").read_text(encoding="ascii").split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # a thread that has ended meanwhile
            cpu += int(ran)
            wake_ups += int(slices)
    return Activity(cpu / 1e9, wake_ups)


def tree(root: int) -> list[int]:
    """A process and everything below it, parents first.  Empty when there is no /proc."""
    children: dict[int, list[int]] = {}
    for path in _PROC.glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [root] if children else []
    for pid in found:
        found += sorted(children.get(pid, []))
    return found


def _tasks(pid: int) -> list[Path]:
    folder = _PROC / str(pid) / "task"
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None


def _proportional(pid: int) -> int:
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    lines = (line.split() for line in text.splitlines() if line.startswith("Pss:"))
    return sum(int(fields[1]) for fields in lines) * 1024
