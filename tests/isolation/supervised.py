"""Handles a supervisor process and its clients; every wait has a bound."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hesper

HESPER = [sys.executable, "-c", "from hesper.cli import main; main()"]
"""The command `hesper`, of the package that the tests import."""
HERE = Path(__file__).parent
PATIENCE = 180.0
"""Seconds: on a busy machine all takes many times as long."""


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a condition, polling it; return what it returns."""
    end = time.monotonic() + PATIENCE
    while not (result := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)
    return result


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid: int) -> list[int]:
    """Those that live, of all its threads."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found += map(int, (task / "children").read_text().split())
    return [child for child in found if alive(child)]


def is_first(pid: int) -> bool:
    """Whether it is the first process of the workers' namespace."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/comm").read_text() == "hesper-init\n"
    return False


def first_of(listener: socket.socket, process: subprocess.Popen[bytes]) -> socket.socket | None:
    """The first connection; None where the process that is to make it has ended instead."""

    def has_come() -> bool:
        return bool(select.select([listener], [], [], 0)[0])

    until(lambda: process.poll() is not None or has_come(), "a connection")
    return listener.accept()[0] if has_come() else None


def confinement(pid: int) -> dict[str, str]:
    """What the system says of a process: its `status`."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def environment(**more: str) -> dict[str, str]:
    # The package that the tests import, installed or in the source tree.
    package = Path(hesper.__file__).parents[1]
    paths = [str(HERE), str(package), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), **more}


class Supervised:
    """A running supervisor."""

    def __init__(
        self,
        path: Path,
        command: list[str] | None = None,
        pass_fds: Sequence[int] = (),
        environ: Mapping[str, str] | None = None,
        **wanted: Any,
    ) -> None:
        self.path = path
        self.since = time.monotonic()
        arguments = [str(HERE / "supervise.py"), json.dumps({"path": str(path), **wanted})]
        self.process = subprocess.Popen(
            command or [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(**environ or {}),
            pass_fds=pass_fds,
            text=True,
        )
        self.log: list[dict[str, Any]] = []
        self.plain: list[str] = []
        self._unread: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                entry = json.loads(line)
            except ValueError:
                self.plain.append(line)
                continue
            self.log.append(entry)
            self._unread.put(entry)

    def ready(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith('{"event": "ready"'), (line, self.log, self.plain)
        about: dict[str, Any] = json.loads(line)
        return about

    def logged(self, event: str) -> dict[str, Any]:
        """Wait for the next line of that event; lines before it count as seen."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                entry = self._unread.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {event!r} in {self.log} {self.plain}") from None
            if entry["event"] == event:
                return entry

    def client(self) -> EchoClient:
        return EchoClient(self.path)

    def clients_of_another_process(self, count: int) -> list[EchoClient]:
        """Clients that another process has connected."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            code = (
                "import socket, sys\n"
                "socks = [socket.socket(socket.AF_UNIX) for _ in range(int(sys.argv[3]))]\n"
                "for sock in socks: sock.connect(sys.argv[2])\n"
                "with socket.socket(fileno=int(sys.argv[1])) as control:\n"
                "    socket.send_fds(control, [b'x'], [sock.fileno() for sock in socks])\n"
            )
            words = [sys.executable, "-c", code, str(theirs.fileno()), str(self.path), str(count)]
            subprocess.run(words, check=True, pass_fds=[theirs.fileno()])
            _, fds, _, _ = socket.recv_fds(ours, 1, count)
        return [EchoClient(socket.socket(fileno=fd)) for fd in fds]

    def children(self) -> list[int]:
        """Workers that live, be they its own children or those of a template."""
        mine = children_of(self.process.pid)
        workers = []
        for pid in mine:
            workers += children_of(pid) if pid == self.template() else [pid]
        return [pid for pid in workers if not is_first(pid)]

    def template(self) -> int:
        """The process that workers are forked from; 0 where there is none."""
        for pid in children_of(self.process.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if b"hesper.isolation.template" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        return 0

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.end()

    def end(self) -> int:
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status


class EchoClient:
    """A client of the echo service."""

    def __init__(self, where: Path | socket.socket) -> None:
        if isinstance(where, socket.socket):
            self.sock = where
        else:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            # With a time-out it would fail where a server's queue is full.
            self.sock.connect(str(where))
        self.sock.settimeout(PATIENCE)
        self._lines = self.sock.makefile("r")

    def say(self, line: str) -> None:
        self.sock.sendall(f"{line}\n".encode())

    def ask(self, line: str = "hello") -> tuple[int, int]:
        """Say something; return its worker's process id, and which start of a worker that was."""
        self.say(line)
        pid, count = self._lines.readline().split()
        return int(pid), int(count)

    def read_line(self) -> str:
        return self._lines.readline()

    def asked(self) -> bool:
        """Whether somebody serves it."""
        try:
            self.say("hello")
            line = self.read_line()
        except ConnectionError:
            return False  # it has been refused, and has lost its connection, meanwhile
        return bool(line) and not line.startswith("refused")

    def read(self) -> str:
        """The rest of what it is told."""
        return self._lines.read()

    def gone(self) -> bool:
        try:
            return self._lines.readline() == ""
        except ConnectionError:
            return True

    def close(self) -> None:
        self._lines.close()
        self.sock.close()
