"""The VNC server as viewers meet it, polite and otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pattern import Pattern
from rfb_decoders import Layout
from serving import run, serve, until
from vnc_client import (
    CONTINUOUS,
    CURSOR,
    CURSOR_WITH_ALPHA,
    DESKTOP_SIZE,
    EXTENDED_DESKTOP_SIZE,
    FENCE,
    MOUSE_BUTTONS,
    QEMU_KEY,
    RAW,
    TIGHT,
    ZRLE,
    Viewer,
)

from hesper.display.formats import BY_NAME
from hesper.display.geometry import Rect, Size
from hesper.display.input import Button, InputEvent, Key, PointerButton, PointerMove
from hesper.display.keys import CODE_OF_KEYSYM, CODE_OF_SCANCODE, QCODE_OF
from hesper.display.rfb.handshake import check_password, vnc_response
from hesper.display.rfb.server import VncServer
from hesper.display.rfb.service import RfbService
from hesper.display.scanout import Cursor, Display
from hesper.display.surface import MemorySurface

FENCE_REQUEST = 1 << 31
SYNC_NEXT = 4


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


def test_a_slow_viewer_holds_up_nobody() -> None:
    async def scenario() -> None:
        # Uncompressed, a frame is more than the system buffers for a connection.
        display, pattern = shown(2000, 2000)
        async with serve(display) as (service, server):
            stuck = await Viewer.connect(server.ports[0])
            stuck.writer.transport.pause_reading()
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
            stuck.writer.transport.resume_reading()
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
            viewer.key(True, ord("A"))
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


# Passwords


async def authenticate(port: int, password: str) -> tuple[Viewer, int]:
    viewer = await Viewer.begin(port)
    assert await viewer.read(2) == b"\x01\x02"
    viewer.send(b"\x02")
    challenge = await viewer.read(16)
    viewer.send(vnc_response(check_password(password), challenge))
    return viewer, await viewer.number(4)


def test_asks_for_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesper.display.rfb.handshake.PENALTY_SECONDS", 0.01)

    async def scenario() -> None:
        display, pattern = shown()
        async with serve(display, password="secret") as (_, server):
            viewer, result = await authenticate(server.ports[0], "secret")
            assert result == 0
            await viewer.initialise()
            await until_equal(viewer, pattern)
            viewer, result = await authenticate(server.ports[0], "Secret")
            assert result == 1
            assert await viewer.read(await viewer.number(4)) == b"wrong password"
            assert await is_closed(viewer)
            # Choosing "none" does not get around it.
            viewer = await Viewer.begin(server.ports[0])
            await viewer.read(2)
            viewer.send(b"\x01\x01")
            assert await is_closed(viewer)

    run(scenario())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "198.51.100.7"])
def test_wants_a_password_where_others_can_reach_it(host: str) -> None:
    async def scenario() -> None:
        async with RfbService(Display()) as service:
            with pytest.raises(ValueError, match="set a password"):
                VncServer(service, host)
            VncServer(service, host, password="secret")

    run(scenario())


@pytest.mark.parametrize("password", ["", "ninechars", "日本"])
def test_refuses_passwords_that_vnc_cannot_use(password: str) -> None:
    with pytest.raises(ValueError, match="VNC"):
        check_password(password)


# Hostile viewers

HOSTILE = {
    "not RFB": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "version 2": b"RFB 002.001\n",
    "security type 7": b"RFB 003.008\n\x07",
    "message 99": b"RFB 003.008\n\x01\x01\x63",
    "too many encodings": b"RFB 003.008\n\x01\x01\x02\x00\xff\xff",
    "four gigabytes of text": b"RFB 003.008\n\x01\x01\x06\0\0\0\xff\xff\xff\xff",
    "bad pixel format": b"RFB 003.008\n\x01\x01\0\0\0\0" + bytes(16),
    "unknown QEMU message": b"RFB 003.008\n\x01\x01\xff\x01" + bytes(10),
    "long fence": b"RFB 003.008\n\x01\x01\xf8\0\0\0\0\0\0\0\xff",
    "255 screens": b"RFB 003.008\n\x01\x01\xfb\0\0\x10\0\x10\xff\0",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_drops_viewers_that_break_the_protocol(
    data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        display, pattern = shown()
        async with serve(display) as (service, server):
            good = await Viewer.connect(server.ports[0])
            bad = Viewer(*await asyncio.open_connection("127.0.0.1", server.ports[0]))
            bad.send(data)
            assert await is_closed(bad)
            await until_equal(good, pattern)
            await until(lambda: len(service.feeds[0].viewers) == 1)

    run(scenario())
    assert "Traceback" not in capsys.readouterr().err


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_survives_any_bytes(data: st.DataObject) -> None:
    """Garbage after the handshake: messages with valid numbers and random contents."""
    kinds = st.sampled_from([0, 2, 3, 4, 5, 6, 150, 248, 251, 255, 7])
    sent = b"".join(
        bytes([data.draw(kinds)]) + data.draw(st.binary(max_size=40))
        for _ in range(data.draw(st.integers(1, 12)))
    )

    async def scenario() -> None:
        display, pattern = shown(100, 80)
        async with serve(display) as (service, server):
            bad = await Viewer.connect(server.ports[0])
            bad.send(sent)
            bad.writer.write_eof()
            assert await is_closed(bad)
            await until(lambda: not service.feeds[0].viewers)
            good = await Viewer.connect(server.ports[0])
            await until_equal(good, pattern)

    run(scenario())


def test_drops_viewers_that_stall_in_the_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesper.display.rfb.service.HANDSHAKE_SECONDS", 0.05)

    async def scenario() -> None:
        display, _ = shown()
        async with serve(display) as (_, server):
            viewer = await Viewer.begin(server.ports[0])
            assert await is_closed(viewer)

    run(scenario())


def test_drops_viewers_that_take_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesper.display.rfb.viewer.STALL_SECONDS", 0.1)

    async def scenario() -> None:
        display, _ = shown(2000, 2000)
        async with serve(display) as (service, server):
            viewer = await Viewer.connect(server.ports[0])
            viewer.writer.transport.pause_reading()
            viewer.request(incremental=False)
            await until(lambda: service.feeds[0].viewers)
            await until(lambda: not service.feeds[0].viewers)

    run(scenario())


@pytest.mark.parametrize("what", ["sizes", "fences", "colour maps"])
def test_drops_viewers_that_ask_and_never_read(what: str) -> None:
    async def scenario() -> None:
        display, _ = shown(2000, 2000)
        async with serve(display) as (service, server):
            viewer = await Viewer.connect(server.ports[0])
            viewer.writer.transport.pause_reading()
            viewer.request(incremental=False)
            no_colours = struct.pack(">BBBBHHHBBBxxx", 8, 8, 0, 0, 0, 0, 0, 0, 0, 0)
            for _ in range(20_000):
                if what == "sizes":
                    viewer.set_desktop_size(1000, 1000)
                elif what == "fences":
                    viewer.fence(FENCE_REQUEST, bytes(64))
                else:
                    viewer.send(b"\0\0\0\0" + no_colours)
            await until(lambda: not service.feeds[0].viewers)

    run(scenario())


def test_has_room_for_so_many_viewers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesper.display.rfb.service.MAX_CONNECTIONS", 3)

    async def scenario() -> None:
        display, pattern = shown()
        async with serve(display) as (_, server):
            viewers = [await Viewer.connect(server.ports[0]) for _ in range(3)]
            fourth = Viewer(*await asyncio.open_connection("127.0.0.1", server.ports[0]))
            assert await is_closed(fourth)
            await viewers[0].close()
            while True:
                try:
                    viewer = await Viewer.connect(server.ports[0])
                    break
                except (ConnectionError, EOFError):
                    continue
            await until_equal(viewer, pattern)

    run(scenario())


def test_leaves_nothing_behind() -> None:
    """Descriptors and subscriptions after many viewers that end in different ways."""

    async def scenario() -> None:
        display, pattern = shown()
        descriptors = len(os.listdir("/dev/fd"))
        async with serve(display) as (service, server):
            for number in range(30):
                viewer = await Viewer.connect(server.ports[0])
                if number % 3 == 0:
                    viewer.request()
                    viewer.writer.transport.abort()
                elif number % 3 == 1:
                    await until_equal(viewer, pattern)
                    await viewer.close()
                else:
                    viewer.send(b"\x63")
                    assert await is_closed(viewer)
                    await viewer.close()
            await until(lambda: not service.feeds[0].viewers)
        assert display[0].watchers == 0
        await until(lambda: len(os.listdir("/dev/fd")) <= descriptors)

    run(scenario())


def test_says_which_port_is_taken() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            async with RfbService(Display()) as service:
                with pytest.raises(OSError, match=str(port)):
                    async with VncServer(service, port=port):
                        pass

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
