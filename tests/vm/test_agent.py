"""The guest's agent, played by the tests, and a viewer that shares its clipboard."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pattern import Pattern
from serving import run, until
from vnc_client import EXTENDED_CLIPBOARD, RAW, Viewer

from hesper.display.access.places import Address, UnixPath, listen_on
from hesper.display.scanout import Display, Size
from hesper.vm.agent import AgentServer
from hesper.vm.outputs import OutputOptions, Outputs

MONITORS, CLIPBOARD, ANNOUNCE, GRAB, REQUEST, RELEASE = 2, 4, 6, 7, 8, 9
BY_DEMAND, SELECTION, CRLF = 1 << 5, 1 << 6, 1 << 9
TEXT, PNG = 1, 2
LINUX = BY_DEMAND | SELECTION | 1 << 8
NOTIFY_TEXT = 1 << 27 | 1
PROVIDE_TEXT = 1 << 28 | 1


class Agent:
    """The agent's end of the guest's serial port.  Source: spice-protocol's `vd_agent.h`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.stream = b""

    @classmethod
    async def start(cls, path: Path, can: int = LINUX) -> Agent:
        agent = cls(*await asyncio.open_unix_connection(path))
        kind, data = await agent.message()
        wants_answer, bits = struct.unpack("<II", data)
        assert (kind, wants_answer) == (ANNOUNCE, 1)
        assert bits & BY_DEMAND
        assert bits & SELECTION
        agent.send(ANNOUNCE, struct.pack("<II", 0, can))
        return agent

    async def message(self) -> tuple[int, bytes]:
        while len(self.stream) < 20:
            await self._chunk()
        protocol, kind, _, size = struct.unpack_from("<IIQI", self.stream)
        assert protocol == 1
        while len(self.stream) < 20 + size:
            await self._chunk()
        data, self.stream = self.stream[20 : 20 + size], self.stream[20 + size :]
        return kind, data

    async def _chunk(self) -> None:
        port, size = struct.unpack("<II", await self.reader.readexactly(8))
        assert port == 1
        assert size <= 2048
        self.stream += await self.reader.readexactly(size)

    def send(self, kind: int, data: bytes, *, chunk: int = 1 << 30) -> None:
        stream = struct.pack("<IIQI", 1, kind, 0, len(data)) + data
        for start in range(0, len(stream), chunk):
            piece = stream[start : start + chunk]
            self.writer.write(struct.pack("<II", 1, len(piece)) + piece)

    def grab(self, *kinds: int, selection: int = 0) -> None:
        self.send(GRAB, struct.pack(f"<I{len(kinds)}I", selection, *kinds))

    async def give(self, text: str, *, chunk: int = 1 << 30) -> None:
        """Wait to be asked for text, and give it."""
        assert await self.message() == (REQUEST, struct.pack("<II", 0, TEXT))
        self.send(CLIPBOARD, struct.pack("<II", 0, TEXT) + text.encode(), chunk=chunk)

    async def ask(self) -> bytes:
        """Ask for what was offered; returns type and text."""
        self.send(REQUEST, struct.pack("<II", 0, TEXT))
        kind, data = await self.message()
        assert kind == CLIPBOARD
        return data[4:]


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[tuple[Path, Viewer, Outputs]]:
    """Outputs with a place for the agent, and a viewer that knows the extended clipboard."""
    path = folder / "agent"
    options = OutputOptions(vnc=Address("127.0.0.1", 0), vnc_open=True, web=None)
    # Both wait for their thread, on which nothing waits for this loop.
    with (
        contextlib.closing(listen_on(UnixPath(path), local=True)) as sockets,
        Outputs(Display(1), options, list) as outputs,
    ):
        AgentServer(sockets.sockets[0], outputs).start()
        viewer = await Viewer.connect(int(outputs.places[0].rpartition(":")[2]))
        viewer.set_encodings(RAW, EXTENDED_CLIPBOARD)
        while not viewer.clipboard:
            await viewer.message()
        viewer.clipboard.clear()
        yield path, viewer, outputs
        await viewer.close()


async def told(viewer: Viewer) -> tuple[int, bytes]:
    while not viewer.clipboard:
        await viewer.message()
    return viewer.clipboard.pop(0)


