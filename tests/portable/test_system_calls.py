"""Which system calls a client's session makes, and who makes them: `strace` with stacks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PATIENCE = 120
LINUX_ONLY = frozenset(
    {
        *("accept4", "close_range", "epoll_ctl", "epoll_pwait", "epoll_wait", "eventfd2"),
        *("inotify_init1", "memfd_create", "pidfd_open", "pidfd_send_signal", "pipe2", "ppoll"),
        *("sched_getaffinity", "sched_setaffinity", "sched_setscheduler", "sendmmsg"),
        *("timerfd_create", "timerfd_settime"),
    }
)
POPULATE = "MADV_POPULATE_WRITE"
"""The use of `madvise` that only Linux has."""
ELSEWHERE = re.compile(
    # Vulkan drivers.
    r"/lib(vulkan|gallium|LLVM|drm|EGL|GL)"
    # How Python starts a process, and makes a pipe on Linux; what the C library makes of `pipe`.
    r"|_posixsubprocess|:os_pipe|:_?_?pipe$"
)
OURS = re.compile(r"/(engine|server|reader|connection|pump)\.[^/]*\.so:|/(lib)?python3[^/]*:")
_CALL = re.compile(r"(\d+) +(\w+)\((.*)")
_FRAME = re.compile(r" > (\S+?)\(([^)+]*)")


@dataclass
class Call:
    """One system call, and whence."""

    name: str
    arguments: str
    stack: list[str] = field(default_factory=list)
    """File and function, the innermost first."""

    @property
    def is_linux_only(self) -> bool:
        """Whether it is of those that no other system has."""
        return self.name in LINUX_ONLY or POPULATE in self.arguments

    @property
    def is_ours(self) -> bool:
        """Whether Hesper has made it, in Python or compiled."""
        inner = next((i for i, frame in enumerate(self.stack) if OURS.search(frame)), None)
        return inner is not None and not any(map(ELSEWHERE.search, self.stack[: inner + 1]))


def calls_of(log: Path) -> list[Call]:
    """Read what strace has written."""
    calls: list[Call] = []
    for line in log.read_text(errors="replace").splitlines():
        frame = _FRAME.match(line)
        if frame is not None and calls:
            calls[-1].stack.append(f"{frame[1]}:{frame[2]}")
        elif call := _CALL.match(line):
            calls.append(Call(call[2], call[3]))
    return calls


def session(log: Path, environ: dict[str, str]) -> set[str]:
    """Have a client look at its devices through Hesper; return what of Linux's Hesper calls."""
    program = "from hesper.cli import main; main()"
    wanted = ",".join(sorted(LINUX_ONLY | {"madvise"}))
    strace = ["strace", "-f", "-k", "-q", "-o", str(log), "-e", f"trace={wanted}"]
    hesper = [sys.executable, "-c", program, "run", "--driver", "lvp", "--"]
    done = subprocess.run(
        [*strace, *hesper, "vulkaninfo", "--summary"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Virtio-GPU Venus" in done.stdout
    calls = calls_of(log)
    assert any(ELSEWHERE.search(frame) for call in calls for frame in call.stack)
    return {call.name for call in calls if call.is_linux_only and call.is_ours}


@pytest.mark.programs
def test_a_session_that_has_to_be_portable_calls_nothing_of_linux(tmp_path: Path) -> None:
    assert session(tmp_path / "log", {"HESPER_PORTABLE": "1"}) == set()


@pytest.mark.programs
def test_one_that_need_not_be_does(tmp_path: Path) -> None:
    """By which it is seen that the other test can see them."""
    found = session(tmp_path / "log", {"HESPER_PORTABLE": ""})
    assert found >= {"sendmmsg", "epoll_ctl", "accept4", "memfd_create", "pidfd_open"}
