"""A service for tests: does what its client says, a word a line, and answers each line."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from typing import Any

from hesper.errors import StartError
from hesper.isolation.service import ClientError, Hearer
from hesper.log import get_logger
from hesper.sandbox.system import call


def _pid() -> int:
    """Its number as others see it, not as its namespace does."""
    return int(os.readlink("/proc/self"))


def prepare(options: dict[str, Any]) -> EchoService:
    start = options.get("start")
    if start == "fail":
        raise StartError("there is no driver")
    if start == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if start == "bug":
        raise KeyError("a mistake")
    if start == "never in the background" and threading.current_thread().name == "background":
        threading.Event().wait()
    count = options.get("count", 0)
    if start == "crash later" and count:
        os._exit(3)
    if start == "never again" and count:
        threading.Event().wait()
    return EchoService({**options, "count": count + 1})


class EchoService:
    refusal = "refused"

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.about = {"driver": "echo", "count": options["count"]}
        if options.get("start") == "lie":
            self.about = 0.5  # type: ignore[assignment]
        self._sock: socket.socket | None = None
        self._stopped = False
        self._eaten: list[bytes] = []

    def warm_up(self) -> None:
        pass

    def limit(self, limits: dict[str, int]) -> None:
        pass

    def stop(self) -> None:
        self._stopped = True
        if self._sock is not None:
            with contextlib.suppress(OSError):  # it may be over already
                self._sock.shutdown(socket.SHUT_RDWR)

    def serve(self, sock: socket.socket, hear: Hearer) -> None:
        self._sock = sock
        if self._stopped:
            self.stop()
        with sock, sock.makefile("r") as lines:
            for line in lines:
                self._do(line.strip(), hear)
                sock.sendall(f"{_pid()} {self.options['count']}\n".encode())

    def _do(self, line: str, hear: Hearer) -> None:
        word, _, rest = line.partition(" ")
        if word in {"name", "shaders"}:
            hear.named(rest if word == "name" else _shaders(rest))
        elif word == "end":
            hear.ended(rest)
        elif word == "fault":
            raise ClientError(rest)
        elif word == "bug":
            raise KeyError(rest)
        elif word == "descriptors":
            hear.named(" ".join(sorted(os.listdir("/proc/self/fd"), key=int)))
        elif word == "signal":
            os.kill(os.getpid(), getattr(signal, rest))
        elif word == "call":
            with contextlib.suppress(OSError):
                call(rest)
        elif word == "eat":
            self._eaten.append(b"x" * int(rest))
        elif word == "hang":
            threading.Event().wait()
        else:
            _write(word, rest)
            _attack(word, rest)


def _shaders(rest: str) -> str:
    """Where its driver would keep shaders; or what comes of writing, reading or listing there."""
    folder = os.environ["MESA_SHADER_CACHE_DIR"]
    what, _, name = rest.partition(" ")
    path = os.path.join(folder, name)
    try:
        if what == "write":
            with open(path, "w", encoding="ascii") as file:
                file.write("forged")
        elif what == "fill":
            with open(path, "wb") as file:
                file.write(bytes(1 << 20))
        elif what == "read":
            with open(path, encoding="ascii") as file:
                return file.read()
        elif what == "list":
            return " ".join(sorted(os.listdir(path))) or "nothing"
        elif what == "remove":
            os.rmdir(path)
    except OSError as error:
        return type(error).__name__
    return folder


def _write(word: str, rest: str) -> None:
    """Write to the log, or where a driver writes."""
    if word == "log":
        get_logger("echo").warning(rest, number=7)
    elif word == "flood":
        for number in range(int(rest)):
            get_logger("echo").warning("flooded", number=number)
    elif word == "write":
        os.write(2, rest.encode("latin-1") + b"\n")
    elif word == "write-numbers":
        with open(2, "wb", closefd=False) as file:  # all of it, whoever interrupts
            file.write(b"".join(b"%d\n" % number for number in range(int(rest))))


def _attack(word: str, rest: str) -> None:
    """Do to the supervisor what a worker would that a guest has taken over."""
    if word not in {"mute", "say", "send"}:
        return
    with socket.socket(fileno=os.dup(int(sys.argv[1]))) as control:
        if word == "send":
            control.sendall(rest.encode() + b"\n")
            return
        if word == "mute":
            control.shutdown(socket.SHUT_WR)
        else:
            control.sendall(rest.encode() * 100_000 + b"\n")
    threading.Event().wait()
