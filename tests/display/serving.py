"""Servers for tests, on free ports and a loop of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from hesper.display.rfb.server import VncServer
from hesper.display.rfb.service import RfbService
from hesper.display.scanout import Display

PATIENCE = 60.0
"""Seconds after which something that was waited for will not come."""


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run to the end, but not for ever."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await coroutine

    asyncio.run(bounded())


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition that another task or thread brings about."""
    while not condition():
        await asyncio.sleep(0.005)


@asynccontextmanager
async def serve(
    display: Display, password: str | None = None, frames_per_second: float = 1000.0
) -> AsyncIterator[tuple[RfbService, VncServer]]:
    """Serve `display` by VNC."""
    async with (
        RfbService(display, frames_per_second) as service,
        VncServer(service, port=0, password=password) as server,
    ):
        yield service, server
