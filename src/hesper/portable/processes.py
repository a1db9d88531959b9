"""Processes: starting them, waiting for their end, what they use and may use."""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hesper.portable.platform import is_linux

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for sockets of our own, with a short path: theirs hold about 100 bytes."""
    import tempfile
    from pathlib import Path

    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    base = runtime if 0 < len(runtime) < 60 and os.access(runtime, os.W_OK) else "/tmp"
    with tempfile.TemporaryDirectory(prefix="hesper-", dir=base) as folder:
        yield Path(folder)


def spawn(
    argv: Sequence[str], *, fds: Sequence[int] = (), env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a program that inherits `fds` under the same numbers, and no other descriptor.

    Standard input is empty; standard output and error are shared.  It gets a process group of
    its own, so that a terminal's Ctrl-C reaches only the parent, which stops it in order.
    Raises `OSError` when the program cannot be started.
    """
    import subprocess

    return subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        pass_fds=tuple(fds),
        env=None if env is None else dict(env),
        process_group=0,
    )


def has_ended(watch: int, *, wait: bool = False) -> bool:
    """Whether the process of an `exit_watch` has ended; `wait`: wait until it has."""
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    return bool(poll.poll(None if wait else 0))


@dataclass(frozen=True)
class ProcessUsage:
    """What a process uses right now."""

    resident: int
    """Resident memory in bytes."""
    cpu: float
    """Processor time used so far, user and system, in seconds."""


def process_usage(pid: int) -> ProcessUsage:
    """Resource usage of a running process.  Raises `ProcessLookupError` when there is none."""
    return _proc_usage(pid) if is_linux() else _ps_usage(pid)


def _proc_usage(pid: int) -> ProcessUsage:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The name in parentheses may hold anything; the numbers follow the last one.
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"no process {pid}") from None
    ticks = int(fields[11]) + int(fields[12])
    return ProcessUsage(int(fields[21]) * mmap.PAGESIZE, ticks / os.sysconf("SC_CLK_TCK"))


def _ps_usage(pid: int) -> ProcessUsage:
    import subprocess

    command = ["ps", "-o", "rss=", "-o", "time=", "-p", str(pid)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    if len(answer) != 2:
        raise ProcessLookupError(f"no process {pid}")
    days, _, clock = answer[1].rpartition("-")
    seconds = 0.0
    for part in clock.split(":"):
        seconds = seconds * 60 + float(part)
    return ProcessUsage(int(answer[0]) * 1024, seconds + int(days or 0) * 86400)


def processor_ns(pid: int) -> int:
    """Nanoseconds for which processors have run a process; 0 where that is not told exactly."""
    if not is_linux() or pid <= 0:
        return 0
    try:
        # The clock of a process, as `clock_getcpuclockid(3)` has it: CPUCLOCK_SCHED.
        return time.clock_gettime_ns(~pid << 3 | 2)
    except OSError:
        return 0  # it has ended


def loaded_libraries() -> list[str]:
    """Paths of the shared libraries that this process has loaded; none where no file says so."""
    found: dict[str, None] = {}
    with contextlib.suppress(OSError), open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            path = line.split(maxsplit=5)[-1].rstrip("\n")
            if path.startswith("/") and ".so" in os.path.basename(path):
                found[path] = None
    return list(found)


def threads() -> int:
    """How many threads this process runs; only those of Python where the system does not say."""
    if is_linux():
        return len(os.listdir("/proc/self/task"))
    import threading

    return threading.active_count()


def close_others(*kept: int) -> None:
    """Close all descriptors but the standard streams and those."""
    for fd in map(int, os.listdir("/dev/fd")):
        if fd > 2 and fd not in kept:
            with contextlib.suppress(OSError):  # the one of the listing
                os.close(fd)


def raise_descriptor_limit() -> int:
    """Allow this process as many descriptors as it may have; return how many that is."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS says "unlimited" and then refuses more than OPEN_MAX.
    for wanted in (hard, 10240):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            continue
        return wanted
    return soft


def descriptor_limit() -> int:
    """How many descriptors this process may have."""
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def group_id(name: str) -> int | None:
    """Number of a group, by its name or its number; None where there is none of that name."""
    import grp

    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def user_id(name: str) -> int | None:
    """The number of a user of this system; None when there is none of that name."""
    import pwd

    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None
