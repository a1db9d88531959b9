"""The screens on a display of the VMM's own, against a scripted one."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from vmm_window import (
    CURSOR_POS,
    CURSOR_UPDATE,
    GET_DISPLAY_INFO,
    GET_PROTOCOL_FEATURES,
    PATIENCE,
    SCANOUT,
    UPDATE,
    VmmWindows,
)

from hesper.display.formats import BY_NAME
from hesper.display.scanout import Cursor, Display, MemorySurface, Rect, Size
from hesper.display.vmm import screens
from hesper.display.vmm.screen import MAX_UPDATE
from hesper.display.vmm.screens import VmmScreens
from open_files import assert_closed_since, open_files

XRGB = BY_NAME["XRGB8888"]


class Shown:
    """A display and the VMM's windows that show it."""

    def __init__(self, count: int = 1) -> None:
        """Connect them."""
        self.display = Display(count)
        self.vmm = VmmWindows(count)
        self.screens = VmmScreens(self.vmm.theirs, self.display)

    def close(self) -> None:
        """End both."""
        self.screens.close()
        self.vmm.close()

    def draw(
        self, width: int, height: int, *, index: int = 0, colour: int | None = None
    ) -> npt.NDArray[np.uint32]:
        """Show a picture, of one colour or none; returns its pixels, which may be changed."""
        if colour is None:
            pixels = np.random.default_rng(3).integers(0, 1 << 24, (height, width), np.uint32)
        else:
            pixels = np.full((height, width), colour, np.uint32)
        self.display[index].show(MemorySurface(pixels.data, Size(width, height), width * 4, XRGB))
        return pixels

    def wait_shown(self, pixels: npt.NDArray[np.uint32], *, index: int = 0) -> None:
        """Wait until the VMM shows it."""
        window = self.vmm.windows[index]
        self.vmm.until(lambda: window.shows(pixels))


@pytest.fixture
def shown() -> Iterator[Shown]:
    """One screen."""
    shown = Shown()
    yield shown
    shown.close()


def test_a_picture_is_shown_and_changes_alone_are_sent(shown: Shown) -> None:
    pixels = shown.draw(200, 150)
    shown.wait_shown(pixels)
    window = shown.vmm.windows[0]
    assert window.updates == [(0, 0, 200, 150)]
    pixels[70, 130] ^= 1
    pixels[71, 131] ^= 1
    shown.display[0].flush([Rect(0, 0, 200, 150)])
    shown.wait_shown(pixels)
    assert window.updates[1:] == [(128, 64, 64, 64)]
    # Nothing differs: nothing comes.
    shown.vmm.until(lambda: shown.vmm.requests[-1] == GET_DISPLAY_INFO)
    shown.display[0].flush([Rect(0, 0, 200, 150)])
    assert shown.vmm.is_silent()


def test_a_large_picture_comes_in_parts(shown: Shown) -> None:
    pixels = shown.draw(2000, 1200)
    shown.wait_shown(pixels)
    updates = shown.vmm.windows[0].updates
    assert len(updates) > 1
    assert all(width * height * 4 <= MAX_UPDATE for _, _, width, height in updates)


def test_a_screen_goes_and_comes_in_another_size(shown: Shown) -> None:
    shown.wait_shown(shown.draw(64, 64, colour=5))
    shown.display[0].show(None)
    shown.vmm.until(lambda: shown.vmm.windows[0].picture is None)
    shown.display[0].flush([Rect(0, 0, 64, 64)])
    shown.wait_shown(shown.draw(100, 30, colour=6))
    shown.wait_shown(shown.draw(30, 100, colour=7))
    assert shown.vmm.requests.count(SCANOUT) == 4


def test_a_screen_that_never_showed_anything_is_not_spoken_of(shown: Shown) -> None:
    shown.vmm.until(lambda: len(shown.vmm.requests) == 2)
    assert shown.vmm.is_silent()


def test_each_screen_has_a_window() -> None:
    shown = Shown(3)
    first = shown.draw(70, 80)
    last = shown.draw(90, 60, index=2)
    shown.wait_shown(first)
    shown.wait_shown(last, index=2)
    assert shown.vmm.windows[1].picture is None
    shown.close()


