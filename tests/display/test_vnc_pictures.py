"""What VNC viewers see."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pattern import Pattern
from serving import run, serve, shown, until, until_equal
from vnc_client import (
    DESKTOP_SIZE,
    EXTENDED_DESKTOP_SIZE,
    RAW,
    TIGHT,
    ZRLE,
    Viewer,
)

from hesper.display.formats import BY_NAME
from hesper.display.geometry import Rect, Size
from hesper.display.scanout import Display
from hesper.display.surface import MemorySurface

FENCE_REQUEST = 1 << 31


@pytest.mark.parametrize("version", ["003.003", "003.007", "003.008", "003.889"])
def test_serves_every_version(version: str) -> None:
    async def scenario() -> None:
        display, pattern = shown()
        async with serve(display) as (_, server):
            if version == "003.889":  # Apple's; like 3.8
                viewer = await Viewer.begin(server.ports[0], version)
                assert await viewer.read(2) == b"\x01\x01"
                viewer.send(b"\x01")
                assert await viewer.number(4) == 0
                await viewer.initialise()
            else:
                viewer = await Viewer.connect(server.ports[0], version)
            assert viewer.name == "Hesper, screen 1"
            assert viewer.size == (300, 200)
            await until_equal(viewer, pattern)

    run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize("encoding", [RAW, ZRLE, TIGHT])
@given(data=st.data())
@settings(deadline=None, max_examples=12)
def test_a_viewer_ends_up_with_what_the_guest_drew(encoding: int, data: st.DataObject) -> None:
    """Random drawing, new sizes and requests in any order."""
    steps = data.draw(st.lists(st.integers(0, 1 << 30), min_size=1, max_size=12))

    async def scenario() -> None:
        display, pattern = shown()
        async with serve(display) as (_, server):
            viewer = await Viewer.connect(server.ports[0])
            viewer.set_encodings(encoding, DESKTOP_SIZE)
            for seed in steps:
                rng = random.Random(seed)
                if rng.random() < 0.15:
                    pattern = Pattern(Size(rng.randint(1, 400), rng.randint(1, 300)))
                    pattern.show_on(display[0])
                width, height = pattern.size
                rect = Rect(
                    rng.randrange(width), rng.randrange(height), rng.randint(1, 99), 50
                ).clip(pattern.size)
                assert rect is not None
                colours = np.random.default_rng(seed).integers(0, 1 << 24, 8, np.uint32)
                shape = (rect.height, rect.width)
                pattern.pixels[rect.slices] = colours[
                    np.random.default_rng(1).integers(0, 8, shape)
                ]
                display[0].flush([rect])
                if rng.random() < 0.5:
                    viewer.request()
                if rng.random() < 0.3:
                    area = (rng.randrange(200), rng.randrange(100), 90, 90)
                    viewer.request(incremental=rng.random() < 0.5, area=area)
            await until_equal(viewer, pattern)

    run(scenario())


def test_sends_nothing_while_nothing_changes() -> None:
    async def scenario() -> None:
        display, pattern = shown()
        async with serve(display) as (service, server):
            viewer = await Viewer.connect(server.ports[0])
            await until_equal(viewer, pattern)
            sent = service.feeds[0].sent
            viewer.request()
            display[0].flush([Rect(0, 0, 300, 200)])  # but nothing was drawn
            viewer.fence(FENCE_REQUEST, b"later")
            while not viewer.fences:
                assert await viewer.message() is None
            pattern.pixels[100, 100] = 0x123456
            display[0].flush([Rect(100, 100, 1, 1)])
            assert (await viewer.update()).rects == [(64, 64, 64, 64)]
            assert service.feeds[0].sent - sent < 64 * 64 * 4 + 100

    run(scenario())


def test_a_viewer_that_waits_gets_the_next_picture_where_one_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has asked, and does not ask again before it has one."""

    async def scenario() -> None:
        display, pattern = shown()
        tried: list[Rect] = []

        def fail(rect: Rect) -> None:
            tried.append(rect)
            raise MemoryError

        async with serve(display) as (service, server):
            viewer = await Viewer.connect(server.ports[0])
            await until_equal(viewer, pattern)
            viewer.request()
            viewer.fence(FENCE_REQUEST, b"later")
            while not viewer.fences:
                assert await viewer.message() is None
            with monkeypatch.context() as unreadable:
                unreadable.setattr(pattern.surface, "pixels", fail)
                display[0].flush([Rect(0, 0, 1, 1)])
                await until(lambda: tried and not service.feeds[0].has_news)
            pattern.pixels[100, 100] = 0x123456
            display[0].flush([Rect(100, 100, 1, 1)])
            await viewer.update()
            np.testing.assert_array_equal(viewer.pixels, pattern.pixels)

    run(scenario())


def test_a_full_request_gets_the_picture_of_now() -> None:
    async def scenario() -> None:
        display, pattern = shown()
        async with serve(display) as (_, server):
            viewer = await Viewer.connect(server.ports[0])
            for number in range(10):
                pattern.pixels[:] = number
                display[0].flush([Rect(0, 0, 300, 200)])
                viewer.request(incremental=False)
                await viewer.update()
                np.testing.assert_array_equal(viewer.pixels, pattern.pixels)

    run(scenario())


