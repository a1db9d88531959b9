"""What a VNC viewer sends, while a guest draws: hand-shake, VeNCrypt, messages, encoders."""

from __future__ import annotations

import asyncio
import functools
import ssl
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from pattern import Pattern

from fuzz import quick_loop
from fuzz.source import Source
from hesper.display.access.self_signed import own_certificate
from hesper.display.geometry import Size
from hesper.display.rfb.handshake import Access, check_password
from hesper.display.rfb.service import RfbService
from hesper.display.scanout import Display

INSTRUMENTED = ("hesper.display",)
GREETING = b"RFB 003.008\n\1\1"
VENCRYPT = b"RFB 003.008\n\x13\0\2\0\0\1"
"""Up to the last byte of the subtype."""
QUIET = 0.02
"""Seconds without a picture after which a viewer has all that it will get."""
BOUND = 200.0
"""The same for everything: more than all time-outs in turn."""


class Sent(Protocol):
    """What a viewer sends, of which the server takes as it likes."""

    def take(self, count: int) -> bytes:
        """Up to `count` bytes."""

    def hear(self, data: bytes) -> None:
        """Take what the server says."""


class Plain:
    """All of it is known from the beginning."""

    def __init__(self, data: bytes) -> None:
        """Send `data`."""
        self._data = data

    def take(self, count: int) -> bytes:
        """See `Sent`."""
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    def hear(self, data: bytes) -> None:
        """See `Sent`."""


class Encrypted:
    """A beginning as it stands, the rest by TLS."""

    def __init__(self, first: bytes, rest: bytes) -> None:
        """Say `first`, agree on keys, and say `rest`."""
        self._ready = first
        self._rest = rest
        self._is_first = True
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = client_context().wrap_bio(self._incoming, self._outgoing)

    def hear(self, data: bytes) -> None:
        """See `Sent`."""
        if not self._is_first:
            self._incoming.write(data)

    def take(self, count: int) -> bytes:
        """See `Sent`."""
        if not self._ready:
            self._is_first = False
            self._go_on()
        taken, self._ready = self._ready[:count], self._ready[count:]
        return taken

    def _go_on(self) -> None:
        try:
            self._tls.do_handshake()
            if self._rest:
                self._tls.write(self._rest)
                self._rest = b""
        except ssl.SSLError:
            pass  # the server has yet to answer, or wants no more
        self._ready += self._outgoing.read()


class Bytes:
    """A viewer that takes what it gets.  A `rfb.channel.Channel`."""

    name = "fuzz"

    def __init__(self, sent: Sent, pattern: Pattern, display: Display) -> None:
        """Let the guest draw now and then on `pattern`, which `display` shows."""
        self._sent = sent
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
        taken = b""
        while len(taken) < count:
            more = self._sent.take(count - len(taken))
            if not more:
                await self._wait()
                raise asyncio.IncompleteReadError(taken, count)
            taken += more
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
            self._sent.hear(bytes(part))
        self._writes += 1

    async def close(self) -> None:
        """See `Channel.close`."""


@functools.cache
def server_context() -> ssl.SSLContext:
    """What the server shows."""
    with tempfile.TemporaryDirectory() as folder:
        return own_certificate(Path(folder)).context


@functools.cache
def client_context() -> ssl.SSLContext:
    """A viewer that believes everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@functools.lru_cache(256)
def pattern_of(size: Size) -> Pattern:
    """What the guest shows, whatever it has drawn there before."""
    return Pattern(size)


def prepare() -> None:
    """Make a certificate."""
    server_context()


def run_one(data: bytes) -> None:
    """Be one viewer.  Raises what a viewer should not have been able to cause."""
    source = Source(data)
    setup = source.number(1)
    size = Size(16 + source.number(1), 16 + source.number(1) % 64)
    rest = source.take(len(data))
    key = check_password("secret") if setup & 1 else None
    access = Access(key if setup & 2 else None)
    sent: Sent
    if setup & 8:
        access = Access(key, server_context())
        sent = Encrypted(VENCRYPT + rest[:1], rest[1:])
    elif setup & 4:
        access = Access(key, server_context())
        sent = Plain(rest)
    else:
        sent = Plain(rest if setup & 2 else GREETING + rest)
    quick_loop.run(lambda: _serve(sent, size, access))


async def _serve(sent: Sent, size: Size, access: Access) -> None:
    display = Display()
    pattern = pattern_of(size)
    pattern.show_on(display[0])
    async with asyncio.timeout(BOUND), RfbService(display, 1e6) as service:
        await service.serve(0, Bytes(sent, pattern, display), access, "fuzz")
