"""A viewer's channel over a WebSocket."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import WSCloseCode, WSMsgType, web

from hesper.display.rfb.channel import CLOSE_SECONDS
from hesper.display.rfb.wire import RfbError

if TYPE_CHECKING:
    from collections.abc import Iterable

STALL_SECONDS = 30.0
"""A page that takes nothing for so long is gone."""


class WebSocketChannel:
    """A `Channel` whose bytes come and go as binary messages of any size."""

    def __init__(
        self, socket: web.WebSocketResponse, transport: asyncio.Transport, name: str
    ) -> None:
        """Take over a WebSocket that is open, and goes over `transport`."""
        self.name = name
        self._socket = socket
        self._transport = transport
        self._received = bytearray()

    async def read(self, count: int) -> bytes:
        """See `Channel.read`; a text message is an `RfbError`."""
        while len(self._received) < count:
            message = await self._socket.receive()
            if message.type is WSMsgType.BINARY:
                self._received += message.data
            elif message.type is WSMsgType.TEXT:
                raise RfbError("text message on a WebSocket that carries RFB")
            else:
                raise EOFError("WebSocket closed")
        data = bytes(self._received[:count])
        del self._received[:count]
        return data

    async def write(self, parts: Iterable[bytes]) -> None:
        """See `Channel.write`."""
        await self._socket.send_bytes(b"".join(parts))

    async def close(self) -> None:
        """See `Channel.close`."""
        await close(self._socket, self._transport)


async def drain(socket: web.WebSocketResponse) -> None:
    """Read what a page says that has nothing to say; returns when it has gone."""
    async for _ in socket:
        pass


async def close(
    socket: web.WebSocketResponse,
    transport: asyncio.Transport,
    code: WSCloseCode = WSCloseCode.OK,
    text: str = "",
) -> None:
    """Close `socket`, and its connection even if the other end takes nothing any more."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await socket.close(code=code, message=text.encode())
    except OSError:
        pass  # too slow, or gone
    finally:
        transport.abort()
