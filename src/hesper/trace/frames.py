"""What a recording's reader in its sandbox and the command line say to each other.

Frames over a stream socket: 4 bytes with the size, little endian, then the bytes.  The command line
sends a request (msgpack), then each file in frames, an empty one behind it.  It gets frames whose
first byte says what they are, and takes none of it for the truth.
"""

from __future__ import annotations

import socket
import struct
import threading
from typing import Literal

import msgspec

from hesper.trace.inspect import Filter
from hesper.trace.outcome import ReplayOptions

SIZE = struct.Struct("<I")
PIECE = 1 << 20
"""Bytes of a file in one frame."""
MOST_FRAME = 320 << 20
"""More than the largest picture."""

MOST_LINE = 1 << 20
"""Bytes of a line of text; the rest is left out."""

TEXT, FILE, AT, WAITS, OUTCOME, ERROR, DONE = b"TFAWOED"
"""A line of text; a name, NUL and the bytes of a file; number and name of a command that may be
the last; what is waited for; what has come of a replay (msgpack); what is wrong; that was all."""


class Request(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is wanted."""

    what: Literal["summary", "commands", "slow", "shaders", "anonymize", "diff", "replay"]
    filter: Filter = msgspec.field(default_factory=Filter)
    is_json: bool = False
    whole: bool = False
    """Nothing is cut short."""
    replay: ReplayOptions = msgspec.field(default_factory=ReplayOptions)


class Frames:
    """Frames over a socket; sending may be done from several threads."""

    def __init__(self, sock: socket.socket) -> None:
        """Over `sock`, a connected blocking stream socket, which stays the caller's."""
        self._sock = sock
        self._sending = threading.Lock()

    def send(self, data: bytes) -> None:
        """Send one frame.  Raises `OSError`."""
        with self._sending:
            self._sock.sendall(SIZE.pack(len(data)) + data)

    def receive(self) -> bytes | None:
        """The next frame; None at the end.  Raises `OSError`; `ValueError` for a huge one."""
        head = self._exactly(SIZE.size)
        if head is None:
            return None
        (size,) = SIZE.unpack(head)
        if size > MOST_FRAME:
            raise ValueError(f"a frame of {size} bytes")
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes | None:
        parts = []
        while size:
            part = self._sock.recv(min(size, PIECE))
            if not part:
                return None
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


class FrameFile:
    """A file that comes in frames, as far as `read` is enough."""

    def __init__(self, frames: Frames) -> None:
        """It begins with the next frame."""
        self._frames = frames
        self._rest = memoryview(b"")
        self._is_over = False

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, all there are for -1; none at the end."""
        if size < 0:
            parts = []
            while part := self.read(PIECE):
                parts.append(part)
            return b"".join(parts)
        if not self._rest and not self._is_over:
            frame = self._frames.receive()
            self._is_over = not frame
            self._rest = memoryview(frame or b"")
        part = bytes(self._rest[:size])
        self._rest = self._rest[size:]
        return part
