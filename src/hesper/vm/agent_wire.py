"""What the guest's agent and the host say to each other: SPICE's agent protocol.

Source: `vd_agent.h` of spice-protocol.  A stream of chunks carries a stream of messages; a message
may lie in several chunks.  The guest is hostile: what is too long is skipped, and who sends without
end is read slowly.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from hesper.display.clipboard import MAX_TEXT
from hesper.display.rfb.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hesper.display.geometry import Size

PORT_NAME = "com.redhat.spice.0"
"""What the agent looks for among the guest's serial ports."""
CLIENT_PORT = 1
"""`VDP_CLIENT_PORT`: chunks of others are nothing to us."""
PROTOCOL = 1
MAX_CHUNK = 2048
"""`VD_AGENT_MAX_DATA_SIZE`: bytes of a chunk that is sent; of those that come any number."""
MAX_MESSAGE = MAX_TEXT + 64
"""Bytes after a message's header that are kept; a longer one is skipped."""
READ_RATE = 8 << 20
READ_BURST = 4 << 20
READ_COST = 2048
"""Of a guest that sends without end we take that many bytes a second, each read counting as these
more, so that it costs a few percent of a processor."""
_PIECE = 1 << 14
_DEPTH = 32
_HAVE_PLACES = 1
"""`VD_AGENT_CONFIG_MONITORS_FLAG_USE_POS`."""
_CHUNK = struct.Struct("<II")
_MESSAGE = struct.Struct("<IIQI")


class Kind(IntEnum):
    """Messages that concern the clipboard, and the screens' sizes."""

    MONITORS_CONFIG = 2
    CLIPBOARD = 4
    ANNOUNCE_CAPABILITIES = 6
    GRAB = 7
    REQUEST = 8
    RELEASE = 9


class Capability(IntEnum):
    """What either side can do, by bit."""

    MONITORS_CONFIG = 1
    BY_DEMAND = 5
    SELECTION = 6
    LINES_END_IN_CRLF = 9
    NO_RELEASE_ON_REGRAB = 16


TEXT = 1
"""`VD_AGENT_CLIPBOARD_UTF8_TEXT`; 0 is nothing."""
SELECTION_CLIPBOARD = 0
"""The selection that menus copy to; what a mouse has marked is another, which stays the guest's."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message: `VDAgentMessage`."""

    kind: int
    data: bytes
    """Empty where it was too long."""


class MessageReader:
    """Reads messages out of the chunks of one connection."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        """Begin with a connection."""
        self._reader = reader
        self._left = 0
        """Bytes of the chunk that have not been read."""
        self._pace = Throttle(READ_RATE, READ_BURST)

    async def read(self) -> Message:
        """Read the next message.  Raises `EOFError` or `OSError` when the guest has gone."""
        _protocol, kind, _opaque, size = _MESSAGE.unpack(await self._take(_MESSAGE.size))
        if size > MAX_MESSAGE:
            await self._skip(size)
            return Message(kind, b"")
        return Message(kind, await self._take(size))

    async def _take(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            data += await self._some(count - len(data))
        return bytes(data)

    async def _skip(self, count: int) -> None:
        while count > 0:
            count -= len(await self._some(count))

    async def _some(self, count: int) -> bytes:
        """Read some of the messages' stream, at least a byte and `count` bytes at most."""
        while self._left == 0:
            port, size = _CHUNK.unpack(await self._read(_CHUNK.size))
            if port == CLIENT_PORT:
                self._left = size
            else:
                for start in range(0, size, _PIECE):
                    await self._read(min(size - start, _PIECE))
        data = await self._read(min(count, self._left, _PIECE))
        self._left -= len(data)
        return data

    async def _read(self, count: int) -> bytes:
        await self._pace.wait(count + READ_COST)
        return await self._reader.readexactly(count)


def encode(kind: Kind, data: bytes) -> list[bytes]:
    """Return a message in chunks."""
    stream = _MESSAGE.pack(PROTOCOL, kind, 0, len(data)) + data
    parts: list[bytes] = []
    for start in range(0, len(stream), MAX_CHUNK):
        piece = stream[start : start + MAX_CHUNK]
        parts += (_CHUNK.pack(CLIENT_PORT, len(piece)), piece)
    return parts


def capabilities(*, wants_answer: bool) -> bytes:
    """Return what an announcement of ours has in it."""
    ours = (Capability.BY_DEMAND, Capability.SELECTION, Capability.NO_RELEASE_ON_REGRAB)
    return struct.pack("<II", wants_answer, sum(1 << bit for bit in ours))


def monitors(sizes: Iterable[Size]) -> bytes:
    """Return what has the guest's screens sized so, one right of the other."""
    place = 0
    parts: list[bytes] = []
    for size in sizes:
        parts.append(struct.pack("<IIIii", size.height, size.width, _DEPTH, place, 0))
        place += size.width
    return struct.pack("<II", len(parts), _HAVE_PLACES) + b"".join(parts)


def parse_capabilities(data: bytes) -> tuple[bool, int]:
    """Return whether an announcement wants an answer, and the bits of what the agent can do.

    Raises `struct.error` for one that is cut short.
    """
    wants_answer, bits = struct.unpack_from("<II", data)
    return bool(wants_answer), bits
