"""What systemd gives a service, and wants to hear of it."""

from __future__ import annotations

import contextlib
import os
import socket

_FIRST_FD = 3


def sockets() -> tuple[list[socket.socket], list[str]]:
    """The sockets that systemd has opened for us (LISTEN_FDS), if any, and their names.

    Takes the variables out of the environment, so that no child takes them for its own.
    """
    count = os.environ.pop("LISTEN_FDS", "0")
    pid = os.environ.pop("LISTEN_PID", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return [], []
    numbers = range(_FIRST_FD, _FIRST_FD + int(count))
    for fd in numbers:
        os.set_inheritable(fd, False)
    found = [socket.socket(fileno=fd) for fd in numbers]
    return found, [*names, *[""] * len(found)][: len(found)]


def notify(state: str) -> None:
    """Tell systemd our state (`READY=1`), if it wants to know (NOTIFY_SOCKET)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.sendto(state.encode(), address)
