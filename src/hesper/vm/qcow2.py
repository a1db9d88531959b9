"""Reads from a qcow2 image, as much as it takes to tell what it boots.

Source: QEMU's `docs/interop/qcow2.rst`.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

_HEADER = struct.Struct(">4sIQIIQIIQ")
_FEATURES, _FEATURES_AT = struct.Struct(">Q"), 72
_COMPRESSED = 1 << 62
_OFFSET = (1 << 56) - 1 & ~511
_SECTOR = 512
_ZERO = 1
"""Bit of an entry of version 3: the cluster reads as zeros."""
_HARMLESS = 0b11
"""Incompatible features that change nothing here: dirty, corrupt.  Others are data in another file,
compression other than zlib, and longer entries."""


_DATA_FILE = 1 << 2
"""Incompatible feature: the guest's data is in another file."""


def names_files(head: bytes) -> bool:
    """Whether an image that begins so has QEMU open other files, or is cut short."""
    if len(head) < _HEADER.size:
        return True
    _, version, backing, *_ = _HEADER.unpack_from(head)
    if version < 3:
        return bool(backing)
    if len(head) < _FEATURES.size + _FEATURES_AT:
        return True
    (features,) = _FEATURES.unpack_from(head, _FEATURES_AT)
    return bool(backing or features & _DATA_FILE)


class Qcow2:
    """The guest's data in an image without its backing file, whose part reads as zeros."""

    def __init__(self, file: BinaryIO) -> None:
        """Read the header.  Raises `ValueError` for what cannot be read in this way."""
        self._file = file
        magic, version, _, _, bits, self.size, encrypted, self._entries, self._table = (
            _HEADER.unpack(self._at(0, _HEADER.size))
        )
        if magic != b"QFI\xfb" or version not in {2, 3} or not 9 <= bits <= 21 or encrypted:
            raise ValueError("no qcow2 image that can be looked into")
        features = 0
        if version == 3:
            (features,) = _FEATURES.unpack(self._at(_FEATURES_AT, _FEATURES.size))
        if features & ~_HARMLESS:
            raise ValueError("the image has features that are not known here")
        self._bits = bits

    def read(self, offset: int, length: int) -> bytes:
        """Return the guest's bytes from `offset` on; past the end there are none.

        Raises `ValueError` for an image that is broken.
        """
        end = min(offset + length, self.size)
        pieces = []
        while offset < end:
            within = offset % (1 << self._bits)
            pieces.append(self._cluster(offset >> self._bits)[within : within + end - offset])
            offset = (offset >> self._bits) + 1 << self._bits
        return b"".join(pieces)

    def _at(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(length)
        if len(data) < length:
            raise ValueError("the image ends too early")
        return data

    def _cluster(self, number: int) -> bytes:
        size = 1 << self._bits
        first, second = divmod(number, size // 8)
        if first >= self._entries:
            return bytes(size)
        table = self._entry(self._table, first) & _OFFSET
        entry = self._entry(table, second) if table else 0
        if entry & _COMPRESSED:
            return self._inflated(entry, size)
        if not entry & _OFFSET or entry & _ZERO:
            return bytes(size)
        return self._at(entry & _OFFSET, size)

    def _entry(self, table: int, index: int) -> int:
        (entry,) = struct.unpack(">Q", self._at(table + 8 * index, 8))
        return int(entry)

    def _inflated(self, entry: int, size: int) -> bytes:
        shift = 62 - (self._bits - 8)
        offset = entry & (1 << shift) - 1
        sectors = (entry & _COMPRESSED - 1) >> shift
        self._file.seek(offset)
        packed = self._file.read((sectors + 1) * _SECTOR - offset % _SECTOR)
        try:
            data = zlib.decompressobj(-12).decompress(packed, size)
        except zlib.error as error:
            raise ValueError(f"a cluster cannot be unpacked: {error}") from None
        return data.ljust(size, b"\0")