def test_the_cursor(shown: Shown) -> None:
    vmm, window, scanout = shown.vmm, shown.vmm.windows[0], shown.display[0]
    pixels = np.arange(32 * 20, dtype=np.uint32).reshape(32, 20)
    scanout.move_cursor(-5, -40)
    scanout.set_cursor(Cursor(pixels, 3, 31))
    vmm.until(lambda: window.cursor_shown and window.position == (-5, -40))
    assert window.cursor is not None
    assert np.array_equal(window.cursor[:32, :20], pixels)
    assert not window.cursor[32:].any()
    assert not window.cursor[:, 20:].any()
    assert window.hot_spot == (3, 31)
    pictures = vmm.requests.count(CURSOR_UPDATE)
    scanout.move_cursor(7, 8)
    vmm.until(lambda: window.position == (7, 8))
    assert vmm.requests[-1] == CURSOR_POS
    assert vmm.requests.count(CURSOR_UPDATE) == pictures
    scanout.set_cursor(None)
    vmm.until(lambda: not window.cursor_shown)
    # Without one, its moves are nobody's business.
    vmm.until(lambda: vmm.requests[-1] == GET_DISPLAY_INFO)
    scanout.move_cursor(9, 9)
    assert vmm.is_silent()
    scanout.set_cursor(Cursor(pixels, 0, 0))
    vmm.until(lambda: window.cursor_shown)
    assert window.position == (9, 9)


def test_a_cursor_that_is_too_large_is_cut(shown: Shown) -> None:
    pixels = np.arange(128 * 100, dtype=np.uint32).reshape(128, 100)
    shown.display[0].set_cursor(Cursor(pixels, 99, 120))
    window = shown.vmm.windows[0]
    shown.vmm.until(lambda: window.cursor_shown)
    assert window.cursor is not None
    assert np.array_equal(window.cursor, pixels[:64, :64])
    assert window.hot_spot == (63, 63)


def test_a_vmm_that_reads_late_gets_the_last_picture_alone(shown: Shown) -> None:
    """It has one frame to take; what is drawn meanwhile gathers, and nobody waits."""
    vmm = shown.vmm
    vmm.answers = False
    pixels = shown.draw(300, 300, colour=0)
    vmm.until(lambda: vmm.unanswered)
    frames = vmm.requests.count(UPDATE)
    for colour in range(1, 200):
        pixels[:] = colour
        shown.display[0].flush([Rect(0, 0, 300, 300)])
        shown.display[0].move_cursor(colour, colour)
    assert vmm.is_silent()
    vmm.answers = True
    vmm.answer()
    shown.wait_shown(pixels)
    assert vmm.requests.count(UPDATE) == frames + 1


def test_a_vmm_that_reads_nothing_stops_nobody(shown: Shown) -> None:
    """Its socket is full, in the middle of a picture."""
    pixels = shown.draw(1920, 1080)
    drawn = threading.Event()

    def guest() -> None:
        for turn in range(500):
            pixels[:] = turn
            shown.display[0].flush([Rect(0, 0, 1920, 1080)])
        drawn.set()

    threading.Thread(target=guest, daemon=True).start()
    assert drawn.wait(PATIENCE)
    shown.wait_shown(pixels)


def test_sizes_of_windows_are_asked_for_and_wanted(shown: Shown) -> None:
    vmm = shown.vmm
    vmm.sizes = [(1000, 700)]
    known = threading.Event()
    shown.screens.ask_sizes(known.set)
    vmm.until(lambda: GET_DISPLAY_INFO in vmm.requests)
    assert known.wait(PATIENCE)
    assert shown.display[0].wanted == (1000, 700)
    # Another viewer wants another: the window, which says what it said before, is no news.
    shown.display[0].request_size(Size(640, 480))
    again = threading.Event()
    shown.screens.ask_sizes(again.set)
    vmm.until(lambda: vmm.requests.count(GET_DISPLAY_INFO) == 2)
    assert again.wait(PATIENCE)
    assert shown.display[0].wanted == (640, 480)


@pytest.mark.parametrize("size", [(0, 0), (0, 600), (1 << 31, 1 << 31), (8193, 1)])
def test_a_size_that_no_screen_has_changes_nothing(shown: Shown, size: tuple[int, int]) -> None:
    shown.vmm.sizes = [size]
    known = threading.Event()
    shown.screens.ask_sizes(known.set)
    shown.vmm.until(lambda: GET_DISPLAY_INFO in shown.vmm.requests)
    assert known.wait(PATIENCE)
    assert shown.display[0].wanted == (1280, 800)
    shown.wait_shown(shown.draw(20, 20))


