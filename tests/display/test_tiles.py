"""What is compiled and touches every pixel, against what numpy makes of the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hesper.display import tiles
from hesper.display.geometry import TILE

edges = st.integers(1, 150)


def picture(width: int, height: int, colours: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    palette = random.integers(0, 1 << 24, colours, np.uint32)
    return palette[random.integers(0, colours, (height, width))]


def flags_for(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape
    return np.zeros((-(-height // TILE), -(-width // TILE)), np.uint8)


@given(width=edges, height=edges, seed=st.integers(0, 1 << 30), changes=st.integers(0, 3))
@settings(deadline=None)
def test_keeps_what_differs_and_says_where(
    width: int, height: int, seed: int, changes: int
) -> None:
    random = np.random.default_rng(seed)
    kept = picture(width, height, 5, seed)
    source = kept | np.uint32(0xAB000000)
    for _ in range(changes):
        source[random.integers(height), random.integers(width)] ^= 1
    expected_kept = source & 0xFFFFFF
    expected = flags_for(kept)
    for y, x in np.argwhere(expected_kept != kept):
        expected[y // TILE, x // TILE] = 1
    found = flags_for(kept)
    tiles.update(source, None, kept, 0, 0, found)
    assert np.array_equal(kept, expected_kept)
    assert np.array_equal(found, expected)


def test_puts_channels_in_their_place() -> None:
    source = np.array([[0x11223344]], np.uint32)
    kept = np.zeros((1, 1), np.uint32)
    tiles.update(source, (0, 8, 16), kept, 0, 0, flags_for(kept))
    assert kept[0, 0] == 0x443322


def test_reads_rows_that_lie_apart() -> None:
    source = picture(200, 100, 9, 1)
    kept = np.zeros((100, 130), np.uint32)
    tiles.update(source[:, :66], None, kept, 64, 0, flags_for(kept))
    assert np.array_equal(kept[:, 64:], source[:, :66])
    assert not kept[:, :64].any()


@given(
    width=st.integers(1, 60),
    height=st.integers(1, 60),
    seed=st.integers(0, 99),
    x=st.integers(0, 9),
)
@settings(deadline=None)
def test_converts_to_planes(width: int, height: int, seed: int, x: int) -> None:
    width, height, x = 2 * width, 2 * height, 2 * x
    pixels = picture(width, height, 999, seed)
    whole = width + x, height + 4
    planes = np.zeros(whole[0] * whole[1] * 3 // 2, np.uint8)
    tiles.to_i420(pixels, memoryview(planes.data), *whole, x, 2)
    red, green, blue = (
        pixels.astype(float) for pixels in (pixels >> 16 & 255, pixels >> 8 & 255, pixels & 255)
    )
    # ITU-R BT.601, 219 and 224 levels.
    luma = 16 + (0.299 * red + 0.587 * green + 0.114 * blue) * 219 / 255

    def quarter(plane: np.ndarray) -> np.ndarray:
        return np.asarray(plane.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)))

    luma_range = 0.299 * red + 0.587 * green + 0.114 * blue
    blueness = 128 + quarter((blue - luma_range) / 1.772) * 224 / 255
    redness = 128 + quarter((red - luma_range) / 1.402) * 224 / 255
    count = whole[0] * whole[1]
    y = planes[:count].reshape(whole[1], whole[0])
    u = planes[count : count * 5 // 4].reshape(whole[1] // 2, whole[0] // 2)
    v = planes[count * 5 // 4 :].reshape(whole[1] // 2, whole[0] // 2)
    assert np.abs(y[2 : 2 + height, x:] - luma).max() < 1.5
    assert np.abs(u[1 : 1 + height // 2, x // 2 :] - blueness).max() < 1.5
    assert np.abs(v[1 : 1 + height // 2, x // 2 :] - redness).max() < 1.5
    assert not y[:2].any()
    assert not y[:, :x].any()


@given(width=edges, height=edges, colours=st.integers(1, 400), seed=st.integers(0, 99))
@settings(deadline=None)
def test_finds_palettes(width: int, height: int, colours: int, seed: int) -> None:
    pixels = picture(width, height, colours, seed)
    found = np.empty(256, np.uint32)
    indices = np.empty(pixels.shape, np.uint8)
    count = tiles.find_palette(pixels, found, indices)
    expected = len(np.unique(pixels))
    assert count == (expected if expected <= 256 else -1)
    if count > 0:
        assert np.array_equal(found[indices], pixels)


def test_sorts_tiles() -> None:
    pixels = np.zeros((100, 200), np.uint32)
    pixels[10, 70] = 1  # text
    pixels[:64, 128:192] = picture(64, 64, 1000, 1)
    pixels[64:, :] = 7
    pixels[64:, 64:128] = picture(64, 36, 20, 1)  # many changes of few colours
    kinds = flags_for(pixels)
    tiles.sort_tiles(pixels, 0.25, kinds)
    assert kinds.tolist() == [[0, 1, 2, 0], [0, 1, 0, 0]]


def test_refuses_what_does_not_fit() -> None:
    pixels = np.zeros((64, 64), np.uint32)
    for x, y, kept in ((1, 0, (64, 64)), (0, 64, (64, 64)), (-64, 0, (64, 64)), (0, 0, (63, 64))):
        with pytest.raises(ValueError, match="tiles"):
            tiles.update(pixels, None, np.zeros(kept, np.uint32), x, y, np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="flags"):
        tiles.update(pixels, None, pixels.copy(), 0, 0, np.zeros((0, 1), np.uint8))
    with pytest.raises(ValueError, match="side by side"):
        tiles.update(pixels[:, ::2], None, pixels.copy(), 0, 0, np.zeros((1, 1), np.uint8))
    planes = memoryview(bytearray(64 * 64 * 3 // 2))
    for size, at in (
        ((64, 64), (2, 0)),
        ((64, 64), (0, 2)),
        ((64, 64), (-2, 0)),
        ((66, 64), (0, 0)),
    ):
        with pytest.raises(ValueError, match=r"outside|another size"):
            tiles.to_i420(pixels, planes, *size, *at)
    with pytest.raises(ValueError, match="even"):
        tiles.to_i420(pixels[:63], planes, 64, 64, 0, 0)
    with pytest.raises(ValueError, match="room"):
        tiles.find_palette(pixels, np.empty(255, np.uint32), np.empty((64, 64), np.uint8))
    with pytest.raises(ValueError, match="kinds"):
        tiles.sort_tiles(pixels, 0.25, np.zeros((2, 1), np.uint8))