async def fetched(viewer: Viewer) -> str:
    """The guest's text, of which the viewer is told and for which it asks."""
    assert await told(viewer) == (NOTIFY_TEXT, b"")
    viewer.clipboard_message(1 << 25 | 1)
    flags, data = await told(viewer)
    assert flags == PROVIDE_TEXT
    return zlib.decompress(data)[4:-1].decode()


def provide(viewer: Viewer, text: str) -> None:
    data = text.encode() + b"\0"
    viewer.clipboard_message(PROVIDE_TEXT, zlib.compress(struct.pack(">I", len(data)) + data))


@pytest.mark.parametrize("chunk", [1 << 30, 2048, 7])
def test_what_the_guest_copies_reaches_viewers(tmp_path: Path, chunk: int) -> None:
    async def scenario() -> None:
        async with scene(tmp_path) as (path, viewer, _):
            agent = await Agent.start(path)
            agent.grab(PNG, TEXT)
            text = "gr\xfc\xdfe\n" * 100
            await agent.give(text, chunk=chunk)
            assert await fetched(viewer) == text.replace("\n", "\r\n")

    run(scenario())


@pytest.mark.parametrize(("can", "end"), [(LINUX, "\n"), (LINUX | CRLF, "\r\n")])
def test_what_a_viewer_copies_reaches_the_guest(tmp_path: Path, can: int, end: str) -> None:
    async def scenario() -> None:
        async with scene(tmp_path) as (path, viewer, _):
            agent = await Agent.start(path, can)
            text = "gr\xfc\xdfe\n" * 1000
            provide(viewer, text)
            assert await agent.message() == (GRAB, struct.pack("<II", 0, TEXT))
            given = struct.pack("<I", TEXT) + text.replace("\n", end).encode()
            assert await agent.ask() == given

    run(scenario())


def test_an_agent_without_selections_is_understood(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path) as (path, viewer, _):
            agent = await Agent.start(path, BY_DEMAND)
            provide(viewer, "there")
            assert await agent.message() == (GRAB, struct.pack("<I", TEXT))
            agent.send(GRAB, struct.pack("<I", TEXT))
            assert await agent.message() == (REQUEST, struct.pack("<I", TEXT))
            agent.send(CLIPBOARD, struct.pack("<I", TEXT) + b"back")
            assert await fetched(viewer) == "back"

    run(scenario())


def test_an_agent_that_comes_late_or_anew_is_offered_what_was_copied(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path) as (path, viewer, outputs):
            provide(viewer, "early")
            await until(lambda: outputs.clipboard is not None and outputs.clipboard.at_viewer)
            for _ in range(2):
                agent = await Agent.start(path)
                assert await agent.message() == (GRAB, struct.pack("<II", 0, TEXT))
                assert await agent.ask() == struct.pack("<I", TEXT) + b"early"
                # The agent's own restart, without QEMU's.
                agent.send(ANNOUNCE, struct.pack("<II", 1, LINUX))
                kind, data = await agent.message()
                assert (kind, data[:4]) == (ANNOUNCE, bytes(4))
                assert await agent.message() == (GRAB, struct.pack("<II", 0, TEXT))
                agent.writer.close()

    run(scenario())


def test_what_is_only_marked_or_no_text_stays_the_guests(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path) as (path, viewer, _):
            agent = await Agent.start(path)
            agent.grab(TEXT, selection=1)
            agent.grab(PNG)
            agent.send(RELEASE, bytes(4))
            agent.grab(TEXT)
            await agent.give("text")
            assert await fetched(viewer) == "text"
            # There is nothing of ours to ask for.
            assert await agent.ask() == bytes(4)

    run(scenario())


