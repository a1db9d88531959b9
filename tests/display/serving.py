"""Servers for tests, on free ports and a loop of their own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from pattern import Pattern
from vnc_client import Viewer

from hesper.display.geometry import Size
from hesper.display.rfb.server import VncServer
from hesper.display.rfb.service import RfbService
from hesper.display.scanout import Display

PATIENCE = 180.0
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
        VncServer(service, port=0, password=password, is_open=password is None) as server,
    ):
        yield service, server


def shown(width: int = 300, height: int = 200) -> tuple[Display, Pattern]:
    """A display that shows a pattern."""
    display = Display()
    pattern = Pattern(Size(width, height))
    pattern.show_on(display[0])
    return display, pattern


async def until_equal(viewer: Viewer, pattern: Pattern) -> None:
    """Ask for updates until the viewer has the pattern."""
    while not np.array_equal(viewer.pixels, pattern.pixels):
        viewer.request()
        await viewer.update()


async def is_closed(viewer: Viewer) -> bool:
    """Read what is left; true when the server ended the connection."""
    with contextlib.suppress(ConnectionError):
        await viewer.reader.read()
    return True
