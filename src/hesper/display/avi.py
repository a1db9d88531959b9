"""Motion JPEG in an AVI file: a video that needs no program to make and plays nearly anywhere.

Layout: Microsoft's "AVI RIFF File Reference".  A file ends before its 32-bit sizes overflow.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from hesper.display.geometry import Size

HAS_INDEX = 0x10
KEY_FRAME = 0x10
MAX_BYTES = (1 << 31) - (1 << 24)
"""Players disagree on files of more than 2 GiB; some room is left for the index."""


class AviFullError(Exception):
    """The file has reached the size that the format allows."""


class AviWriter:
    """Writes frames to a file that can be sought in; `close` makes it complete."""

    def __init__(self, file: BinaryIO, size: Size, frames_per_second: int) -> None:
        """Write the header."""
        self._file = file
        self._size = size
        self._rate = frames_per_second
        self._index: list[tuple[int, int]] = []
        self._largest = 0
        self._file.write(self._header())
        self._frames_at = self._file.tell() - 4
        self._end = self._file.tell()

    def add(self, jpeg: bytes) -> None:
        """Append a frame; nothing at all (`b""`) repeats the one before.

        Raises `AviFullError` when it does not fit any more.
        """
        if self._end + len(jpeg) + 16 * (len(self._index) + 1) > MAX_BYTES:
            raise AviFullError
        self._index.append((self._end - self._frames_at, len(jpeg)))
        self._largest = max(self._largest, len(jpeg))
        chunk = _chunk(b"00dc", jpeg)
        self._file.write(chunk)
        self._end += len(chunk)

    def close(self) -> None:
        """Write the index, and the header again with what is known now."""
        entries = b"".join(
            struct.pack("<4sIII", b"00dc", KEY_FRAME if length else 0, offset, length)
            for offset, length in self._index
        )
        self._file.write(_chunk(b"idx1", entries))
        end = self._file.tell()
        self._file.seek(0)
        self._file.write(self._header(end - 8, self._end - self._frames_at))
        self._file.flush()

    def _header(self, riff: int = 0, movi: int = 0) -> bytes:
        width, height = self._size
        frames = len(self._index)
        main = struct.pack(
            "<14I",
            1_000_000 // self._rate,
            self._largest * self._rate,
            0,
            HAS_INDEX,
            frames,
            0,
            1,
            self._largest,
            width,
            height,
            *(0, 0, 0, 0),
        )
        stream = struct.pack(
            "<4s4sIHHIIIIIIIIHHHH",
            b"vids",
            b"MJPG",
            *(0, 0, 0, 0),
            1,
            self._rate,
            0,
            frames,
            self._largest,
            0xFFFFFFFF,
            0,
            *(0, 0, min(width, 0x7FFF), min(height, 0x7FFF)),
        )
        image = struct.pack(
            "<IiiHH4sIiiII", 40, width, height, 1, 24, b"MJPG", width * height * 3, *(0, 0, 0, 0)
        )
        streams = _list(b"strl", _chunk(b"strh", stream) + _chunk(b"strf", image))
        headers = _list(b"hdrl", _chunk(b"avih", main) + streams)
        start = struct.pack("<4sI4s", b"RIFF", riff, b"AVI ")
        return start + headers + struct.pack("<4sI4s", b"LIST", movi, b"movi")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack("<4sI", name, len(data)) + data + b"\0" * (len(data) & 1)


def _list(name: bytes, data: bytes) -> bytes:
    return _chunk(b"LIST", name + data)