BROKEN = {
    "chunks of nothing": struct.pack("<II", 1, 0) * 5000,
    "chunks for others": struct.pack("<II", 9, 5000) + bytes(5000),
    "messages of nothing": struct.pack("<II", 1, 20 * 500)
    + struct.pack("<IIQI", 1, GRAB, 0, 0) * 500,
    "an announcement that is cut short": struct.pack("<IIIIQI4x", 1, 24, 1, ANNOUNCE, 0, 4),
    "a request that is cut short": struct.pack("<IIIIQI5x", 1, 25, 1, REQUEST, 0, 5),
    "text that was not asked for": struct.pack("<IIIIQIII", 1, 32, 1, CLIPBOARD, 0, 12, 0, TEXT)
    + b"evil",
    "a message of eight megabytes": struct.pack("<IIIIQI", 1, 20 + (8 << 20), 1, 4, 0, 8 << 20)
    + bytes(8 << 20),
    "ten thousand kinds": struct.pack("<IIIIQI", 1, 40_024, 1, GRAB, 0, 40_004)
    + struct.pack("<I", 0)
    + struct.pack("<I", PNG) * 10_000,
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_nothing_that_an_agent_says_harms(tmp_path: Path, data: bytes) -> None:
    async def scenario() -> None:
        async with scene(tmp_path) as (path, viewer, _):
            agent = await Agent.start(path)
            agent.writer.write(data)
            agent.grab(TEXT)
            await agent.give("sound")
            assert await fetched(viewer) == "sound"

    run(scenario())


def test_an_agent_that_copies_without_end_is_asked_now_and_then(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path) as (path, viewer, _):
            agent = await Agent.start(path)
            for _ in range(2000):
                agent.grab(TEXT)
                agent.send(REQUEST, struct.pack("<II", 0, TEXT))
            agent.grab(TEXT)
            asked = 0
            with contextlib.suppress(TimeoutError):
                while True:
                    async with asyncio.timeout(1.0):
                        kind, _ = await agent.message()
                    asked += kind == REQUEST
            assert 1 <= asked < 1000
            agent.send(CLIPBOARD, struct.pack("<II", 0, TEXT) + b"last")
            assert await fetched(viewer) == "last"

    run(scenario())


@pytest.mark.parametrize("can_resize", [True, False])
def test_a_viewer_resizes_by_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_resize: bool
) -> None:
    monkeypatch.setattr("hesper.vm.agent.RESIZE_SECONDS", 0.01)

    async def scenario() -> None:
        async with scene(tmp_path) as (path, viewer, outputs):
            Pattern(Size(300, 200)).show_on(outputs.display[0])
            agent = await Agent.start(path, LINUX | can_resize << 1)
            # What has been read before the next size comes.
            agent.grab(TEXT)
            assert (await agent.message())[0] == REQUEST
            viewer.set_desktop_size(900, 650)
            # What the agent would round is rounded, for the guest's GPU, too.
            wanted = (896 if can_resize else 900, 650)
            await until(lambda: outputs.display[0].wanted == wanted)
            if can_resize:
                kind, data = await agent.message()
                assert kind == MONITORS
                assert struct.unpack("<7I", data) == (1, 1, 650, 896, 32, 0, 0)
                agent.writer.close()
                await until(lambda: outputs.display[0].step == 1)
            else:
                await asyncio.sleep(0.05)
                provide(viewer, "text")
                assert (await agent.message())[0] == GRAB

    run(scenario())


def test_a_guest_that_follows_by_itself_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hesper.vm.agent.RESIZE_SECONDS", 0.01)

    async def scenario() -> None:
        async with scene(tmp_path) as (path, viewer, outputs):
            screen = outputs.display[0]
            screen.also_tell(lambda scanout: Pattern(scanout.wanted).show_on(scanout))
            agent = await Agent.start(path, LINUX | 1 << 1)
            agent.grab(TEXT)
            assert (await agent.message())[0] == REQUEST
            viewer.set_desktop_size(1096, 750)
            await until(lambda: screen.wanted == (1096, 750))
            await asyncio.sleep(0.05)
            provide(viewer, "text")
            assert (await agent.message())[0] == GRAB

    run(scenario())


def test_text_that_is_too_long_is_not_passed_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path) as (path, viewer, _):
            agent = await Agent.start(path)
            for size in ((1 << 20) + 1, 4 << 20):
                agent.grab(TEXT)
                await agent.give("x" * size)
            agent.grab(TEXT)
            await agent.give("short")
            assert await fetched(viewer) == "short"

    run(scenario())
