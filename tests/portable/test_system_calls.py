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
_RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)")
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
    """Read what strace has written.

    A call that has others' between its beginning and its end is written in two parts; its stack
    follows the second.
    """
    calls: list[Call] = []
    unfinished: dict[str, Call] = {}
    last: Call | None = None
    for line in log.read_text(errors="replace").splitlines():
        if frame := _FRAME.match(line):
            if last is not None:
                last.stack.append(f"{frame[1]}:{frame[2]}")
        elif call := _CALL.match(line):
            last = Call(call[2], call[3])
            calls.append(last)
            if line.endswith("<unfinished ...>"):
                unfinished[call[1]] = last
        elif resumed := _RESUMED.match(line):
            last = unfinished.pop(resumed[1], None)
            if last is not None:
                last.arguments += resumed[2]
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


INTERLEAVED = """\
474   pipe2( <unfinished ...>
485   <... accept4 resumed>0x7f65e20e6980, [110], SOCK_CLOEXEC) = -1 EINVAL (Invalid argument)
 > /usr/lib/libc.so.6(accept4+0x58) [0x10afa8]
 > /usr/lib/python3.11/lib-dynload/_socket.so(sock_accept+0x4c) [0x4c]
 > /usr/lib/libpython3.11.so.1.0(method_vectorcall_NOARGS+0x1) [0x1]
474   <... pipe2 resumed>[15, 26], O_CLOEXEC) = 0
 > /usr/lib/libc.so.6(pipe2+0x7) [0xf8b37]
 > /usr/lib/libpython3.11.so.1.0(os_pipe+0x22) [0x2c34f2]
486   madvise(0x7f0000000000, 4096, MADV_POPULATE_WRITE) = 0
 > /usr/lib/hesper/kernel/engine.cpython-311.so(map+0x1) [0x1]
"""


def test_stacks_are_of_the_calls_that_they_follow(tmp_path: Path) -> None:
    log = tmp_path / "log"
    begun = "485   accept4(13,  <unfinished ...>\n"
    log.write_text(begun + INTERLEAVED)
    accepted, piped, advised = calls_of(log)
    assert [one.name for one in (accepted, piped, advised)] == ["accept4", "pipe2", "madvise"]
    assert "SOCK_CLOEXEC" in accepted.arguments
    assert [one.is_linux_only for one in (accepted, piped, advised)] == [True, True, True]
    assert [one.is_ours for one in (accepted, piped, advised)] == [True, False, True]
    assert [len(one.stack) for one in (accepted, piped, advised)] == [3, 2, 1]


@pytest.mark.programs
def test_a_session_that_has_to_be_portable_calls_nothing_of_linux(tmp_path: Path) -> None:
    assert session(tmp_path / "log", {"HESPER_PORTABLE": "1"}) == set()


@pytest.mark.programs
def test_one_that_need_not_be_does(tmp_path: Path) -> None:
    """By which it is seen that the other test can see them."""
    found = session(tmp_path / "log", {"HESPER_PORTABLE": ""})
    assert found >= {"sendmmsg", "epoll_ctl", "accept4", "memfd_create", "pidfd_open"}
