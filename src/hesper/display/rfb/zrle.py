"""ZRLE: run lengths and palettes in tiles, then zlib.  RFC 6143 section 7.7.6."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hesper.display.rfb.encoders import Encoded
from hesper.display.rfb.wire import Encoding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hesper.display.formats import Xrgb
    from hesper.display.geometry import Rect
    from hesper.display.rfb.pixels import PixelConverter

TILE = 64
MANY_RUNS = 1024
"""A tile with more runs is not worth a palette: finding it costs more than it saves."""

RAW = 0
SOLID = 1
PLAIN_RLE = 128


class ZrleEncoder:
    """Lossless; little work for pictures with few colours."""

    def __init__(self, level: int) -> None:
        """Begin the connection's stream at zlib `level`."""
        self._stream = zlib.compressobj(level)

    def encode(self, rect: Rect, pixels: Xrgb, convert: PixelConverter) -> Iterator[Encoded]:
        """See `Encoder.encode`."""
        values = convert.values(pixels)
        tiles: list[bytes] = []
        for y in range(0, rect.height, TILE):
            for x in range(0, rect.width, TILE):
                tiles += encode_tile(values[y : y + TILE, x : x + TILE], convert)
        data = self._stream.compress(b"".join(tiles)) + self._stream.flush(zlib.Z_SYNC_FLUSH)
        yield Encoded(rect, Encoding.ZRLE, struct.pack(">I", len(data)) + data)


def encode_tile(tile: npt.NDArray[np.uint32], convert: PixelConverter) -> tuple[bytes, ...]:
    """Encode one tile of a viewer's pixel values in the shortest way that fits."""
    height, width = tile.shape
    flat = tile.reshape(-1)
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    runs = len(starts)
    size = convert.compact_size
    colours = flat[starts]
    if runs == 1:
        return bytes([SOLID]), convert.compact(colours).tobytes()
    plain = runs * (size + 1)
    raw = flat.size * size
    if runs > MANY_RUNS:
        if plain < raw:
            return _plain_rle(starts, flat.size, convert.compact(colours))
        return bytes([RAW]), convert.compact(flat).tobytes()
    palette, index = np.unique(colours, return_inverse=True)
    count = len(palette)
    lengths = np.diff(starts, append=flat.size)
    costs = {raw: RAW, plain: PLAIN_RLE}
    if count <= 127:
        costs[count * size + 2 * runs - int((lengths == 1).sum())] = PLAIN_RLE + count
    if count <= 16:
        costs[count * size + height * _packed_row(width, count)] = count
    best = costs[min(costs)]
    if best == RAW:
        return bytes([RAW]), convert.compact(flat).tobytes()
    if best == PLAIN_RLE:
        return _plain_rle(starts, flat.size, convert.compact(colours))
    head = bytes([best]), convert.compact(palette).tobytes()
    if best > PLAIN_RLE:
        return *head, _palette_rle(index.astype(np.uint8), lengths)
    indices = np.repeat(index.astype(np.uint8), lengths).reshape(height, width)
    return *head, pack_indices(indices, _index_bits(count))


def _index_bits(count: int) -> int:
    if count == 2:
        return 1
    return 2 if count <= 4 else 4


def _packed_row(width: int, count: int) -> int:
    return -(-width * _index_bits(count) // 8)


def pack_indices(indices: npt.NDArray[np.uint8], bits: int) -> bytes:
    """Pack palette indices, the leftmost pixel in the highest bits, rows padded to bytes."""
    height, width = indices.shape
    per_byte = 8 // bits
    padded = np.zeros((height, -(-width // per_byte) * per_byte), np.uint8)
    padded[:, :width] = indices
    groups = padded.reshape(height, -1, per_byte)
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    packed = np.empty(groups.shape[:2], np.uint8)
    np.bitwise_or.reduce(groups << shifts, axis=2, out=packed)
    return packed.tobytes()


def _length_bytes(lengths: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], bytes]:
    """How many bytes each run length takes (255s, then the rest), and all of them."""
    counts = (lengths - 1) // 255 + 1
    encoded = np.full(int(counts.sum()), 255, np.uint8)
    encoded[np.cumsum(counts) - 1] = (lengths - 1) % 255
    return counts, encoded.tobytes()


def _plain_rle(
    starts: npt.NDArray[np.int64], total: int, colours: npt.NDArray[np.uint8]
) -> tuple[bytes, ...]:
    lengths = np.diff(starts, append=total)
    counts, encoded = _length_bytes(lengths)
    return bytes([PLAIN_RLE]), _interleave(colours, counts, encoded)


def _palette_rle(index: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64]) -> bytes:
    """Single pixels are their index; a run is its index with bit 7 and a length."""
    many = lengths > 1
    counts, encoded = _length_bytes(lengths[many])
    heads = index | many.astype(np.uint8) << np.uint8(7)
    all_counts = np.zeros(len(index), np.int64)
    all_counts[many] = counts
    return _interleave(heads.reshape(-1, 1), all_counts, encoded)


def _interleave(heads: npt.NDArray[np.uint8], counts: npt.NDArray[np.int64], tails: bytes) -> bytes:
    """Put `counts[i]` bytes of `tails` behind `heads[i]`, for every i."""
    width = heads.shape[1]
    begins = np.concatenate(([0], np.cumsum(counts + width)[:-1]))
    result = np.empty(int(counts.sum()) + heads.size, np.uint8)
    is_tail = np.ones(len(result), np.bool_)
    for offset in range(width):
        result[begins + offset] = heads[:, offset]
        is_tail[begins + offset] = False
    result[is_tail] = np.frombuffer(tails, np.uint8)
    return result.tobytes()
