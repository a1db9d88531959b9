"""A client's socket: exact reads with one system call where possible, replies, descriptors."""

from __future__ import annotations

import socket
from socket import MSG_WAITALL

_CAPACITY = 64 << 10


class TruncatedError(Exception):
    """The stream ended in the middle of a message."""


class Stream:
    """A blocking stream socket, read through a buffer.

    Clients write a message in many small pieces, so a read that has begun waits in the kernel
    for its last byte (MSG_WAITALL) instead of coming back for each piece.
    """

    def __init__(self, sock: socket.socket) -> None:
        """Read from and write to `sock`, which the caller keeps open and closes."""
        self._sock = sock
        self._buffer = memoryview(bytearray(_CAPACITY))
        self._start = 0
        self._end = 0

    def read(self, size: int) -> memoryview | None:
        """Return exactly `size` bytes, valid until the next read; None at the end of the stream.

        Raises `TruncatedError` when the stream ends after the first of them, and `OSError`.
        """
        start = self._start
        have = self._end - start
        if have >= size:
            self._start = start + size
            return self._buffer[start : start + size]
        if size > _CAPACITY:
            target = memoryview(bytearray(size))
            target[:have] = self._buffer[start : self._end]
            self._start = self._end = 0
            return target if self._fill(target, have, size, exact=True) == size else None
        if have:
            self._buffer[:have] = self._buffer[start : self._end]
        self._start = self._end = 0
        end = self._fill(self._buffer, have, size, exact=have > 0)
        if not end:
            return None
        self._start, self._end = size, end
        return self._buffer[:size]

    def read_rest(self, size: int) -> memoryview:
        """Like `read`, inside a message: the end of the stream raises `TruncatedError`."""
        data = self.read(size)
        if data is None:
            raise TruncatedError(f"the client left with {size} bytes to come")
        return data

    def _fill(self, target: memoryview, have: int, size: int, *, exact: bool) -> int:
        """Receive into `target` until it holds `size` bytes; return how many it holds.

        The first receive takes what is there, so that one call may bring several messages.
        """
        while have < size:
            if exact:
                count = self._sock.recv_into(target[have:size], 0, MSG_WAITALL)
            else:
                count = self._sock.recv_into(target[have:])
            if not count:
                if have:
                    raise TruncatedError(f"the client left after {have} of {size} bytes")
                return 0
            have += count
            exact = True
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