def test_an_answer_is_newer_than_the_question(shown: Shown) -> None:
    """Who asks while another's answer is on its way gets one of his own."""
    vmm = shown.vmm
    vmm.answers = False
    first, second = threading.Event(), threading.Event()
    shown.screens.ask_sizes(first.set)
    vmm.until(lambda: vmm.unanswered == 1)
    shown.screens.ask_sizes(second.set)
    vmm.sizes = [(800, 600)]
    vmm.answer()
    assert first.wait(PATIENCE)
    vmm.until(lambda: vmm.unanswered == 1)
    vmm.sizes = [(900, 700)]
    vmm.answer()
    assert second.wait(PATIENCE)
    assert shown.display[0].wanted == (900, 700)


def test_who_asks_a_vmm_that_does_not_answer_is_told_all_the_same(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screens, "ASK_SECONDS", 0.05)
    shown.vmm.answers = False
    shown.vmm.until(lambda: len(shown.vmm.requests) == 2)
    for _ in range(20):
        known = threading.Event()
        shown.screens.ask_sizes(known.set)
        assert known.wait(PATIENCE)
    shown.vmm.until(lambda: shown.vmm.unanswered == 1)
    # It is not asked again and again.
    assert shown.vmm.is_silent()


def test_who_asks_a_display_that_goes_is_told_all_the_same(shown: Shown) -> None:
    shown.vmm.answers = False
    known, late = threading.Event(), threading.Event()
    shown.screens.ask_sizes(known.set)
    shown.vmm.until(lambda: shown.vmm.unanswered)
    shown.vmm.close()
    assert known.wait(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while shown.display[0].watchers and time.monotonic() < deadline:
        time.sleep(0.01)
    shown.screens.ask_sizes(late.set)
    assert late.wait(PATIENCE)


def test_an_answer_may_come_in_pieces(shown: Shown) -> None:
    vmm = shown.vmm
    vmm.answers = False
    known = threading.Event()
    shown.screens.ask_sizes(known.set)
    vmm.until(lambda: vmm.unanswered)
    info = bytes(24) + struct.pack("=6I", 0, 0, 777, 555, 1, 0).ljust(384, b"\0")
    for byte in struct.pack("=3I", GET_DISPLAY_INFO, 4, 408) + info:
        vmm.socket.sendall(bytes([byte]))
    assert known.wait(PATIENCE)
    assert shown.display[0].wanted == (777, 555)


GARBAGE = {
    "an answer that nobody asked for": struct.pack("=3I", 11, 4, 0),
    "no answer": struct.pack("=3IQ", GET_PROTOCOL_FEATURES, 0, 8, 3),
    "an answer of another size": struct.pack("=3I", GET_PROTOCOL_FEATURES, 4, 1 << 31),
    "no message at all": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_ends_the_display_with_a_line(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    before = open_files()
    display = Display(1)
    ours, theirs = socket.socketpair()
    VmmScreens(theirs, display)
    with ours:
        ours.settimeout(PATIENCE)
        ours.sendall(garbage)
        assert len(ours.recv(12)) == 12
        with contextlib.suppress(ConnectionResetError):
            while ours.recv(1 << 16):
                pass
    assert_closed_since(before)
    display[0].flush([])
    assert display[0].watchers == 0
    assert caplog.text.count("not an answer that was asked for") == 1


@pytest.mark.parametrize("by", ["us", "the VMM"])
def test_nothing_is_left_of_a_display_that_is_closed(by: str) -> None:
    before = open_files()
    shown = Shown()
    shown.wait_shown(shown.draw(100, 100))
    if by == "us":
        shown.screens.close()
        with pytest.raises(ConnectionError):
            shown.vmm.until(lambda: False)
        shown.vmm.close()
    else:
        shown.vmm.close()
    assert_closed_since(before)
    assert shown.display[0].watchers == 0
    shown.screens.close()


def test_a_display_that_is_read_no_more_is_closed_in_the_middle_of_a_picture() -> None:
    before = open_files()
    shown = Shown()
    shown.draw(3000, 2000)
    shown.vmm.until(lambda: SCANOUT in shown.vmm.requests)
    shown.close()
    assert_closed_since(before)
