"""The guest's sound: QEMU's end of it is played by the tests."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from serving import run

from hesper.vm.sound import QemuSound, SoundError

Play = Callable[["FakeQemu"], Awaitable[None]]


class FakeQemu:
    """A VNC server with QEMU's audio extension, for one viewer after the other."""

    def __init__(self, play: Play, *, security: bytes = b"\x01\x01", result: int = 0) -> None:
        self.play = play
        self.security = security
        self.result = result
        self.asked: list[bytes] = []
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        self.left = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        try:
            writer.write(b"RFB 003.008\n")
            assert await reader.readexactly(12) == b"RFB 003.008\n"
            writer.write(self.security)
            if self.security == b"\x01\x01":
                assert await reader.readexactly(1) == b"\x01"
                writer.write(struct.pack(">I", self.result))
                assert await reader.readexactly(1) == b"\x01", "others may be there, too"
                writer.write(struct.pack(">HH16sI", 640, 480, bytes(16), 4) + b"QEMU")
                self.asked = [await reader.readexactly(count) for count in (8, 10, 4)]
                # It has the extension.
                writer.write(struct.pack(">BxHHHHHi", 0, 1, 0, 0, 640, 480, -259))
                await self.play(self)
            await reader.read()
        finally:
            self.left.set()
            writer.close()

    def say(self, operation: int, data: bytes = b"") -> None:
        self.writer.write(struct.pack(">BBH", 255, 1, operation) + data)

    def sound(self, data: bytes) -> None:
        self.say(2, struct.pack(">I", len(data)) + data)


@asynccontextmanager
async def qemu(folder: Path, fake: FakeQemu) -> AsyncIterator[QemuSound]:
    async with await asyncio.start_unix_server(fake.serve, folder / "vnc"):
        yield QemuSound(folder / "vnc")


def test_what_is_played_comes_and_silence_does_not(tmp_path: Path) -> None:
    async def play(fake: FakeQemu) -> None:
        fake.say(1)
        for data in (b"\1\0\2\0" * 100, bytes(4000), b"\3\0\4\0"):
            fake.sound(data)
        fake.say(0)
        fake.say(1)
        fake.sound(b"\5\0\6\0")
        fake.writer.write_eof()

    async def scenario() -> None:
        fake = FakeQemu(play)
        async with qemu(tmp_path, fake) as source, source() as pieces:
            heard = [piece async for piece in pieces]
        assert heard == [b"\1\0\2\0" * 100, b"\3\0\4\0", b"\5\0\6\0"]
        assert fake.asked == [
            struct.pack(">BxHi", 2, 1, -259),
            struct.pack(">BBHBBI", 255, 1, 2, 3, 2, 48000),
            struct.pack(">BBH", 255, 1, 0),
        ]
        await fake.left.wait()

    run(scenario())


async def _a_gigabyte(fake: FakeQemu) -> None:
    fake.say(2, struct.pack(">I", 1 << 30))


async def _half_a_frame(fake: FakeQemu) -> None:
    fake.sound(b"abc")


async def _pixels(fake: FakeQemu) -> None:
    fake.writer.write(struct.pack(">BxHHHHHi", 0, 1, 0, 0, 1, 1, 0) + bytes(4))


async def _something(fake: FakeQemu) -> None:
    fake.writer.write(b"\x02")


@pytest.mark.parametrize("play", [_a_gigabyte, _half_a_frame, _pixels, _something])
def test_what_was_not_expected_ends_it(tmp_path: Path, play: Play) -> None:
    async def scenario() -> None:
        async with qemu(tmp_path, FakeQemu(play)) as source, source() as pieces:
            with pytest.raises(SoundError):
                await anext(pieces)

    run(scenario())


@pytest.mark.parametrize(
    "options", [{"security": b"\x01\x02"}, {"security": b"\x00"}, {"result": 1}]
)
def test_a_server_that_does_not_let_us_in_is_an_error(
    tmp_path: Path, options: dict[str, bytes | int]
) -> None:
    async def nothing(_: FakeQemu) -> None:
        pass

    async def scenario() -> None:
        fake = FakeQemu(nothing, **options)  # type: ignore[arg-type]
        async with qemu(tmp_path, fake) as source:
            with pytest.raises(OSError, match="QEMU"):
                async with source():
                    pass
        with pytest.raises(OSError, match="No such file"):
            async with QemuSound(tmp_path / "nowhere")():
                pass

    run(scenario())
