"""How a viewer is connected: a TCP stream, or whatever the web page bridges."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WRITE_BUFFER = 1 << 18
"""Bytes that may wait in this process for a slow viewer before it gets no further frame."""

PORTION = 1 << 20
"""Bytes that are handed over at a time: no other thread of Python's runs while they are copied."""

CLOSE_SECONDS = 1.0
LINGER_BYTES = 1 << 18
"""What a viewer may have sent that nobody reads any more, before the connection is cut."""


class Channel(Protocol):
    """A byte stream in both directions."""

    name: str
    """Who is at the other end, for logs."""

    async def read(self, count: int) -> bytes:
        """Read exactly `count` bytes.  Raises `EOFError` or `OSError` when the viewer has gone."""

    async def write(self, parts: Iterable[bytes]) -> None:
        """Send; return when most of it has left, so that the next frame is made for a viewer.

        Raises `OSError` when the viewer has gone.
        """

    async def close(self) -> None:
        """Send what is left, unless the viewer takes its time, and end the connection."""


class StreamChannel:
    """A `Channel` over an asyncio stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take over a connection."""
        self._reader = reader
        self._writer = writer
        writer.transport.set_write_buffer_limits(high=WRITE_BUFFER)
        peer = writer.get_extra_info("peername")
        self.name = f"{peer[0]}:{peer[1]}" if peer else "local"

    async def read(self, count: int) -> bytes:
        """See `Channel.read`."""
        return await self._reader.readexactly(count)

    async def write(self, parts: Iterable[bytes]) -> None:
        """See `Channel.write`."""
        for portion in _portions(parts):
            self._writer.writelines(portion)
            await self._writer.drain()

    async def close(self) -> None:
        """See `Channel.close`.

        What the viewer has sent in the meantime is read: unread, it would have the system throw
        away what we have told the viewer last.
        """
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._linger()
                self._writer.close()
                await self._writer.wait_closed()
        except OSError:
            pass  # too slow, or gone
        finally:
            self._writer.transport.abort()

    async def _linger(self) -> None:
        if self._writer.transport.is_closing():
            return
        self._writer.write_eof()
        left = LINGER_BYTES
        while left > 0 and (data := await self._reader.read(1 << 16)):
            left -= len(data)


def _portions(parts: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Put parts together, in order, to lists of `PORTION` bytes or a few more."""
    portion: list[bytes] = []
    size = 0
    for part in parts:
        portion.append(part)
        size += len(part)
        if size >= PORTION:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion
