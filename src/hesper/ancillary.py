"""Descriptors on Unix sockets, without waiting.

`socket.send_fds` and `socket.recv_fds` take flags and ignore them.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence

from hesper.portable import close_apart

_INT = array.array("i").itemsize
_MOST = 253
"""Descriptors that a message can have, on Linux: with less room, the system would close the others
while it hands the message over, which may take long (`portable.letting_go`)."""
_RECEIVE_FLAGS: int = socket.MSG_DONTWAIT | getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def receive(sock: socket.socket, size: int, fds: list[int], max_fds: int) -> bytes:
    """Receive up to `size` bytes without waiting, and add descriptors to `fds`.

    `fds` never holds more than `max_fds`; none of them is inherited by a child.  Returns nothing
    at the end of the stream.  Raises `BlockingIOError`, `ConnectionError` for too many
    descriptors, which are closed, and `OSError`.
    """
    room = socket.CMSG_SPACE(_MOST * _INT)
    data, ancillary, flags, _ = sock.recvmsg(size, room, _RECEIVE_FLAGS)
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            new = array.array("i", payload[: len(payload) - len(payload) % _INT])
            for fd in new:
                os.set_inheritable(fd, False)
            fds += new
    if flags & socket.MSG_CTRUNC or len(fds) > max_fds:
        while len(fds) > max_fds:
            close_apart(fds.pop())
        raise ConnectionError(f"more than {max_fds} descriptors came")
    return data


def send(sock: socket.socket, data: bytes | memoryview, fds: Sequence[int], flags: int = 0) -> int:
    """Send `data` and descriptors; returns how many bytes went, with which all `fds` did.

    Raises `BlockingIOError` if `flags` say so, and `OSError`.
    """
    if not fds:
        return sock.send(data, flags)
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())
    return sock.sendmsg([data], [rights], flags)
