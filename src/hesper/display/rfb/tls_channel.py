"""A viewer's channel inside TLS, which RFB begins in the middle of a connection."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING

from hesper.display.rfb.channel import CLOSE_SECONDS
from hesper.display.rfb.wire import RfbError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hesper.display.rfb.channel import Channel

RECORD_HEADER = 5
"""Type, version and length of a TLS record, RFC 8446 section 5.1."""
RECORD_TYPES = range(20, 24)
RECORD_MAJOR = 3
MAX_RECORD = (1 << 14) + 2048
"""Bytes after the header, of TLS 1.2; those of TLS 1.3 are shorter."""
PIECE = 1 << 16
"""Bytes that are given to TLS, or taken from it, at a time."""
FLUSH_BYTES = 1 << 18
"""Encrypted bytes that are made before they are sent."""


class TlsChannel:
    """A `Channel` over another, of which it reads whole TLS records.

    What a viewer sends too early thus is read as TLS, and can be nothing else.
    """

    def __init__(self, channel: Channel, context: ssl.SSLContext) -> None:
        """Take over `channel`; `handshake` comes first."""
        self.name = channel.name
        self._channel = channel
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def handshake(self) -> None:
        """Agree on keys.  Raises `RfbError`, `EOFError` or `OSError`."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._fill()
            except ssl.SSLError as error:
                await self._flush()  # TLS says what it does not like
                raise RfbError(f"no TLS: {error.reason}") from error
            else:
                await self._flush()
                return

    async def read(self, count: int) -> bytes:
        """See `Channel.read`; what breaks TLS is an `RfbError`."""
        data = bytearray()
        while len(data) < count:
            try:
                piece = self._tls.read(min(count - len(data), PIECE))
            except ssl.SSLWantReadError:
                await self._fill()
                continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                raise EOFError("TLS closed") from None
            except ssl.SSLError as error:
                raise RfbError(f"broken TLS: {error.reason}") from error
            if not piece:
                raise EOFError("TLS closed")
            data += piece
        return bytes(data)

    async def write(self, parts: Iterable[bytes]) -> None:
        """See `Channel.write`.  One task may write while another reads."""
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[self._tls.write(rest[:PIECE]) :]
                if self._outgoing.pending >= FLUSH_BYTES:
                    await self._flush()
        await self._flush()

    async def close(self) -> None:
        """See `Channel.close`."""
        # The other end may have yet to answer, take nothing, or have gone.
        with contextlib.suppress(ssl.SSLError, ValueError):
            self._tls.unwrap()
        with contextlib.suppress(OSError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._flush()
        await self._channel.close()

    async def _fill(self) -> None:
        """Take one record."""
        await self._flush()
        header = await self._channel.read(RECORD_HEADER)
        length = int.from_bytes(header[3:])
        if header[0] not in RECORD_TYPES or header[1] != RECORD_MAJOR or length > MAX_RECORD:
            raise RfbError("no TLS: that is no record")
        body = await self._channel.read(length)
        self._incoming.write(header + body)

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._channel.write([self._outgoing.read()])
