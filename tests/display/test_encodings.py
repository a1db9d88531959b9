"""Every encoding, decoded by code that only knows the specification."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from rfb_decoders import Layout
from vnc_client import RAW, TIGHT, ZRLE, Viewer

from hesper.display.geometry import Rect
from hesper.display.rfb import des
from hesper.display.rfb.channel import PORTION, StreamChannel
from hesper.display.rfb.encoders import STRIP, Encoded, Encoder, RawEncoder
from hesper.display.rfb.pixels import PixelConverter
from hesper.display.rfb.tight import TightEncoder
from hesper.display.rfb.update import serialize
from hesper.display.rfb.wire import PixelLayout, RfbError
from hesper.display.rfb.zrle import ZrleEncoder

try:
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
except ImportError:
    from cryptography.hazmat.primitives.ciphers.algorithms import TripleDES

LAYOUTS = {
    "native": Layout(),
    "bgr": Layout(shifts=(0, 8, 16)),
    "high bytes": Layout(shifts=(24, 16, 8)),
    "big-endian": Layout(big=True),
    "big-endian, high bytes": Layout(big=True, shifts=(24, 16, 8)),
    "depth 32": Layout(depth=32),
    "30 bits": Layout(depth=30, maxima=(1023, 1023, 1023), shifts=(20, 10, 0)),
    "565": Layout(16, 16, False, (31, 63, 31), (11, 5, 0)),
    "565 big-endian": Layout(16, 16, True, (31, 63, 31), (11, 5, 0)),
    "233": Layout(8, 8, False, (7, 7, 3), (0, 3, 6)),
    "64 colours": Layout(8, 6, False, (3, 3, 3), (4, 2, 0)),
}

MAKERS: dict[int, Callable[[], Encoder]] = {
    RAW: RawEncoder,
    ZRLE: lambda: ZrleEncoder(1),
    TIGHT: lambda: TightEncoder(1),
}


def picture(data: st.DataObject) -> np.ndarray:
    """A picture of one of the kinds that encoders tell apart, or of two side by side."""
    width, height = data.draw(st.integers(1, 150)), data.draw(st.integers(1, 140))
    generator = np.random.default_rng(data.draw(st.integers(0, 1 << 16)))
    parts = []
    for part in np.array_split(np.arange(width), data.draw(st.integers(1, 2))):
        colours = data.draw(st.sampled_from([1, 2, 3, 4, 5, 16, 17, 100, 200, 300, 1 << 24]))
        run = data.draw(st.sampled_from([1, 2, 7, 300, 2000]))
        palette = generator.integers(0, 1 << 24, min(colours, 4096), np.uint32)
        count = height * max(len(part), 1)
        values = palette[np.repeat(generator.integers(0, len(palette), count // run + 1), run)]
        parts.append(values[: height * len(part)].reshape(height, len(part)))
    return np.ascontiguousarray(np.concatenate(parts, axis=1)).astype("<u4")


def rgb_of(pixels: np.ndarray) -> np.ndarray:
    return np.stack([pixels >> shift & 255 for shift in (16, 8, 0)], -1)


def converter(layout: Layout) -> PixelConverter:
    return PixelConverter(PixelLayout.unpack(layout.pack()))


def through(encoder: Encoder, pixels: np.ndarray, layout: Layout, viewer: Viewer) -> np.ndarray:
    """Encode, and decode as the connection of `viewer` would."""
    height, width = pixels.shape
    encoded = list(encoder.encode(Rect(0, 0, width, height), pixels, converter(layout)))
    return decode(encoded, (height, width), viewer)


def decode(encoded: list[Encoded], shape: tuple[int, int], viewer: Viewer) -> np.ndarray:
    async def feed() -> None:
        viewer.reader = asyncio.StreamReader()
        viewer.reader.feed_data(b"".join(serialize(encoded)))
        viewer.reader.feed_eof()
        viewer.pixels = np.full(shape, 0xDEADBEEF, np.uint32)
        update = await viewer.update()
        assert viewer.reader.at_eof()
        count = np.zeros(shape, np.int32)
        for x, y, width, height in update.rects:
            count[y : y + height, x : x + width] += 1
        assert (count == 1).all(), "every pixel is sent once"

    asyncio.run(feed())
    return viewer.pixels


def offline_viewer(layout: Layout) -> Viewer:
    viewer = Viewer(None, None)  # type: ignore[arg-type]
    viewer.layout = viewer.decoder.layout = layout
    return viewer


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("encoding", MAKERS, ids=["raw", "zrle", "tight"])
@given(data=st.data())
@settings(deadline=None, max_examples=25)
def test_decodes_to_the_same_pixels(encoding: int, layout: Layout, data: st.DataObject) -> None:
    encoder = MAKERS[encoding]()
    viewer = offline_viewer(layout)
    # Several, because compression streams go on from one to the next.
    for _ in range(data.draw(st.integers(1, 3))):
        pixels = picture(data)
        found = through(encoder, pixels, layout, viewer)
        np.testing.assert_array_equal(found, layout.expected(rgb_of(pixels)))


def kinds_met(encoder: Encoder, pictures: list[np.ndarray]) -> set[str]:
    viewer = offline_viewer(Layout())
    for pixels in pictures:
        found = through(encoder, pixels, Layout(), viewer)
        np.testing.assert_array_equal(found, pixels)
    return viewer.decoder.kinds


def noise(colours: int, shape: tuple[int, int] = (64, 64), run: int = 1) -> np.ndarray:
    generator = np.random.default_rng(colours)
    palette = generator.integers(0, 1 << 24, colours, np.uint32)
    values = palette[generator.integers(0, colours, shape[0] * shape[1] // run)]
    return np.repeat(values, run).reshape(shape).astype("<u4")


def test_zrle_uses_every_kind_of_tile() -> None:
    pictures = [
        noise(1),
        noise(2, run=4),
        noise(12, run=8),
        noise(60, run=16),
        noise(4096, run=16),
        noise(1 << 16),
    ]
    assert kinds_met(ZrleEncoder(1), pictures) == {
        "zrle solid",
        "zrle packed",
        "zrle palette runs",
        "zrle plain runs",
        "zrle raw",
    }


def test_tight_uses_every_kind_of_rectangle() -> None:
    mixed = np.concatenate([noise(1), noise(1), noise(2), noise(100)], axis=1)
    tiny = noise(300, (1, 2))
    pictures = [noise(1), noise(2), noise(100, run=4), noise(1 << 16), mixed, tiny]
    assert kinds_met(TightEncoder(1), pictures) == {
        "tight fill",
        "tight mono",
        "tight indexed",
        "tight copy",
    }


@pytest.mark.parametrize(("quality", "tolerance"), [(9, 2.0), (6, 4.0), (0, 14.0)])
def test_tight_sends_pictures_as_jpeg(quality: int, tolerance: float) -> None:
    y, x = np.mgrid[0:200, 0:300].astype("<u4")
    photo = (x * 255 // 300) << 16 | (y * 255 // 200) << 8 | ((x + y) // 2 & 255)
    photo += np.random.default_rng(1).integers(0, 4, photo.shape, np.uint32)
    text = np.where(np.random.default_rng(2).random((200, 128)) < 0.2, 0xFFFFFF, 0x101010)
    pixels = np.concatenate([photo, text.astype("<u4")], axis=1)
    encoder = TightEncoder(1)
    encoder.quality = quality
    viewer = offline_viewer(Layout())
    found = through(encoder, pixels, Layout(), viewer)
    assert {"tight jpeg", "tight mono"} <= viewer.decoder.kinds
    error = np.abs(rgb_of(found).astype(float) - rgb_of(pixels))
    assert error.mean() < tolerance
    np.testing.assert_array_equal(found[:, 320:], pixels[:, 320:], "text is never JPEG")


def test_tight_cuts_what_is_too_large_for_it() -> None:
    pixels = noise(2, (70, 5000))
    viewer = offline_viewer(Layout())
    encoder = TightEncoder(1)
    encoded = list(encoder.encode(Rect(0, 0, 5000, 70), pixels, converter(Layout())))
    assert max(each.rect.width for each in encoded) <= 2048
    np.testing.assert_array_equal(decode(encoded, (70, 5000), viewer), pixels)
    solid = np.zeros((64, 5000), "<u4")
    encoded = list(encoder.encode(Rect(0, 0, 5000, 64), solid, converter(Layout())))
    assert max(each.rect.width for each in encoded) <= 2048
    assert sum(len(each.data) for each in encoded) < 100


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        (Layout(bits=24), "24 bits"),
        (Layout(maxima=(0, 255, 255)), "maximum 0"),
        (Layout(16, 16, False, (31, 63, 31), (12, 5, 0)), "at bit 12"),
    ],
)
def test_refuses_impossible_pixel_formats(layout: Layout, reason: str) -> None:
    with pytest.raises(RfbError, match=reason):
        PixelLayout.unpack(layout.pack())


def test_des_agrees_with_a_library() -> None:
    # The standard's classic worked example, then many against an implementation of others.
    key, block = bytes.fromhex("133457799BBCDFF1"), bytes.fromhex("0123456789ABCDEF")
    assert des.encrypt(key, block).hex() == "85e813540f0ab405"
    for _ in range(50):
        key, block = os.urandom(8), os.urandom(8)
        theirs = Cipher(TripleDES(key * 3), modes.ECB()).encryptor().update(block)
        assert des.encrypt(key, block) == theirs


@pytest.mark.parametrize(("width", "height"), [(1, 1), (8192, 100), (600, 2000), (512, 512)])
def test_plain_pixels_come_in_strips(width: int, height: int) -> None:
    """While one is copied, the guest's device waits."""
    pixels = np.random.default_rng(5).integers(0, 1 << 24, (height, width), np.uint32)
    convert = PixelConverter(PixelLayout.unpack(Layout().pack()))
    strips = list(RawEncoder().encode(Rect(7, 9, width, height), pixels, convert))
    assert max(len(strip.data) for strip in strips) <= STRIP
    assert b"".join(strip.data for strip in strips) == convert.raw(pixels)
    at = 9
    for strip in strips:
        assert strip.rect == Rect(7, at, width, len(strip.data) // (4 * width))
        at += strip.rect.height


class Writer:
    """Stands for an `asyncio.StreamWriter`; notes what it gets."""

    def __init__(self) -> None:
        self.transport = self
        self.got: list[bytes] = []
        self.drained = 0

    def set_write_buffer_limits(self, high: int) -> None:
        assert high

    def get_extra_info(self, _name: str) -> None:
        return None

    def writelines(self, parts: list[bytes]) -> None:
        assert len(self.got) == self.drained
        self.got.append(b"".join(parts))

    async def drain(self) -> None:
        self.drained += 1


@pytest.mark.parametrize("sizes", [[1], [PORTION], [PORTION // 2] * 9, [3, PORTION, 5] * 4])
def test_much_is_handed_over_in_portions(sizes: list[int]) -> None:
    parts = [os.urandom(size) for size in sizes]
    writer = Writer()
    channel = StreamChannel(asyncio.StreamReader, writer)  # type: ignore[arg-type]
    asyncio.run(channel.write(parts))
    assert b"".join(writer.got) == b"".join(parts)
    assert writer.drained == len(writer.got)
    assert max(map(len, writer.got)) < 2 * PORTION + 8
