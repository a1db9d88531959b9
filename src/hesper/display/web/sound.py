"""The guest's sound, to a page that has switched it on."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from hesper.display.web.socket import STALL_SECONDS, close, drain
from hesper.log import get_logger

if TYPE_CHECKING:
    from aiohttp import web

    from hesper.display.sound import SoundSource

_log = get_logger(__name__)


async def play(
    socket: web.WebSocketResponse, transport: asyncio.Transport, source: SoundSource
) -> None:
    """Send what is played, in binary messages, until the page or the guest has gone."""
    sending = asyncio.create_task(_send(socket, source))
    leaving = asyncio.create_task(drain(socket))
    try:
        await asyncio.wait([sending, leaving], return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
    except (ConnectionError, TimeoutError):
        transport.abort()  # the page was closed, or takes nothing
    except OSError as error:
        _log.warning("the guest's sound cannot be heard", reason=str(error))
    finally:
        for task in (sending, leaving):
            task.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)
        with contextlib.suppress(ConnectionError):
            await close(socket, transport)


async def _send(socket: web.WebSocketResponse, source: SoundSource) -> None:
    async with source() as pieces:
        async for piece in pieces:
            async with asyncio.timeout(STALL_SECONDS):
                await socket.send_bytes(piece)
