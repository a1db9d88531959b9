"""What a VNC viewer sends, while a guest draws: hand-shake, messages, encoders."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from pattern import Pattern

from fuzz.source import Source
from hesper.display.geometry import Size
from hesper.display.rfb.handshake import Access, check_password
from hesper.display.rfb.service import RfbService
from hesper.display.scanout import Display

INSTRUMENTED = ("hesper.display",)
GREETING = b"RFB 003.008\n\1\1"
QUIET = 0.002
"""Seconds without a picture after which a viewer has all that it will get."""
BOUND = 20.0


class Bytes:
    """A viewer that has sent everything, and takes what it gets.  A `rfb.channel.Channel`."""

    name = "fuzz"

    def __init__(self, data: bytes, pattern: Pattern, display: Display) -> None:
        """Let the guest draw now and then on `pattern`, which `display` shows."""
        self._data = data
        self._at = 0
        self._reads = 0
        self._writes = 0
        self._pattern = pattern
        self._display = display

    async def read(self, count: int) -> bytes:
        """See `Channel.read`."""
        self._reads += 1
        if self._reads % 8 == 0:
            self._display[0].flush(self._pattern.step(self._reads))
            await asyncio.sleep(0)
        taken = self._data[self._at : self._at + count]
        self._at += count
        if len(taken) < count:
            await self._wait()
            raise asyncio.IncompleteReadError(taken, count)
        return taken

    async def _wait(self) -> None:
        for _ in range(10):
            before = self._writes
            await asyncio.sleep(QUIET)
            if self._writes == before:
                return

    async def write(self, parts: Iterable[bytes]) -> None:
        """See `Channel.write`."""
        for part in parts:
            bytes(part)
        self._writes += 1

    async def close(self) -> None:
        """See `Channel.close`."""


def prepare() -> None:
    """Nothing takes long."""


def run_one(data: bytes) -> None:
    """Be one viewer.  Raises what a viewer should not have been able to cause."""
    source = Source(data)
    setup = source.number(1)
    size = Size(16 + source.number(1), 16 + source.number(1) % 64)
    rest = source.take(len(data))
    key = check_password("secret") if setup & 1 else None
    sent = rest if setup & 2 else GREETING + rest
    asyncio.run(_serve(sent, size, key if setup & 2 else None))


async def _serve(data: bytes, size: Size, key: bytes | None) -> None:
    failures: list[BaseException] = []

    def note(_: object, context: dict[str, object]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException):
            failures.append(error)

    asyncio.get_running_loop().set_exception_handler(note)
    display = Display()
    pattern = Pattern(size)
    pattern.show_on(display[0])
    async with asyncio.timeout(BOUND), RfbService(display, 1e6) as service:
        await service.serve(0, Bytes(data, pattern, display), Access(key), "fuzz")
    if failures:
        raise failures[0]
