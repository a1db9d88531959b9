"""Damage, subscriptions and pictures of scanouts."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hesper.display.formats import BY_NAME
from hesper.display.frame import Capture, draw_cursor
from hesper.display.geometry import TILE, Damage, Rect, Size
from hesper.display.input import Key
from hesper.display.scanout import Cursor, Display, Scanout
from hesper.display.surface import MemorySurface, Surface

XRGB = BY_NAME["XRGB8888"]


def rects(size: Size) -> st.SearchStrategy[Rect]:
    """Rectangles in and around a scanout."""
    return st.builds(
        Rect,
        st.integers(-70, size.width + 10),
        st.integers(-70, size.height + 10),
        st.integers(0, 200),
        st.integers(0, 200),
    )


def tiles_of(rect: Rect, size: Size) -> set[tuple[int, int]]:
    return {
        (x // TILE, y // TILE)
        for y in range(max(rect.y, 0), min(rect.y + rect.height, size.height))
        for x in range(max(rect.x, 0), min(rect.x + rect.width, size.width))
    }


@given(data=st.data(), size=st.builds(Size, st.integers(1, 300), st.integers(1, 300)))
@settings(deadline=None)
def test_damage_is_the_tiles_that_were_touched(data: st.DataObject, size: Size) -> None:
    added = data.draw(st.lists(rects(size), max_size=5))
    area = data.draw(rects(size))
    damage = Damage(size)
    damage.update(added)
    expected = set().union(*(tiles_of(rect, size) for rect in added))
    assert bool(damage) == bool(expected)

    def covered(found: list[Rect]) -> set[tuple[int, int]]:
        count = np.zeros((size.height, size.width), np.int32)
        for rect in found:
            assert rect.clip(size) == rect
            count[rect.slices] += 1
        assert count.max(initial=0) <= 1, "rectangles overlap"
        return {(int(x) // TILE, int(y) // TILE) for y, x in np.argwhere(count)}

    assert covered(damage.rects()) == expected
    inside = tiles_of(area, size)
    assert damage.touches(area) == bool(expected & inside)
    assert covered(damage.take(area)) == expected & inside
    assert covered(damage.rects()) == expected - inside


def test_all_damage_is_one_rectangle() -> None:
    damage = Damage(Size(1280, 800))
    damage.add_all()
    assert damage.rects() == [Rect(0, 0, 1280, 800)]


def surface_of(size: Size, memory: bytearray | None = None) -> MemorySurface:
    return MemorySurface(
        memory or bytearray(size.width * size.height * 4), size, size.width * 4, XRGB
    )


def test_wakes_an_output_once_until_it_takes() -> None:
    scanout = Display()[0]
    calls: list[None] = []
    subscription = scanout.subscribe(lambda: calls.append(None))
    assert len(calls) == 1
    scanout.show(surface_of(Size(640, 480)))
    for _ in range(1000):
        scanout.flush([Rect(0, 0, 10, 10)])
    assert len(calls) == 1
    update = subscription.take()
    assert update.flushes == 1000
    assert update.damage == [Rect(0, 0, 640, 480)]
    scanout.flush([Rect(70, 70, 1, 1)])
    scanout.move_cursor(3, 4)
    assert len(calls) == 2
    update = subscription.take()
    assert update.damage == [Rect(64, 64, 64, 64)]
    assert update.cursor_position == (3, 4)
    assert not update.cursor_changed
    subscription.close()
    scanout.flush([Rect(0, 0, 10, 10)])
    assert len(calls) == 2
    assert scanout.watchers == 0


def test_each_output_has_its_own_damage() -> None:
    scanout = Display()[0]
    scanout.show(surface_of(Size(640, 480)))
    one, other = (scanout.subscribe(lambda: None) for _ in range(2))
    one.take()
    scanout.flush([Rect(0, 0, 1, 1)])
    assert one.take().damage == [Rect(0, 0, 64, 64)]
    assert other.take().damage == [Rect(0, 0, 640, 480)]
    assert not one.take().damage


def test_a_new_size_is_damaged_whole_and_none_has_no_damage() -> None:
    scanout = Display()[0]
    scanout.show(surface_of(Size(640, 480)))
    subscription = scanout.subscribe(lambda: None)
    subscription.take()
    scanout.show(surface_of(Size(100, 50)))
    assert subscription.take().damage == [Rect(0, 0, 100, 50)]
    scanout.show(None)
    update = subscription.take()
    assert (update.surface, update.damage) == (None, [])


def test_a_picture_is_replaced_where_it_is_shown() -> None:
    scanout = Display()[0]
    woken: list[int] = []
    subscription = scanout.subscribe(lambda: woken.append(1))
    first, second, guests = (MemorySurface(bytes(4 * 4), Size(2, 2), 8, XRGB) for _ in range(3))
    subscription.take()
    assert scanout.replace(None, first)
    assert scanout.replace(first, second)
    assert subscription.take().surface is second
    scanout.show(guests)
    subscription.take()
    before = len(woken)
    assert not scanout.replace(second, None)
    assert scanout.surface is guests
    assert len(woken) == before


def test_passes_on_what_viewers_want() -> None:
    wanted: list[tuple[int, Size]] = []
    display = Display(3, resized=lambda scanout: wanted.append((scanout.index, scanout.wanted)))
    display[1].request_size(Size(800, 600))
    display[1].request_size(Size(800, 600))
    with pytest.raises(ValueError, match="edges"):
        display[1].request_size(Size(0, 600))
    assert wanted == [(1, Size(800, 600))]
    events: list[tuple[int, object]] = []
    display.connect_input(lambda index, sent: events.append((index, tuple(sent))))
    display[2].send_input([Key(30, True)])
    display[2].send_input([])
    assert events == [(2, (Key(30, True),))]
    with pytest.raises(ValueError, match="17 scanouts"):
        Display(17)


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_a_capture_equals_the_memory_after_any_drawing(data: st.DataObject) -> None:
    """Draw, flush and take in any order: what is taken is what was flushed last."""
    scanout = Display()[0]
    capture = Capture(scanout, lambda: None)
    size = Size(200, 150)
    memory = bytearray(size.width * size.height * 4)
    pixels = np.frombuffer(memory, "<u4").reshape(size.height, size.width)
    scanout.show(surface_of(size, memory))
    seen = capture.take().frame.pixels.copy()
    generator = np.random.default_rng(data.draw(st.integers(0, 1000)))
    for _ in range(data.draw(st.integers(1, 6))):
        step = data.draw(st.sampled_from(["draw", "draw", "resize", "hide"]))
        if step == "draw":
            rect = data.draw(rects(size)).clip(size)
            if rect is not None:
                shape = (rect.height, rect.width)
                pixels[rect.slices] = generator.integers(0, 1 << 32, shape, np.uint32)
                scanout.flush([rect])
        elif step == "resize":
            size = Size(data.draw(st.integers(1, 300)), data.draw(st.integers(1, 200)))
            memory = bytearray(generator.bytes(size.width * size.height * 4))
            pixels = np.frombuffer(memory, "<u4").reshape(size.height, size.width)
            scanout.show(surface_of(size, memory))
        else:
            scanout.show(None)
            scanout.show(surface_of(size, memory))
        if data.draw(st.booleans()):
            picture = capture.take()
            assert picture.frame.size == size
            np.testing.assert_array_equal(picture.frame.pixels, pixels & 0xFFFFFF)
            if seen.shape == picture.frame.pixels.shape:
                # Whoever copies what is said to have changed has the whole picture.
                for rect in picture.changed:
                    seen[rect.slices] = picture.frame.pixels[rect.slices]
            else:
                assert picture.changed == [Rect(0, 0, *size)]
                seen = picture.frame.pixels.copy()
            np.testing.assert_array_equal(seen, pixels & 0xFFFFFF)


def test_a_capture_leaves_out_what_was_flushed_unchanged() -> None:
    scanout = Display()[0]
    memory = bytearray(640 * 480 * 4)
    scanout.show(surface_of(Size(640, 480), memory))
    capture = Capture(scanout, lambda: None)
    capture.take()
    memory[4 * (640 * 100 + 70)] = 9
    memory[4 * (640 * 479 + 639)] = 9
    memory[3] = 9  # the byte that XRGB does not use
    scanout.flush([Rect(0, 0, 640, 480)])
    assert capture.take().changed == [Rect(64, 64, 64, 64), Rect(576, 448, 64, 32)]


def test_a_scanout_without_picture_says_so() -> None:
    scanout = Scanout(2, Size(640, 400))
    capture = Capture(scanout, lambda: None)
    picture = capture.take()
    assert picture.frame.size == (640, 400)
    assert len(np.unique(picture.frame.pixels)) > 2, "there is text"
    assert capture.take().changed == []
    scanout.show(surface_of(Size(640, 400)))
    assert capture.take().changed == [Rect(0, 0, 640, 400)]


def test_a_capture_recovers_from_a_surface_that_fails() -> None:
    class Failing(Surface):
        fails = True

        def pixels(self, rect: Rect) -> np.ndarray:
            if self.fails:
                raise OSError("read-back failed")
            return np.full((rect.height, rect.width), 7, "<u4")

    surface = Failing(Size(80, 80), XRGB)
    scanout = Display()[0]
    scanout.show(surface)
    capture = Capture(scanout, lambda: None)
    with pytest.raises(OSError, match="read-back"):
        capture.take()
    surface.fails = False
    picture = capture.take()
    assert picture.changed == [Rect(0, 0, 80, 80)]
    assert (picture.frame.pixels == 7).all()


@given(
    x=st.integers(-40, 60),
    y=st.integers(-40, 60),
    alpha=st.integers(0, 255),
    colour=st.integers(0, 255),
    under=st.integers(0, 255),
)
def test_draws_a_cursor_wherever_it_is(x: int, y: int, alpha: int, colour: int, under: int) -> None:
    pixels = np.full((16, 32), alpha << 24 | colour << 8, "<u4")
    area = Rect(10, 5, 30, 30)
    target = np.full((30, 30), under << 8, "<u4")
    draw_cursor(target, area, Cursor(pixels, 0, 0), (x, y))
    for row in range(30):
        for column in range(30):
            inside = 0 <= column + 10 - x < 32 and 0 <= row + 5 - y < 16
            blended = min(255, colour + (under * (255 - alpha) + 127) // 255)
            assert target[row, column] == (blended if inside else under) << 8


def test_a_cursor_is_a_copy_with_alpha() -> None:
    memory = bytearray(64 * 64 * 4)
    surface = MemorySurface(memory, Size(64, 64), 256, BY_NAME["ARGB8888"])
    memory[:4] = bytes([0x10, 0x20, 0x40, 0x80])
    cursor = Cursor.from_surface(surface, 99, 2)
    memory[:4] = bytes(4)
    assert cursor.pixels[0, 0] == 0x80402010
    assert (cursor.hot_x, cursor.hot_y) == (63, 2)
    assert cursor.straight()[0, 0] == 0x807F3F1F


def test_a_device_never_waits_for_an_output_that_does_nothing() -> None:
    """Twenty thousand flushes beside an output that never takes, and one that races."""
    scanout = Display()[0]
    scanout.show(surface_of(Size(1280, 800)))
    scanout.subscribe(lambda: None)
    busy = scanout.subscribe(lambda: None)
    flushes = 0
    done = threading.Event()

    def take() -> None:
        nonlocal flushes
        while not done.is_set():
            flushes += busy.take().flushes

    thread = threading.Thread(target=take)
    thread.start()
    for number in range(20_000):
        scanout.flush([Rect(number % 1280, number % 800, 100, 100)])
    done.set()
    thread.join()
    assert flushes + busy.take().flushes == 20_000
