"""A VNC viewer for tests: asks, reads, and keeps the picture as a viewer would."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rfb_decoders import Decoder, Layout

RAW, TIGHT, ZRLE, H264 = 0, 7, 16, 50
DESKTOP_SIZE, LAST_RECT, EXTENDED_DESKTOP_SIZE = -223, -224, -308
CURSOR, CURSOR_WITH_ALPHA = -239, -314
QEMU_KEY, MOUSE_BUTTONS = -258, -316
FENCE, CONTINUOUS = -312, -313
EXTENDED_CLIPBOARD = 0xC0A1E5CE - (1 << 32)


@dataclass
class Cursor:
    hot: tuple[int, int]
    pixels: np.ndarray
    mask: np.ndarray | None


@dataclass
class Video:
    """A rectangle of H.264, which is not decoded here."""

    rect: tuple[int, int, int, int]
    flags: int
    data: bytes


@dataclass
class Update:
    """One framebuffer update: where it drew, and the pseudo-encodings it had."""

    rects: list[tuple[int, int, int, int]] = field(default_factory=list)
    pseudo: list[int] = field(default_factory=list)
    videos: list[Video] = field(default_factory=list)


class Viewer:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.layout = Layout()
        self.decoder = Decoder(self.layout)
        self.name = ""
        self.pixels = np.zeros((0, 0), np.uint32)
        self.cursor: Cursor | None = None
        self.resize_answers: list[tuple[int, int]] = []
        self.fences: list[tuple[int, bytes]] = []
        self.ends = 0
        self.colour_map: list[tuple[int, int, int]] = []
        self.updates = 0
        self.cut_texts: list[bytes] = []
        self.clipboard: list[tuple[int, bytes]] = []
        """Messages of the extended clipboard: flags, and what follows."""

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[1], self.pixels.shape[0]

    def pause_reading(self) -> None:
        """Leave what the server sends in the system's buffers."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take it again."""
        self._transport.resume_reading()

    @property
    def _transport(self) -> asyncio.Transport:
        transport = self.writer.transport
        assert isinstance(transport, asyncio.Transport)
        return transport

    def rgb(self) -> np.ndarray:
        return self.layout.colours(self.pixels)

    # Connecting

    @classmethod
    async def connect(cls, place: int | Path, version: str = "003.008") -> Viewer:
        """Connect without a password, to a port of this machine or a socket's path."""
        viewer = await cls.begin(place, version)
        if version == "003.003":
            assert await viewer.number(4) == 1
        else:
            assert await viewer.read(2) == b"\x01\x01"
            viewer.send(b"\x01")
        if version == "003.008":
            assert await viewer.number(4) == 0
        await viewer.initialise()
        return viewer

    @classmethod
    async def begin(cls, place: int | Path, version: str = "003.008") -> Viewer:
        """Connect and exchange versions."""
        if isinstance(place, Path):
            viewer = cls(*await asyncio.open_unix_connection(str(place)))
        else:
            viewer = cls(*await asyncio.open_connection("127.0.0.1", place))
        assert await viewer.read(12) == b"RFB 003.008\n"
        viewer.send(f"RFB {version}\n".encode())
        return viewer

    async def initialise(self) -> None:
        self.send(b"\x01")
        width, height = struct.unpack(">HH", await self.read(4))
        assert (await self.read(16))[:13] == self.layout.pack()[:13]
        self.name = (await self.read(await self.number(4))).decode()
        self.pixels = np.zeros((height, width), np.uint32)

    async def close(self) -> None:
        self.writer.close()

    # Sending

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def set_encodings(self, *encodings: int) -> None:
        self.send(struct.pack(f">BxH{len(encodings)}i", 2, len(encodings), *encodings))

    def set_layout(self, layout: Layout) -> None:
        self.layout = self.decoder.layout = layout
        self.send(b"\0\0\0\0" + layout.pack())

    def request(self, incremental: bool = True, area: tuple[int, ...] | None = None) -> None:
        area = area or (0, 0, *self.size)
        self.send(struct.pack(">BBHHHH", 3, incremental, *area))

    def pointer(self, buttons: int, x: int, y: int) -> None:
        self.send(struct.pack(">BBHH", 5, buttons, x, y))

    def key(self, down: bool, keysym: int) -> None:
        self.send(struct.pack(">BBxxI", 4, down, keysym))

    def qemu_key(self, down: bool, keysym: int, code: int) -> None:
        self.send(struct.pack(">BBHII", 255, 0, down, keysym, code))

    def set_desktop_size(self, width: int, height: int) -> None:
        screen = struct.pack(">IHHHHI", 0, 0, 0, width, height, 0)
        self.send(struct.pack(">BxHHBx", 251, width, height, 1) + screen)

    def continuous(self, enable: bool) -> None:
        self.send(struct.pack(">BBHHHH", 150, enable, 0, 0, *self.size))

    def fence(self, flags: int, payload: bytes) -> None:
        self.send(struct.pack(">BxxxIB", 248, flags, len(payload)) + payload)

    def cut_text(self, text: bytes) -> None:
        self.send(struct.pack(">BxxxI", 6, len(text)) + text)

    def clipboard_message(self, flags: int, data: bytes = b"") -> None:
        self.send(struct.pack(">BxxxiI", 6, -4 - len(data), flags) + data)

    # Receiving

    async def read(self, count: int) -> bytes:
        return await self.reader.readexactly(count)

    async def number(self, size: int) -> int:
        return int.from_bytes(await self.read(size), "big")

    async def update(self) -> Update:
        """Read until a framebuffer update has come, and draw it."""
        while True:
            if (update := await self.message()) is not None:
                return update

    async def message(self) -> Update | None:
        """Read one message; a framebuffer update is drawn and returned."""
        kind = await self.number(1)
        if kind == 0:
            _, count = struct.unpack(">BH", await self.read(3))
            update = Update()
            for _ in range(count):
                *where, encoding = struct.unpack(">HHHHi", await self.read(12))
                if encoding == LAST_RECT:
                    update.pseudo.append(encoding)
                    break
                await self._rect(update, tuple(where), encoding)
            self.updates += 1
            return update
        if kind == 1:
            first, count = struct.unpack(">xHH", await self.read(5))
            assert first == 0
            data = struct.unpack(f">{3 * count}H", await self.read(6 * count))
            self.colour_map = list(zip(data[::3], data[1::3], data[2::3], strict=True))
        elif kind == 3:
            (length,) = struct.unpack(">xxxi", await self.read(7))
            if length >= 0:
                self.cut_texts.append(await self.read(length))
            else:
                self.clipboard.append((await self.number(4), await self.read(-length - 4)))
        elif kind == 150:
            self.ends += 1
        elif kind == 248:
            flags, length = struct.unpack(">xxxIB", await self.read(8))
            self.fences.append((flags, await self.read(length)))
        else:
            raise AssertionError(f"server message {kind}")
        return None

    async def _rect(self, update: Update, where: tuple[int, ...], encoding: int) -> None:
        x, y, width, height = where
        if encoding in {RAW, ZRLE, TIGHT}:
            update.rects.append((x, y, width, height))
            assert x + width <= self.size[0]
            assert y + height <= self.size[1]
            pixels = await self._pixels(encoding, width, height)
            self.pixels[y : y + height, x : x + width] = pixels
            return
        if encoding == H264:
            length, flags = struct.unpack(">II", await self.read(8))
            update.videos.append(Video((x, y, width, height), flags, await self.read(length)))
            return
        update.pseudo.append(encoding)
        if encoding == DESKTOP_SIZE:
            self.pixels = np.zeros((height, width), np.uint32)
        elif encoding == EXTENDED_DESKTOP_SIZE:
            screens = await self.number(1)
            await self.read(3 + 16 * screens)
            if x:
                self.resize_answers.append((x, y))
            if (width, height) != self.size:
                self.pixels = np.zeros((height, width), np.uint32)
        elif encoding == CURSOR:
            data = await self.read(width * height * self.layout.size)
            mask = np.frombuffer(await self.read(-(-width // 8) * height), np.uint8)
            bits = np.unpackbits(mask.reshape(height, -(-width // 8)), axis=1)[:, :width]
            self.cursor = Cursor((x, y), self.decoder.raw(data, width, height), bits)
        elif encoding == CURSOR_WITH_ALPHA:
            assert await self.number(4) == RAW
            colours = np.frombuffer(await self.read(width * height * 4), np.uint8)
            self.cursor = Cursor((x, y), colours.reshape(height, width, 4), None)
        else:
            assert encoding in {QEMU_KEY, MOUSE_BUTTONS}, encoding

    async def _pixels(self, encoding: int, width: int, height: int) -> np.ndarray:
        if encoding == RAW:
            data = await self.read(width * height * self.layout.size)
            return self.decoder.raw(data, width, height)
        if encoding == ZRLE:
            return self.decoder.zrle(await self.read(await self.number(4)), width, height)
        control = await self.number(1)
        size = self.decoder.tight_pixel_size
        if control >> 4 == 8:
            self.decoder.kinds.add("tight fill")
            return np.full((height, width), self.decoder.tight_pixels(await self.read(size))[0])
        if control >> 4 == 9:
            return self.decoder.tight_jpeg(await self.read(await self._compact_length()))
        palette = b""
        if control & 0x40 and (kind := await self.number(1)):
            assert kind == 1, "the gradient filter was not expected"
            palette = await self.read((await self.number(1) + 1) * size)
        plain = self.decoder.tight_plain_size(width, height, len(palette) // size)
        body = await self.read(plain if plain < 12 else await self._compact_length())
        return self.decoder.tight_basic(control, body, palette, (height, width))

    async def _compact_length(self) -> int:
        length = 0
        for shift in (0, 7, 14):
            byte = await self.number(1)
            length |= (byte if shift == 14 else byte & 0x7F) << shift
            if shift < 14 and not byte & 0x80:
                break
        return length
