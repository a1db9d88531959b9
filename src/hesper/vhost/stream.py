"""vhost-user messages on a stream socket, without blocking on a half-sent one."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import Struct

from hesper import ancillary
from hesper.vhost.wire import HEADER, MAX_FDS, MAX_PAYLOAD, Flag


class FrontendError(Exception):
    """The front-end sent what the protocol does not allow; the connection ends."""


@dataclass(slots=True)
class Message:
    """One message, and the descriptors that came with it."""

    request: int
    flags: int
    payload: bytes
    fds: list[int] = field(default_factory=list)
    """Owned by the message; whoever keeps one takes it out with `take_fd`."""

    def unpack(self, struct: Struct, *, more: bool = False) -> tuple[int, ...]:
        """Unpack the payload; with `more` its head.  Raises `FrontendError` for a wrong size."""
        size = struct.size
        if len(self.payload) < size or (len(self.payload) > size and not more):
            raise FrontendError(
                f"request {self.request}: payload of {len(self.payload)} bytes, not {size}"
            )
        return struct.unpack_from(self.payload)

    def take_fd(self) -> int:
        """Hand over the next descriptor; -1 when there is none."""
        return self.fds.pop(0) if self.fds else -1

    def take_socket(self) -> socket.socket:
        """Hand over the next descriptor, a connected stream socket.

        Raises `ValueError`, the descriptor closed, where it is none.
        """
        fd = self.take_fd()
        if fd < 0:
            raise ValueError("no descriptor came")
        try:
            sock = socket.socket(fileno=fd)
        except OSError as error:
            os.close(fd)
            raise ValueError(f"no socket: {error.strerror}") from error
        try:
            if sock.type != socket.SOCK_STREAM:
                raise ValueError("no stream socket")
            sock.getpeername()
        except OSError as error:
            sock.close()
            raise ValueError(f"no connection: {error.strerror}") from error
        except ValueError:
            sock.close()
            raise
        return sock

    def close(self) -> None:
        """Close the descriptors that nobody has taken."""
        while self.fds:
            os.close(self.fds.pop())


class MessageStream:
    """Reads and writes messages.  The socket is owned and closed by `close`.

    Reading never blocks.  Writing does: messages are shorter than any socket buffer.
    """

    def __init__(self, sock: socket.socket) -> None:
        """Take over a connected stream socket."""
        sock.setblocking(True)
        self._socket = sock
        self._data = bytearray()
        self._fds: list[int] = []

    def fileno(self) -> int:
        """Descriptor to poll."""
        return self._socket.fileno()

    def receive(self) -> Message | None:
        """Return the next message; None when it has not come in full yet.

        Raises `ConnectionError` at the end of the stream and for what is no vhost-user message.
        """
        if not self._fill(HEADER.size):
            return None
        request, flags, size = HEADER.unpack_from(self._data)
        if flags & Flag.VERSION_MASK != Flag.VERSION or size > MAX_PAYLOAD:
            raise ConnectionError(
                f"not a vhost-user message: request {request}, flags {flags:#x}, size {size}"
            )
        if not self._fill(HEADER.size + size):
            return None
        message = Message(request, flags, bytes(self._data[HEADER.size :]), self._fds)
        self._data = bytearray()
        self._fds = []
        return message

    def _fill(self, size: int) -> bool:
        """Read until `size` bytes of the message are there; False when they are not yet."""
        while len(self._data) < size:
            try:
                chunk = ancillary.receive(self._socket, size - len(self._data), self._fds, MAX_FDS)
            except BlockingIOError:
                return False
            if not chunk:
                raise ConnectionError("the front-end has closed the connection")
            self._data += chunk
        return True

    def send(self, request: int, flags: int, payload: bytes, fds: Sequence[int] = ()) -> None:
        """Send one message; the descriptors stay the caller's.  Raises `OSError`."""
        self.write(HEADER.pack(request, flags | Flag.VERSION, len(payload)) + payload, fds)

    def write(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send a part of a message; the descriptors stay the caller's.  Raises `OSError`."""
        sent = ancillary.send(self._socket, data, fds)
        if sent < len(data):
            self._socket.sendall(data[sent:])

    def write_byte(self, byte: bytes, fds: Sequence[int] = ()) -> bool:
        """Send one byte of a message if there is room for it.  Raises `OSError`."""
        try:
            return ancillary.send(self._socket, byte, fds, socket.MSG_DONTWAIT) == 1
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Close the socket and what came with a message that was not read to its end."""
        while self._fds:
            os.close(self._fds.pop())
        self._socket.close()