def test_a_full_request_is_answered_without_any_change() -> None:
    async def scenario() -> None:
        display, pattern = shown()
        async with serve(display) as (_, server):
            viewer = await Viewer.connect(server.ports[0])
            for _ in range(3):
                viewer.pixels[:] = 0
                viewer.request(incremental=False)
                await viewer.update()
                np.testing.assert_array_equal(viewer.pixels, pattern.pixels)

    run(scenario())


@pytest.mark.slow
def test_a_slow_viewer_holds_up_nobody() -> None:
    async def scenario() -> None:
        # Uncompressed, a frame is more than the system buffers for a connection.
        display, pattern = shown(2000, 2000)
        async with serve(display) as (service, server):
            stuck = await Viewer.connect(server.ports[0])
            stuck.pause_reading()
            for _ in range(50):
                stuck.request(incremental=False)
            viewer = await Viewer.connect(server.ports[0])
            viewer.set_encodings(TIGHT)
            for number in range(1, 21):
                pattern.pixels[:] = number * 0x010203
                display[0].flush([Rect(0, 0, 2000, 2000)])
                await until_equal(viewer, pattern)
            # All that was sent went to the other: the stuck one has not even its first frame.
            assert service.feeds[0].updates == viewer.updates
            stuck.resume_reading()
            await until_equal(stuck, pattern)
            # Frames that it missed are not made up for.
            assert stuck.updates <= 3

    run(scenario())


def test_takes_pictures_no_faster_than_told() -> None:
    async def scenario() -> None:
        display, pattern = shown()
        loop = asyncio.get_running_loop()
        async with serve(display, frames_per_second=20) as (_, server):
            viewer = await Viewer.connect(server.ports[0])
            await until_equal(viewer, pattern)
            start = loop.time()
            for number in range(8):
                pattern.pixels[:] = number
                display[0].flush([Rect(0, 0, 300, 200)])
                await until_equal(viewer, pattern)
            assert loop.time() - start >= 6 / 20

    run(scenario())


def test_shows_each_scanout_on_its_port() -> None:
    async def scenario() -> None:
        display = Display(3)
        patterns = [Pattern(Size(200 + 10 * i, 100), f"screen {i}") for i in range(2)]
        for index, pattern in enumerate(patterns):
            pattern.show_on(display[index])
        async with serve(display) as (_, server):
            for index, pattern in enumerate(patterns):
                viewer = await Viewer.connect(server.ports[index])
                assert viewer.name == f"Hesper, screen {index + 1}"
                await until_equal(viewer, pattern)
            viewer = await Viewer.connect(server.ports[2])
            assert viewer.size == display[2].wanted
            viewer.request()
            await viewer.update()
            assert len(np.unique(viewer.pixels)) > 2, "a text says that there is no picture"

    run(scenario())


@pytest.mark.parametrize("pseudo", [DESKTOP_SIZE, EXTENDED_DESKTOP_SIZE, None])
def test_follows_a_new_size(pseudo: int | None) -> None:
    async def scenario() -> None:
        display, pattern = shown()
        async with serve(display) as (_, server):
            viewer = await Viewer.connect(server.ports[0])
            viewer.set_encodings(RAW, *([pseudo] if pseudo else []))
            await until_equal(viewer, pattern)
            larger = Pattern(Size(330, 150))
            larger.show_on(display[0])
            if pseudo:
                await until_equal(viewer, larger)
                return
            # A viewer that cannot change its size sees what fits, and black beside it.
            expected = np.zeros((200, 300), np.uint32)
            expected[:150] = larger.pixels[:, :300]
            while not np.array_equal(viewer.pixels, expected):
                viewer.request()
                await viewer.update()

    run(scenario())


def test_passes_a_wanted_size_to_the_guest() -> None:
    async def scenario() -> None:
        patterns: list[Pattern] = []

        def resized(_: object) -> None:
            patterns.append(Pattern(display[0].wanted))
            patterns[-1].show_on(display[0])

        display = Display(1, resized=resized)
        Pattern(Size(300, 200)).show_on(display[0])
        async with serve(display) as (_, server):
            viewer = await Viewer.connect(server.ports[0])
            viewer.set_encodings(ZRLE, EXTENDED_DESKTOP_SIZE)
            viewer.set_desktop_size(1, 0)
            viewer.set_desktop_size(410, 120)
            while len(viewer.resize_answers) < 2:
                viewer.request()
                await viewer.update()
            assert viewer.resize_answers == [(1, 3), (1, 4)]
            await until_equal(viewer, patterns[-1])
            assert viewer.size == (410, 120)

    run(scenario())


def test_a_surface_in_another_format_looks_the_same() -> None:
    async def scenario() -> None:
        display, pattern = shown()
        swapped = pattern.pixels.copy().view(np.uint8).reshape(200, 300, 4)[..., [2, 1, 0, 3]]
        memory = np.ascontiguousarray(swapped).tobytes()
        display[0].show(MemorySurface(memory, pattern.size, 1200, BY_NAME["XBGR8888"]))
        async with serve(display) as (_, server):
            viewer = await Viewer.connect(server.ports[0])
            await until_equal(viewer, pattern)

    run(scenario())
