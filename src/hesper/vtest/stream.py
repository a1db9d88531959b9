"""A client's socket: exact reads in one system call each, replies, descriptors."""

from __future__ import annotations

import socket
from socket import MSG_PEEK, MSG_WAITALL

from hesper.vtest.wire import HEADER

_CAPACITY = 64 << 10


class TruncatedError(Exception):
    """The stream ended in the middle of a message."""


class Stream:
    """A blocking stream socket that brings messages: a header, then data.

    Nothing is read ahead, and the last byte of a command that wants an answer stays in the socket
    until the command is served: Mesa's client takes the end of the stream for an empty read and
    tries again for ever, but where bytes of its own are lost it gets ECONNRESET and gives up.

    A client writes a message in many small pieces; a read waits in the kernel for its last byte
    (MSG_WAITALL) instead of coming back for each piece.
    """

    def __init__(self, sock: socket.socket) -> None:
        """Read from and write to `sock`, which the caller keeps open and closes."""
        self._sock = sock
        self._buffer = memoryview(bytearray(_CAPACITY))
        self._held = 0

    def header(self) -> tuple[int, int] | None:
        """Return the next header, (length, command); None when the client has left before it.

        Raises `TruncatedError` and `OSError`.
        """
        held, self._held = self._held, 0
        size = held + HEADER.size
        have = self._fill(self._buffer, size)
        if have <= held:
            return None
        if have < size:
            raise TruncatedError(f"the client left after {have - held} of {HEADER.size} bytes")
        length, command = HEADER.unpack_from(self._buffer, held)
        return length, command

    def data(self, size: int, *, hold: bool) -> memoryview:
        """Return the `size` bytes behind a header; they are valid until the next read.

        hold: leave the last byte in the socket until the next header is read.
        Raises `TruncatedError` and `OSError`.
        """
        target = self._buffer if size <= _CAPACITY else memoryview(bytearray(size))
        hold = hold and size > 0
        have = self._fill(target, size - hold)
        if have == size - hold and hold:
            have += self._sock.recv_into(target[have:size], 1, MSG_PEEK)
        if have < size:
            raise TruncatedError(f"the client left after {have} of {size} bytes")
        self._held = int(hold)
        return target[:size]

    def _fill(self, target: memoryview, size: int) -> int:
        """Receive `size` bytes, or what comes before the end of the stream; return how many."""
        have = 0
        while have < size:
            count = self._sock.recv_into(target[have:size], 0, MSG_WAITALL)
            if not count:
                break
            have += count
        return have

    def send(self, data: bytes) -> None:
        """Send a reply."""
        self._sock.sendall(data)

    def send_with_fd(self, data: bytes, fd: int) -> None:
        """Send a reply and then a descriptor (a copy), on a byte of its own.

        Clients read the reply with plain read(2), which would drop a descriptor attached to it.
        """
        self._sock.sendall(data)
        socket.send_fds(self._sock, [b"\0"], [fd])
