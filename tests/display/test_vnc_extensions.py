"""Cursor, input and the extensions of the VNC server."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from rfb_decoders import Layout
from serving import run, serve, shown, until, until_equal
from vnc_client import (
    CONTINUOUS,
    CURSOR,
    CURSOR_WITH_ALPHA,
    FENCE,
    MOUSE_BUTTONS,
    QEMU_KEY,
    RAW,
    ZRLE,
    Viewer,
)

from hesper.display.geometry import Rect
from hesper.display.input import Button, InputEvent, Key, PointerButton, PointerMove
from hesper.display.keys import CODE_OF_KEYSYM, CODE_OF_SCANCODE, QCODE_OF
from hesper.display.scanout import Cursor

FENCE_REQUEST = 1 << 31
SYNC_NEXT = 4


@pytest.mark.parametrize("encoding", [CURSOR, CURSOR_WITH_ALPHA])
def test_sends_the_cursor(encoding: int) -> None:
    async def scenario() -> None:
        display, pattern = shown()
        pixels = np.zeros((3, 10), "<u4")
        pixels[0, 0], pixels[1, 9] = 0xFF112233, 0x80400020
        display[0].set_cursor(Cursor(pixels, 4, 2))
        async with serve(display) as (_, server):
            viewer = await Viewer.connect(server.ports[0])
            viewer.set_encodings(RAW, encoding)
            await until_equal(viewer, pattern)
            cursor = viewer.cursor
            assert cursor is not None
            assert cursor.hot == (4, 2)
            if encoding == CURSOR:
                assert cursor.mask is not None
                assert np.argwhere(cursor.mask).tolist() == [[0, 0], [1, 9]]
                assert cursor.pixels[0, 0] == 0x112233
                assert cursor.pixels[1, 9] == 0x7F003F
            else:
                assert cursor.pixels[0, 0].tolist() == [0x11, 0x22, 0x33, 0xFF]
                assert cursor.pixels[1, 9].tolist() == [0x40, 0x00, 0x20, 0x80]
            viewer.request()
            display[0].set_cursor(None)
            await viewer.update()
            assert viewer.cursor is not None
            assert viewer.cursor.pixels.size == 0

    run(scenario())


def test_draws_the_cursor_for_viewers_that_do_not() -> None:
    async def scenario() -> None:
        display, pattern = shown()
        pattern.pixels[:] = 0x000080
        pattern.show_on(display[0])
        display[0].set_cursor(Cursor(np.full((4, 4), 0xFF00FF00, "<u4"), 0, 0))
        async with serve(display) as (_, server):
            viewer = await Viewer.connect(server.ports[0])
            for x, y in ((10, 20), (298, 199), (60, 62), (-3, -1)):
                display[0].move_cursor(x, y)
                expected = pattern.pixels.copy()
                expected[max(y, 0) : y + 4, max(x, 0) : x + 4] = 0x00FF00
                while not np.array_equal(viewer.pixels, expected):
                    viewer.request()
                    await viewer.update()
            # As soon as the viewer says that it can, the picture is without.
            viewer.set_encodings(RAW, CURSOR)
            await until_equal(viewer, pattern)

    run(scenario())


def test_sends_what_a_viewer_presses() -> None:
    async def scenario() -> None:
        display, _ = shown()
        events: list[InputEvent] = []
        display.connect_input(lambda _, sent: events.extend(sent))
        async with serve(display) as (_, server):
            viewer = await Viewer.connect(server.ports[0])
            viewer.pointer(0, 0, 0)
            viewer.pointer(1, 299, 199)
            viewer.pointer(1 | 4, 5000, 199)
            viewer.pointer(4, 150, 100)
            viewer.pointer(4 | 8, 150, 100)
            viewer.pointer(4, 150, 100)
            viewer.key(True, ord("a"))
            viewer.key(True, ord("a"))  # the same key: it repeats
            viewer.key(True, 0x123456)  # no key types this
            viewer.qemu_key(True, ord("z"), 0x15)  # the Y key on a German keyboard
            viewer.qemu_key(True, 0xFF0D, 0)  # without a code the keysym counts
            viewer.qemu_key(False, 0xFF0D, 0)
            await until(lambda: len(events) >= 12)
            assert events == [
                PointerMove(0, 0),
                PointerMove(0x7FFF, 0x7FFF),
                PointerButton(Button.LEFT, True),
                PointerButton(Button.RIGHT, True),
                PointerMove(150 * 0x7FFF // 299, 100 * 0x7FFF // 199),
                PointerButton(Button.LEFT, False),
                PointerButton(Button.WHEEL_UP, True),
                PointerButton(Button.WHEEL_UP, False),
                Key(30, True),
                Key(21, True),
                Key(28, True),
                Key(28, False),
            ]
            events.clear()
            await viewer.close()
            # A viewer that goes lets go.
            await until(lambda: len(events) >= 3)
            assert events == [Key(21, False), Key(30, False), PointerButton(Button.RIGHT, False)]

    run(scenario())


def test_offers_more_buttons_and_scan_codes() -> None:
    async def scenario() -> None:
        display, _ = shown()
        events: list[InputEvent] = []
        display.connect_input(lambda _, sent: events.extend(sent))
        async with serve(display) as (_, server):
            viewer = await Viewer.connect(server.ports[0])
            viewer.set_encodings(RAW, QEMU_KEY, MOUSE_BUTTONS)
            viewer.request()
            update = await viewer.update()
            assert {QEMU_KEY, MOUSE_BUTTONS} <= set(update.pseudo)
            viewer.send(struct.pack(">BBHHB", 5, 0x80, 0, 0, 3))
            viewer.send(struct.pack(">BBHHB", 5, 0x81, 0, 0, 2))
            await until(lambda: len(events) >= 5)
            assert events[1:] == [
                PointerButton(Button.SIDE, True),
                PointerButton(Button.EXTRA, True),
                PointerButton(Button.LEFT, True),
                PointerButton(Button.SIDE, False),
            ]

    run(scenario())


def test_the_key_table_is_consistent() -> None:
    codes = set(QCODE_OF)
    assert set(CODE_OF_SCANCODE.values()) == codes
    assert set(CODE_OF_KEYSYM.values()) <= codes
    # All that a US keyboard types is there.
    assert {chr(k) for k in CODE_OF_KEYSYM if k < 0x7F} == {chr(c) for c in range(32, 127)}
    # Up to F10 Linux numbers keys as the PC does.
    assert all(CODE_OF_SCANCODE[n] == n for n in range(1, 69))


def test_streams_updates_as_they_are_confirmed() -> None:
    async def scenario() -> None:
        display, pattern = shown()
        async with serve(display) as (_, server):
            viewer = await Viewer.connect(server.ports[0])
            viewer.set_encodings(ZRLE, FENCE, CONTINUOUS)
            while not viewer.ends:
                assert await viewer.message() is None
            viewer.continuous(True)
            confirmed = 0
            for number in range(20):
                pattern.pixels[:] = number + 1
                display[0].flush([Rect(0, 0, 300, 200)])
                while not np.array_equal(viewer.pixels, pattern.pixels):
                    await viewer.message()
                    while confirmed < len(viewer.fences):
                        flags, payload = viewer.fences[confirmed]
                        assert flags & FENCE_REQUEST
                        viewer.fence(flags & 3, payload)
                        confirmed += 1
            # Without confirmation the server stops after two.
            seen = viewer.updates
            for number in range(10):
                pattern.pixels[:] = 100 + number
                display[0].flush([Rect(0, 0, 300, 200)])
                viewer.fence(FENCE_REQUEST, bytes([number]))
                while viewer.fences[-1][1] != bytes([number]):
                    await viewer.message()
            assert viewer.updates - seen <= 3
            viewer.continuous(False)
            while viewer.ends < 2:
                await viewer.message()
            await until_equal(viewer, pattern)

    run(scenario())


def test_a_new_pixel_format_holds_from_its_fence_on() -> None:
    async def scenario() -> None:
        display, pattern = shown()
        async with serve(display) as (_, server):
            viewer = await Viewer.connect(server.ports[0])
            viewer.set_encodings(RAW, FENCE)
            layouts = [Layout(16, 16, False, (31, 63, 31), (11, 5, 0)), Layout()]
            for number in range(30):
                pattern.pixels[:] = number * 0x020406
                display[0].flush([Rect(0, 0, 300, 200)])
                viewer.request(incremental=False)
                before = viewer.layout
                layout = layouts[number % 2]
                mark = f"format {number}".encode()
                viewer.fence(FENCE_REQUEST | SYNC_NEXT, mark)
                viewer.set_layout(layout)
                viewer.layout = viewer.decoder.layout = before
                # Were an update in another format than this, reading it would go wrong.
                while not any(payload == mark for _, payload in viewer.fences):
                    await viewer.message()
                viewer.layout = viewer.decoder.layout = layout
            viewer.request(incremental=False)
            await until_equal(viewer, pattern)

    run(scenario())


def test_serves_viewers_that_want_a_colour_map() -> None:
    async def scenario() -> None:
        display, pattern = shown()
        async with serve(display) as (_, server):
            viewer = await Viewer.connect(server.ports[0])
            viewer.layout = viewer.decoder.layout = Layout(8, 8, False, (7, 7, 3), (5, 2, 0))
            viewer.send(b"\0\0\0\0" + struct.pack(">BBBBHHHBBBxxx", 8, 8, 0, 0, 0, 0, 0, 0, 0, 0))
            viewer.request(incremental=False)
            await viewer.update()
            assert len(viewer.colour_map) == 256
            table = np.array(viewer.colour_map) // 257
            shown_colours = table[viewer.pixels].astype(int)
            wanted = np.stack([pattern.pixels >> s & 255 for s in (16, 8, 0)], -1).astype(int)
            assert np.abs(shown_colours - wanted).max() <= 255 // 3 // 2 + 1

    run(scenario())
