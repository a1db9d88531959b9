"""RFB's encodings, read back: written from the specification, knowing nothing of the encoders."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Layout:
    """A viewer's pixel format."""

    bits: int = 32
    depth: int = 24
    big: bool = False
    maxima: tuple[int, int, int] = (255, 255, 255)
    shifts: tuple[int, int, int] = (16, 8, 0)

    def pack(self) -> bytes:
        return struct.pack(
            ">BBBBHHHBBBxxx", self.bits, self.depth, self.big, 1, *self.maxima, *self.shifts
        )

    @property
    def size(self) -> int:
        return self.bits // 8

    @property
    def compact(self) -> tuple[int, int]:
        """Bytes of a CPIXEL, and how many of the pixel's bytes (low first) it leaves out below."""
        used = sum(m << s for m, s in zip(self.maxima, self.shifts, strict=True))
        if self.bits != 32 or self.depth > 24:
            return self.size, 0
        if used < 1 << 24:
            return 3, 0
        if used & 0xFF == 0:
            return 3, 1
        return 4, 0

    @property
    def tight_is_rgb(self) -> bool:
        return self.bits == 32 and self.depth == 24 and self.maxima == (255, 255, 255)

    def number(self, data: bytes) -> int:
        return int.from_bytes(data, "big" if self.big else "little")

    def expected(self, rgb: np.ndarray) -> np.ndarray:
        """The pixel values for 8-bit colours of shape (..., 3): the nearest there are."""
        result = np.zeros(rgb.shape[:-1], np.uint32)
        for index in range(3):
            level = np.rint(rgb[..., index].astype(float) * self.maxima[index] / 255)
            result |= level.astype(np.uint32) << np.uint32(self.shifts[index])
        return result

    def colours(self, values: np.ndarray) -> np.ndarray:
        """Back to 8-bit colours, for layouts that have eight bits a channel."""
        return np.stack([values >> shift & 255 for shift in self.shifts], -1).astype(np.uint8)


class Bytes:
    """Reads a rectangle's data, and notices what is missing or left over."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        taken = self.data[self.at : self.at + count]
        assert len(taken) == count, "the data ends too early"
        self.at += count
        return taken

    def byte(self) -> int:
        return self.take(1)[0]


class Decoder:
    """Decodes for one connection: zlib streams go on from rectangle to rectangle."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._zrle = zlib.decompressobj()
        self._tight = [zlib.decompressobj() for _ in range(4)]
        self.kinds: set[str] = set()
        """What of an encoding has been met."""

    def raw(self, data: bytes, width: int, height: int) -> np.ndarray:
        order = ">" if self.layout.big else "<"
        pixels = np.frombuffer(data, f"{order}u{self.layout.size}").astype(np.uint32)
        return pixels.reshape(height, width)

    # ZRLE

    def zrle(self, data: bytes, width: int, height: int) -> np.ndarray:
        plain = Bytes(self._zrle.decompress(data))
        result = np.zeros((height, width), np.uint32)
        for y in range(0, height, 64):
            for x in range(0, width, 64):
                tile = result[y : y + 64, x : x + 64]
                tile[:] = self._zrle_tile(plain, tile.shape[1], tile.shape[0])
        assert plain.at == len(plain.data)
        return result

    def _cpixel(self, source: Bytes) -> int:
        size, below = self.layout.compact
        return self.layout.number(source.take(size)) << 8 * below

    def _zrle_tile(self, source: Bytes, width: int, height: int) -> np.ndarray:
        kind = source.byte()
        area = width * height
        if kind == 0:
            self.kinds.add("zrle raw")
            values = [self._cpixel(source) for _ in range(area)]
        elif kind == 1:
            self.kinds.add("zrle solid")
            values = [self._cpixel(source)] * area
        elif kind <= 16:
            self.kinds.add("zrle packed")
            palette = [self._cpixel(source) for _ in range(kind)]
            bits = 1 if kind == 2 else 2 if kind <= 4 else 4
            values = []
            for _ in range(height):
                row = int.from_bytes(source.take(-(-width * bits // 8)), "big")
                total = -(-width * bits // 8) * 8
                values += [
                    palette[row >> total - bits * (i + 1) & (1 << bits) - 1] for i in range(width)
                ]
        elif kind == 128:
            self.kinds.add("zrle plain runs")
            values = []
            while len(values) < area:
                value = self._cpixel(source)
                values += [value] * self._run(source)
        else:
            assert kind >= 130, f"ZRLE subencoding {kind} is not used"
            self.kinds.add("zrle palette runs")
            palette = [self._cpixel(source) for _ in range(kind - 128)]
            values = []
            while len(values) < area:
                index = source.byte()
                length = self._run(source) if index & 128 else 1
                values += [palette[index & 127]] * length
        assert len(values) == area
        return np.array(values, np.uint32).reshape(height, width)

    @staticmethod
    def _run(source: Bytes) -> int:
        length = 1
        while (more := source.byte()) == 255:
            length += 255
        return length + more

    # Tight

    def tight_pixels(self, data: bytes) -> np.ndarray:
        if self.layout.tight_is_rgb:
            rgb = np.frombuffer(data, np.uint8).reshape(-1, 3).astype(np.uint32)
            shifts = self.layout.shifts
            return rgb[:, 0] << shifts[0] | rgb[:, 1] << shifts[1] | rgb[:, 2] << shifts[2]
        size = self.layout.size
        numbers = [self.layout.number(data[i : i + size]) for i in range(0, len(data), size)]
        return np.array(numbers, np.uint32)

    @property
    def tight_pixel_size(self) -> int:
        return 3 if self.layout.tight_is_rgb else self.layout.size

    def tight_basic(
        self, control: int, body: bytes, palette: bytes, shape: tuple[int, int]
    ) -> np.ndarray:
        """The picture of a basic rectangle, whose data `body` is still compressed."""
        height, width = shape
        for index in range(4):
            if control >> index & 1:
                self._tight[index] = zlib.decompressobj()
        count = len(palette) // self.tight_pixel_size
        plain_size = self.tight_plain_size(width, height, count)
        stream = self._tight[control >> 4 & 3]
        plain = body if plain_size < 12 else stream.decompress(body)
        assert len(plain) == plain_size
        if not count:
            self.kinds.add("tight copy")
            return self.tight_pixels(plain).reshape(shape)
        colours = self.tight_pixels(palette)
        if count == 2:
            self.kinds.add("tight mono")
            rows = np.frombuffer(plain, np.uint8).reshape(height, -1)
            return colours[np.unpackbits(rows, axis=1)[:, :width]]
        self.kinds.add("tight indexed")
        return colours[np.frombuffer(plain, np.uint8)].reshape(shape)

    def tight_plain_size(self, width: int, height: int, colours: int) -> int:
        if not colours:
            return width * height * self.tight_pixel_size
        return -(-width // 8) * height if colours == 2 else width * height

    def tight_jpeg(self, data: bytes) -> np.ndarray:
        self.kinds.add("tight jpeg")
        rgb = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        return self.layout.expected(rgb)
