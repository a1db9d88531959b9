"""A viewer's channel over a WebSocket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from hesper.display.rfb.wire import RfbError

if TYPE_CHECKING:
    from collections.abc import Iterable


class WebSocketChannel:
    """A `Channel` whose bytes come and go as binary messages of any size."""

    def __init__(self, socket: web.WebSocketResponse, name: str) -> None:
        """Take over a WebSocket that is open."""
        self.name = name
        self._socket = socket
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
        await self._socket.close()
