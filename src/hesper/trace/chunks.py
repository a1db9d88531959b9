"""The outer layer of a recording: chunks of bytes, each whole by itself or not there.

A file is `MAGIC` and then chunks; a chunk is a head (`HEAD`) and its stored bytes.  What reads
here takes the file for hostile: every number is held against a limit and against what there is,
and every error says at which byte.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from typing import IO, NamedTuple

import zstandard

from hesper.errors import HesperError

MAGIC = b"HESPREC\x01"
"""What a file begins with; the last byte is the version of this layer."""
CHUNK = b"HCNK"
HEAD = struct.Struct("<4sBBHIIII")
"""`CHUNK`, codec, kind, 0, number, stored bytes, bytes when unpacked, CRC-32 of what is stored."""

ABOUT, RECORDS = 0, 1
"""Kinds: what the recording is of (`records.About`); records."""
PLAIN, ZSTANDARD = 0, 1
"""Codecs.  Plain chunks come from a process that was dying, and have no checksum (0)."""

MOST_UNPACKED = 32 << 20
"""Bytes of one chunk when unpacked."""
MOST_STORED = MOST_UNPACKED + (1 << 20)
LEVEL = 1
"""Of zstandard: what a worker writes must not hold it up."""


class RecordingError(HesperError):
    """What is no recording, or a broken one; the text says at which byte."""


class Chunk(NamedTuple):
    """A chunk that is whole."""

    kind: int
    number: int
    offset: int
    """Of its head, in the file."""
    data: bytes
    is_plain: bool = False
    """Whether a process wrote it that was dying: its other threads may have gone on meanwhile."""


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data` to a descriptor.  Raises `OSError`."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def pack(kind: int, number: int, data: bytes | memoryview) -> bytes:
    """The bytes of a chunk, compressed."""
    stored: bytes = zstandard.compress(data, LEVEL)
    size = len(data)
    return HEAD.pack(CHUNK, ZSTANDARD, kind, 0, number, len(stored), size, zlib.crc32(stored)) + (
        stored
    )


class ChunkReader:
    """Reads the chunks of a file in their order; `cut` says afterwards whether it was cut off."""

    def __init__(self, file: IO[bytes]) -> None:
        """Read `file` from its beginning.  Raises `RecordingError` for what is no recording."""
        self._file = file
        self.cut = -1
        """Offset of a chunk that is not all there, with which the file ends; -1: none."""
        self.missing = 0
        """Chunks that were left out before those that are there."""
        start = _read(file, len(MAGIC))
        if start != MAGIC:
            if start[:-1] == MAGIC[:-1] and len(start) == len(MAGIC):
                raise RecordingError(
                    f"byte {len(MAGIC) - 1}: version {start[-1]} of the format, this Hesper reads"
                    f" {MAGIC[-1]}"
                )
            raise RecordingError("byte 0: this is no recording of Hesper's")
        self.position = len(MAGIC)

    def __iter__(self) -> Iterator[Chunk]:
        """The chunks.  Raises `RecordingError`."""
        last = -1
        while (found := self._next()) is not None:
            if found.number <= last:
                raise RecordingError(
                    f"byte {found.offset}: chunk {found.number} stands behind chunk {last}"
                )
            self.missing += found.number - last - 1
            last = found.number
            yield found

    def _next(self) -> Chunk | None:
        offset = self.position
        head = _read(self._file, HEAD.size)
        if len(head) < HEAD.size:
            self.cut = offset if head else -1
            return None
        magic, codec, kind, zero, number, stored, size, checksum = HEAD.unpack(head)
        if magic != CHUNK:
            raise RecordingError(f"byte {offset}: no chunk begins here")
        if codec not in (PLAIN, ZSTANDARD) or kind not in (ABOUT, RECORDS) or zero:
            raise RecordingError(f"byte {offset + 4}: chunk of codec {codec} and kind {kind}")
        if stored > MOST_STORED or size > MOST_UNPACKED:
            raise RecordingError(
                f"byte {offset + 12}: a chunk of {stored} bytes, {size} unpacked; the most are"
                f" {MOST_STORED} and {MOST_UNPACKED}"
            )
        data = _read(self._file, stored)
        self.position = offset + HEAD.size + len(data)
        if len(data) < stored:
            self.cut = offset
            return None
        unpacked = _unpack(offset, codec, data, size, checksum)
        return Chunk(kind, number, offset, unpacked, codec == PLAIN)


def _unpack(offset: int, codec: int, data: bytes, size: int, checksum: int) -> bytes:
    if codec == PLAIN:
        if len(data) != size:
            raise RecordingError(f"byte {offset + 16}: {size} bytes unpacked of {len(data)} plain")
        return data
    if zlib.crc32(data) != checksum:
        raise RecordingError(f"byte {offset + HEAD.size}: the chunk's checksum is another one")
    try:
        # What the frame says of itself is what is taken for it.
        says = zstandard.get_frame_parameters(data).content_size
        if says != size:
            raise RecordingError(f"byte {offset + 16}: {size} bytes of a frame that has {says}")
        found: bytes = zstandard.ZstdDecompressor(max_window_size=MOST_UNPACKED).decompress(
            data, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise RecordingError(f"byte {offset + HEAD.size}: {error}") from None
    return found


def _read(file: IO[bytes], size: int) -> bytes:
    """`size` bytes, or what is left."""
    parts = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
