"""Viewers that are let in, and send all they can."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable

import pytest
from serving import run, serve, shown, until, until_equal
from vnc_client import EXTENDED_CLIPBOARD, EXTENDED_DESKTOP_SIZE, Viewer

from hesper.display.geometry import Size
from hesper.display.input import InputEvent, Key, PointerMove
from hesper.display.rfb.handshake import OPEN
from hesper.display.rfb.service import RfbService
from hesper.display.rfb.throttle import Throttle
from hesper.display.scanout import Display


class Hose:
    """A channel on which all has come already: reading never waits."""

    name = "hose"

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(b"RFB 003.008\n\x01\x01" + data)
        self.size = len(data)
        self.most = 0
        self.turns = 0
        """Turns that others have had since the first message."""

    async def read(self, count: int) -> bytes:
        if count > len(self.data):
            raise EOFError
        self.most = max(self.most, count)
        data, self.data = bytes(self.data[:count]), self.data[count:]
        return data

    async def write(self, parts: Iterable[bytes]) -> None:
        pass

    async def close(self) -> None:
        pass


async def pour(data: bytes) -> Hose:
    """Serve a viewer that says `data`."""
    display, _ = shown()
    hose = Hose(data)
    async with RfbService(display) as service:
        serving = asyncio.create_task(service.serve(0, hose, OPEN, "hose"))
        while not serving.done():
            hose.turns += len(hose.data) < hose.size
            await asyncio.sleep(0)
    return hose


REQUEST = struct.pack(">BBHHHH", 3, 1, 0, 0, 300, 200)


@pytest.mark.parametrize("message", [REQUEST, b"\4\1\0\0\0\0\0a", b"\xf8\0\0\0\0\0\0\0\0"])
def test_one_viewer_leaves_others_their_turn(
    message: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hesper.display.rfb.viewer.INPUT_BURST", 1 << 20)

    async def scenario() -> None:
        hose = await pour(message * 20_000)
        assert not hose.data
        assert hose.turns > 100

    run(scenario())


@pytest.mark.parametrize("length", [(1 << 20) + 1, -(1 << 20) - 5])
def test_text_that_is_too_long_takes_no_memory(length: int) -> None:
    encodings = struct.pack(">BxHi", 2, 1, EXTENDED_CLIPBOARD)
    text = struct.pack(">Bxxxi", 6, length) + bytes(abs(length))

    async def scenario() -> None:
        hose = await pour(encodings + text + REQUEST)
        assert not hose.data
        assert hose.most <= 1 << 12

    run(scenario())


def test_asks_the_guest_for_few_of_many_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesper.display.rfb.feed.RESIZE_SECONDS", 0.05)

    async def scenario() -> None:
        sizes: list[Size] = []
        display = Display(resized=lambda scanout: sizes.append(scanout.wanted))
        async with serve(display) as (_, server):
            viewer = await Viewer.connect(server.ports[0])
            viewer.set_encodings(EXTENDED_DESKTOP_SIZE)
            loop = asyncio.get_running_loop()
            start = loop.time()
            for step in range(200):
                viewer.set_desktop_size(1000 + step, 900)
            await until(lambda: display[0].wanted == Size(1199, 900))
            assert sizes[0] == Size(1000, 900)
            # One at once and one after each pause, however long it took to read them all.
            assert len(sizes) <= 2 + (loop.time() - start) / 0.05

    run(scenario())


def test_sizes_that_cannot_be_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesper.display.rfb.feed.RESIZE_SECONDS", 3600.0)

    async def scenario() -> None:
        display, _ = shown()
        async with serve(display) as (_, server):
            viewer = await Viewer.connect(server.ports[0])
            viewer.set_encodings(EXTENDED_DESKTOP_SIZE)
            for size in ((500, 400), (0, 0), (65535, 65535), (600, 400)):
                viewer.set_desktop_size(*size)
            viewer.request()
            while len(viewer.resize_answers) < 4:
                await viewer.update()
                viewer.request()
            assert viewer.resize_answers == [(1, 4), (1, 3), (1, 3), (1, 4)]
            assert display[0].wanted == Size(500, 400)

    run(scenario())


def test_makes_no_more_pictures_than_can_be_seen() -> None:
    """A viewer that wants everything again and again costs what others may need."""

    async def scenario() -> None:
        display, pattern = shown()
        async with serve(display, frames_per_second=0.001) as (service, server):
            viewer = await Viewer.connect(server.ports[0])
            viewer.request(incremental=False)
            await until_equal(viewer, pattern)
            updates = service.feeds[0].updates
            for _ in range(100):
                viewer.request(incremental=False)
                viewer.fence(1 << 31, b"answered")
            # It is answered, but gets no picture before the next is due.
            while len(viewer.fences) < 100:
                assert await viewer.message() is None
            assert service.feeds[0].updates == updates

    run(scenario())


def test_the_throttle_lets_pass_some_at_once_and_then_so_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def scenario() -> None:
        passing = Throttle(rate=0.1, burst=3)
        for _ in range(3):
            await passing.wait()
        assert slept == []
        await passing.wait()
        await passing.wait()
        assert [round(each, -1) for each in slept] == [10, 20]

    monkeypatch.setattr("hesper.display.rfb.throttle.asyncio.sleep", sleep)
    run(scenario())


def test_input_waits_with_the_viewer_and_is_all_there_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hesper.display.rfb.viewer.INPUT_BURST", 50)
    monkeypatch.setattr("hesper.display.rfb.viewer.INPUT_RATE", 500.0)

    async def scenario() -> None:
        display, _ = shown(1000, 200)
        events: list[InputEvent] = []
        display.connect_input(lambda _, sent: events.extend(sent))
        loop = asyncio.get_running_loop()
        async with serve(display) as (_, server):
            viewer = await Viewer.connect(server.ports[0])
            start = loop.time()
            for x in range(200):
                viewer.pointer(0, x + 1, 5)
            viewer.key(True, ord("a"))
            await until(lambda: events[-1:] == [Key(30, True)])
            # 151 of them waited, two thousandths of a second each.
            assert loop.time() - start > 0.25
        moves = [event.x for event in events if isinstance(event, PointerMove)]
        assert moves == sorted(moves)
        assert len(moves) == 200

    run(scenario())
