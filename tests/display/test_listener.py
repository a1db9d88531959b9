"""Strangers' connections: how many, for how long, and what becomes of them without descriptors."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from serving import run, until

from hesper.display.access.listener import Bounds, Listener
from hesper.display.access.places import Address, Sockets, listen_on


class Scarce(socket.socket):
    """A listening socket of a process that may have no descriptors left."""

    def __init__(self, listening: socket.socket) -> None:
        super().__init__(fileno=listening.detach())
        self.setblocking(False)
        self.accepts = 0
        self.failures = 0

    def accept(self) -> tuple[socket.socket, Any]:
        self.accepts += 1
        if self.failures > 0:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


class Silent(asyncio.Protocol):
    """Serves nobody."""


async def ended(reader: asyncio.StreamReader) -> bool:
    """Wait for the end of a connection on which nothing comes."""
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


def count_ended(readers: list[asyncio.StreamReader]) -> int:
    return sum(reader.at_eof() or reader.exception() is not None for reader in readers)


@asynccontextmanager
async def scarce(bounds: Bounds | None = None) -> AsyncIterator[tuple[Scarce, Listener]]:
    """A listener of silent connections."""
    listening = Scarce(listen_on(Address("127.0.0.1", 0), local=True).sockets[0])
    listener = Listener(Sockets([listening]), lambda _: Silent(), name="a test", bounds=bounds)
    listener.start()
    yield listening, listener
    listener.close()


def test_does_not_spin_without_descriptors(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hesper.display.access.listener.PAUSE_SECONDS", 0.2)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with scarce() as (listening, listener):
            listening.failures = 3
            start = loop.time()
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            await until(lambda: listening.failures == 0)
            # Each failure but the first comes after a pause.
            assert loop.time() - start >= 2 * 0.2
            await until(lambda: listener._waiting)  # noqa: SLF001  it is served in the end
            writer.close()
            assert await reader.read() == b""

    run(scenario())
    assert capfd.readouterr().err.count("nobody can connect for now") <= 3


def test_does_not_spin_when_not_even_a_line_can_be_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The log imports what it writes with when it first writes."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("hesper.log.emit", fail)
    monkeypatch.setattr("hesper.display.access.listener.PAUSE_SECONDS", 3600.0)

    async def scenario() -> None:
        complaints: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        async with scarce() as (listening, listener):
            ends = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(3)]
            await until(lambda: len(listener._waiting) == 3)  # noqa: SLF001
            listening.failures = 1 << 30
            before = listening.accepts
            ends.append(await asyncio.open_connection("127.0.0.1", listener.port))
            await until(lambda: not listener._waiting)  # noqa: SLF001
            await until(lambda: listening.accepts - before >= 4)
            for _ in range(100):
                await asyncio.sleep(0)
            # Three make room, and then there is a pause.
            assert listening.accepts - before == 4
            assert len(complaints) == 4
            for _, writer in ends:
                writer.close()

    run(scenario())


def test_makes_room_when_descriptors_are_needed() -> None:
    async def scenario() -> None:
        async with scarce() as (listening, listener):
            ends = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(3)]
            await until(lambda: len(listener._waiting) == 3)  # noqa: SLF001
            listening.failures = 2
            ends.append(await asyncio.open_connection("127.0.0.1", listener.port))
            for reader, _ in ends[:2]:
                assert await ended(reader)
            await until(lambda: len(listener._waiting) == 2)  # noqa: SLF001
            for _, writer in ends:
                writer.close()

    run(scenario())


def test_an_address_has_its_share() -> None:
    bounds = Bounds(waiting=6, waiting_each=4)

    async def scenario() -> None:
        async with scarce(bounds) as (_, listener):
            writers = []  # a connection whose writer is forgotten ends

            async def connect(source: str) -> asyncio.StreamReader:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", listener.port, local_addr=(source, 0)
                )
                writers.append(writer)
                return reader

            few = [await connect("127.0.0.2") for _ in range(2)]
            many = [await connect("127.0.0.3") for _ in range(12)]
            await until(lambda: count_ended(many) == 8)
            more = [await connect("127.0.0.4") for _ in range(2)]
            # Who comes from elsewhere takes from the address that has the most.
            await until(lambda: count_ended(many) == 10)
            assert count_ended(few + more) == 0
            assert len(listener._waiting) == 6  # noqa: SLF001

    run(scenario())


def test_a_connection_has_so_much_time_and_so_many_bytes() -> None:
    async def scenario() -> None:
        async with scarce(Bounds(seconds=0.1)) as (_, listener):
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            assert await ended(reader)
            writer.close()
        async with scarce(Bounds(received=1000)) as (_, listener):
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(bytes(1001))
            assert await ended(reader)

    run(scenario())


def test_accepts_so_many_in_a_second() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with scarce(Bounds(waiting=99, waiting_each=99, burst=3, rate=20.0)) as (
            at,
            listener,
        ):
            start = loop.time()
            ends = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(10)]
            await until(lambda: len(listener._waiting) == 10)  # noqa: SLF001
            # Three at once, and the others a twentieth of a second each.
            assert loop.time() - start >= 6 / 20
            assert at.accepts < 20
            for _, writer in ends:
                writer.close()

    run(scenario())
