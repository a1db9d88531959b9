"""Waiting for who connects, also where this process has no descriptor left for a while."""

from __future__ import annotations

import asyncio
import socket

from hesper.log import get_logger

PAUSE_SECONDS = 1.0
"""Until it is tried again."""

_log = get_logger(__name__)


async def accepted(listener: socket.socket) -> socket.socket:
    """Wait until somebody has connected to `listener`; returns the connection."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            sock, _ = await loop.sock_accept(listener)
        except OSError as error:
            _log.warning("nobody can connect for now", to="QEMU's sockets", reason=str(error))
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return sock
