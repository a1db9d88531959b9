"""What the sandbox would refuse: reported, and allowed.  For new drivers.

Run as `python -m hesper.sandbox.report FD CONTROL PID`.  Over the socket FD come the descriptor by
which the kernel asks (`seccomp_unotify(2)`) and what files are allowed; over CONTROL goes a line a
call that would be refused, each once, as the worker's own log lines go (`isolation.channel`).

It is a process of its own: a worker's thread that makes such a call may hold Python's lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence

from hesper.portable import architecture, recv_message, send_message, spawn
from hesper.sandbox import seccomp
from hesper.sandbox.calls import call_name
from hesper.sandbox.process import let_look

_RECEIVE, _SEND = 0xC0502100, 0xC0182101
"""SECCOMP_IOCTL_NOTIF_RECV and _SEND (`linux/seccomp.h`)."""
_ASKED = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")
_CONTINUE = 1
_LONGEST_PATH = 4096
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Reporter:
    """The worker's side: started before the filter, given its listener after."""

    def __init__(self, control: int, pid: int) -> None:
        """Start it.  Raises `OSError`."""
        self._socket, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", "-m", __name__, str(theirs.fileno()), str(control)]
            command.append(str(pid))
            self._process: subprocess.Popen[bytes] = spawn(
                command, fds=[theirs.fileno(), control], env=dict(os.environ)
            )
        self._socket.recv(1)
        let_look(self._process.pid)

    def listen(self, listener: int, readable: Sequence[str], writable: Sequence[str]) -> None:
        """Have it answer from now on.

        readable, writable: files and folders that may be used.
        """
        files = {
            "read": list(map(os.path.realpath, readable)),
            "write": list(map(os.path.realpath, writable)),
        }
        send_message(self._socket, json.dumps(files).encode(), [listener])
        os.close(listener)


class _Listener:
    """Answers the kernel."""

    def __init__(self, control: socket.socket, pid: int, files: dict[str, list[str]]) -> None:
        self._control = control
        self._pid = pid
        self._files = files
        self._known: set[str] = set()

    def run(self, listener: int) -> None:
        """Answer until nobody is left to ask."""
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        while True:
            ((_, events),) = poll.poll()
            if not events & select.POLLIN:
                return
            with contextlib.suppress(FileNotFoundError):  # who asked is gone
                self._answer(listener)

    def _answer(self, listener: int) -> None:
        asked = bytearray(_ASKED.size)
        fcntl.ioctl(listener, _RECEIVE, asked)
        id_, _, _, number, _, _, *arguments = _ASKED.unpack(asked)
        with contextlib.suppress(OSError, ValueError):
            self._look(number, arguments)
        answer = bytearray(_ANSWER.pack(id_, 0, 0, _CONTINUE))
        fcntl.ioctl(listener, _SEND, answer)

    def _look(self, number: int, arguments: Sequence[int]) -> None:
        name = call_name(number, architecture()).split()[0]
        if name not in seccomp.PATHS:
            self._say("seccomp", seccomp.describe(number, arguments))
            return
        at = name.endswith("at")
        path = self._path(arguments[0] if at else None, arguments[1 if at else 0])
        flags = arguments[2 if at else 1] if name in {"open", "openat"} else os.O_CREAT
        writes = bool(flags & _WRITES)
        allowed = self._files["write"] + ([] if writes else self._files["read"])
        if any(path == each or path.startswith(each.rstrip("/") + "/") for each in allowed):
            return
        if os.path.lexists(path) or flags & os.O_CREAT:
            self._say("landlock", f"{'write' if writes else 'read'} {path}")

    def _path(self, folder: int | None, address: int) -> str:
        """Return the path that a call is given, without links."""
        memory = os.open(f"/proc/{self._pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # To the end of its page: the next may not be there.
            room = min(_LONGEST_PATH, _LONGEST_PATH - address % _LONGEST_PATH)
            text = os.pread(memory, room, address)
            if b"\0" not in text:
                text += os.pread(memory, _LONGEST_PATH, address + room)
        finally:
            os.close(memory)
        path = os.fsdecode(text.partition(b"\0")[0])
        if path.startswith("/proc/self"):
            path = f"/proc/{self._pid}{path.removeprefix('/proc/self')}"
        elif not path.startswith("/"):
            here = folder is None or folder & 0xFFFFFFFF == 0xFFFFFF9C  # AT_FDCWD
            start = "cwd" if here else f"fd/{folder}"
            path = os.path.join(os.readlink(f"/proc/{self._pid}/{start}"), path)
        return os.path.realpath(path)

    def _say(self, layer: str, what: str) -> None:
        if what in self._known:
            return
        self._known.add(what)
        line = {
            "is": "log",
            "level": "warning",
            "logger": "hesper.sandbox",
            "event": "the sandbox would refuse",
            "fields": {"layer": layer, "what": what},
        }
        # The worker may be in the middle of a line.
        self._control.sendall(b"\n" + json.dumps(line).encode() + b"\n")


def main() -> None:
    """Be the reporter."""
    orders, control = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    with contextlib.suppress(OSError):  # the worker is gone, or its supervisor
        orders.send(b"\0")
        message = recv_message(orders)
        if message is not None:
            text, (listener,) = message
            _Listener(control, int(sys.argv[3]), json.loads(text)).run(listener)


if __name__ == "__main__":
    main()
