"""Text that viewers copy, and text that they are told of; the guest is played by the tests."""

from __future__ import annotations

import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from serving import is_closed, run, serve, shown, until
from vnc_client import EXTENDED_CLIPBOARD, RAW, Viewer

from hesper.display.clipboard import MAX_TEXT, Clipboard, clean
from hesper.display.rfb.service import RfbService

TEXT = 1
CAPS, REQUEST, PEEK, NOTIFY, PROVIDE = (1 << bit for bit in range(24, 29))


class Guest:
    """A guest that takes what is copied."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def take_text(self, text: str) -> None:
        self.texts.append(text)


def packed(text: str, *, size: int | None = None) -> bytes:
    """Text as the extension provides it."""
    data = text.encode() + b"\0"
    return zlib.compress(struct.pack(">I", len(data) if size is None else size) + data)


def unpacked(data: bytes) -> str:
    plain = zlib.decompress(data)
    (size,) = struct.unpack_from(">I", plain)
    assert len(plain) == 4 + size
    assert plain.endswith(b"\0")
    return plain[4:-1].decode()


@asynccontextmanager
async def scene() -> AsyncIterator[tuple[RfbService, Guest, Viewer]]:
    """A guest, and a viewer that has asked for nothing yet."""
    display, _ = shown()
    async with serve(display) as (service, server):
        guest = Guest()
        service.clipboard.connect_guest(guest)
        viewer = await Viewer.connect(server.ports[0])
        yield service, guest, viewer


async def extended(viewer: Viewer) -> None:
    """Agree on the extension."""
    viewer.set_encodings(RAW, EXTENDED_CLIPBOARD)
    while not viewer.clipboard:
        await viewer.message()
    flags, sizes = viewer.clipboard.pop()
    assert flags == CAPS | REQUEST | PEEK | NOTIFY | PROVIDE | TEXT
    assert sizes == bytes(4)
    viewer.clipboard_message(CAPS | REQUEST | NOTIFY | PROVIDE | TEXT, bytes(4))


async def next_message(viewer: Viewer) -> tuple[int, bytes]:
    while not viewer.clipboard:
        await viewer.message()
    return viewer.clipboard.pop(0)


def test_a_viewer_gives_its_text_when_it_is_asked() -> None:
    async def scenario() -> None:
        async with scene() as (_, guest, viewer):
            await extended(viewer)
            viewer.clipboard_message(NOTIFY | TEXT)
            assert await next_message(viewer) == (REQUEST | TEXT, b"")
            viewer.clipboard_message(PROVIDE | TEXT, packed("zwei\r\nZeilen \N{SNOWMAN}\x1b[2J"))
            await until(lambda: guest.texts)
            assert guest.texts == ["zwei\nZeilen \N{SNOWMAN}[2J"]

    run(scenario())


def test_a_viewer_is_told_of_the_guests_text_and_may_have_it() -> None:
    async def scenario() -> None:
        async with scene() as (service, _, viewer):
            await extended(viewer)
            service.clipboard.copy_in_guest("one\ntwo \N{SNOWMAN}")
            assert await next_message(viewer) == (NOTIFY | TEXT, b"")
            viewer.clipboard_message(REQUEST | TEXT)
            flags, data = await next_message(viewer)
            assert flags == PROVIDE | TEXT
            assert unpacked(data) == "one\r\ntwo \N{SNOWMAN}"
            service.clipboard.copy_in_guest(None)
            viewer.clipboard_message(PEEK)
            assert await next_message(viewer) == (NOTIFY, b"")

    run(scenario())


def test_a_viewer_that_comes_later_is_told_too() -> None:
    async def scenario() -> None:
        async with scene() as (service, _, viewer):
            service.clipboard.copy_in_guest("before")
            await extended(viewer)
            assert await next_message(viewer) == (NOTIFY | TEXT, b"")

    run(scenario())


def test_old_viewers_have_plain_text() -> None:
    async def scenario() -> None:
        async with scene() as (service, guest, viewer):
            viewer.set_encodings(RAW)
            viewer.cut_text("gr\xfcn\r\nrot".encode("latin-1"))
            await until(lambda: guest.texts)
            assert guest.texts == ["gr\xfcn\nrot"]
            service.clipboard.copy_in_guest("\xfcber \N{SNOWMAN}")
            while not viewer.cut_texts:
                await viewer.message()
            assert viewer.cut_texts == [b"\xfcber ?"]

    run(scenario())


def test_what_a_viewer_has_copied_does_not_come_back_to_it() -> None:
    async def scenario() -> None:
        async with scene() as (service, guest, viewer):
            viewer.set_encodings(RAW)
            viewer.cut_text(b"mine")
            await until(lambda: guest.texts)
            # As clipboard managers do.
            service.clipboard.copy_in_guest("mine")
            service.clipboard.copy_in_guest("other")
            while not viewer.cut_texts:
                await viewer.message()
            assert viewer.cut_texts == [b"other"]

    run(scenario())


def test_a_guest_that_copies_without_end_fills_nothing() -> None:
    async def scenario() -> None:
        async with scene() as (service, _, viewer):
            viewer.set_encodings(RAW)
            viewer.pause_reading()
            for number in range(3000):
                service.clipboard.copy_in_guest(f"{number} " + "x" * 10_000)
            viewer.resume_reading()
            while not viewer.cut_texts or not viewer.cut_texts[-1].startswith(b"2999 "):
                await viewer.message()
            assert len(viewer.cut_texts) < 100

    run(scenario())


@pytest.mark.parametrize(
    "data",
    [b"no zlib", zlib.compress(b"abc"), packed("short", size=1000)],
)
def test_a_viewer_that_breaks_the_extension_is_dropped(data: bytes) -> None:
    async def scenario() -> None:
        async with scene() as (_, guest, viewer):
            await extended(viewer)
            viewer.clipboard_message(PROVIDE | TEXT, data)
            assert await is_closed(viewer)
            assert not guest.texts

    run(scenario())


def test_text_that_is_too_long_is_left_out_and_the_viewer_stays() -> None:
    async def scenario() -> None:
        async with scene() as (_, guest, viewer):
            await extended(viewer)
            # A kilobyte of it on the wire.
            viewer.clipboard_message(PROVIDE | TEXT, packed("x" * (MAX_TEXT + 1)))
            viewer.clipboard_message(PROVIDE | TEXT, packed("y" * (64 << 20)))
            viewer.clipboard_message(PROVIDE | TEXT, packed("short"))
            await until(lambda: guest.texts)
            assert guest.texts == ["short"]

    run(scenario())


def test_a_guest_that_comes_later_has_what_was_copied() -> None:
    clipboard, guest = Clipboard(), Guest()
    clipboard.copy_at_viewer("before")
    clipboard.connect_guest(guest)
    clipboard.copy_in_guest("theirs")
    clipboard.connect_guest(None)
    clipboard.connect_guest(guest)
    assert guest.texts == ["before"]


def test_nothing_is_asked_for_where_the_clipboard_is_off() -> None:
    async def scenario() -> None:
        async with scene() as (service, guest, viewer):
            service.clipboard.is_on = False
            viewer.set_encodings(RAW, EXTENDED_CLIPBOARD)
            viewer.cut_text(b"secret")
            viewer.request(incremental=False)
            await viewer.update()
            assert not viewer.clipboard
            assert not guest.texts

    run(scenario())


def test_control_characters_are_left_out() -> None:
    assert clean("a\tb\r\nc\rd\x1b[0m\0\x7f\x9b\xa0e") == "a\tb\nc\nd[0m\xa0e"
