"""Pixel formats against a reference that looks at one pixel at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hesper.display.formats import BY_FOURCC, BY_NAME, BY_VIRTIO, FORMATS, Channel, PixelFormat
from hesper.display.geometry import Rect, Size
from hesper.display.surface import MemorySurface, ScatteredSurface

SIZE = Size(9, 5)


class Pieces:
    """Memory in several pieces (a `surface.Scattered`)."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._data = b"".join(pieces)
        self.size = len(self._data)

    def gather(self, start: int, out: np.ndarray) -> None:
        assert 0 <= start <= start + len(out) <= self.size
        out[:] = np.frombuffer(self._data, np.uint8)[start : start + len(out)]


def eight_bits(value: int, channel: Channel) -> int:
    """A channel's value, its bits repeated until there are eight."""
    part = value >> channel.shift & (1 << channel.bits) - 1
    return int((f"{part:0{channel.bits}b}" * 8)[:8], 2)


@pytest.mark.parametrize("pixel_format", FORMATS, ids=lambda f: f.name)
@given(data=st.data())
def test_converts_every_format(pixel_format: PixelFormat, data: st.DataObject) -> None:
    size = pixel_format.bytes_per_pixel
    stride = SIZE.width * size + data.draw(st.integers(0, 7))
    offset = data.draw(st.integers(0, 5))
    length = offset + stride * SIZE.height
    memory = data.draw(st.binary(min_size=length, max_size=length))
    cuts = sorted(data.draw(st.sets(st.integers(1, length - 1), max_size=8)))
    pieces = [memory[a:b] for a, b in zip([0, *cuts], [*cuts, length], strict=True)]
    x, y = data.draw(st.integers(0, SIZE.width - 1)), data.draw(st.integers(0, SIZE.height - 1))
    rect = Rect(
        x,
        y,
        data.draw(st.integers(1, SIZE.width - x)),
        data.draw(st.integers(1, SIZE.height - y)),
    )
    expected = np.zeros((rect.height, rect.width), "<u4")
    for row in range(rect.height):
        for column in range(rect.width):
            start = offset + (y + row) * stride + (x + column) * size
            value = int.from_bytes(memory[start : start + size], "little")
            red, green, blue = (
                eight_bits(value, channel)
                for channel in (pixel_format.red, pixel_format.green, pixel_format.blue)
            )
            expected[row, column] = red << 16 | green << 8 | blue
    for surface in (
        MemorySurface(memory, SIZE, stride, pixel_format, offset),
        ScatteredSurface(Pieces(pieces), SIZE, stride, pixel_format, offset),
    ):
        found = np.full((rect.height, rect.width), 0xDEADBEEF, "<u4")
        surface.read(rect, found)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("number", "memory"),
    [
        (1, "BGRA"),
        (2, "BGRX"),
        (3, "ARGB"),
        (4, "XRGB"),
        (67, "RGBA"),
        (68, "XBGR"),
        (121, "ABGR"),
        (134, "RGBX"),
    ],
)
def test_virtio_formats_name_bytes_in_memory(number: int, memory: str) -> None:
    values = {"R": 0x11, "G": 0x22, "B": 0x33, "A": 0x44, "X": 0x55}
    pixel = bytes(values[letter] for letter in memory)
    surface = MemorySurface(pixel, Size(1, 1), 4, BY_VIRTIO[number])
    found = np.zeros((1, 1), "<u4")
    surface.read(Rect(0, 0, 1, 1), found)
    assert found[0, 0] == 0x112233
    alpha = BY_VIRTIO[number].alpha_of(surface.pixels(Rect(0, 0, 1, 1)))
    assert alpha[0, 0] == (0x44 if "A" in memory else 255)


def test_fourccs_are_those_of_drm() -> None:
    assert BY_FOURCC[0x34325258] is BY_NAME["XRGB8888"]
    assert BY_FOURCC[0x34324152] is BY_NAME["RGBA8888"]
    assert BY_FOURCC[0x36314752] is BY_NAME["RGB565"]
    assert BY_FOURCC[0x30335241] is BY_NAME["ARGB2101010"]
    assert len(BY_FOURCC) == len(FORMATS)


@pytest.mark.parametrize(
    ("size", "stride", "offset", "reason"),
    [
        (Size(0, 4), 64, 0, "edges"),
        (Size(8193, 1), 64000, 0, "edges"),
        (Size(8192, 8192), 32768, 0, "at most"),
        (Size(16, 4), 63, 0, "need 64"),
        (Size(16, 5), 64, 0, "ends at byte 320 of 256"),
        (Size(16, 4), 64, 1, "ends at byte 257 of 256"),
        (Size(16, 4), 64, -1, "offset -1"),
    ],
)
def test_refuses_layouts_that_do_not_fit(size: Size, stride: int, offset: int, reason: str) -> None:
    for make in (
        lambda: MemorySurface(bytes(256), size, stride, BY_NAME["XRGB8888"], offset),
        lambda: ScatteredSurface(Pieces([bytes(256)]), size, stride, BY_NAME["XRGB8888"], offset),
    ):
        with pytest.raises(ValueError, match=reason):
            make()


def test_a_surface_shows_memory_as_it_is_now() -> None:
    memory = bytearray(4)
    surface = MemorySurface(memory, Size(1, 1), 4, BY_NAME["XRGB8888"])
    memory[:] = b"\x03\x02\x01\xff"
    found = np.zeros((1, 1), "<u4")
    surface.read(Rect(0, 0, 1, 1), found)
    assert found[0, 0] == 0x010203
