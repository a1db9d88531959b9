"""Takes pictures out of a stream of FLV, in which each has its length.

Sources: Adobe's "Video File Format Specification", version 10, annex E; for what an
`AVCDecoderConfigurationRecord` holds, ISO/IEC 14496-15; for types of units, ITU-T H.264, table 7-1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

MAX_TAG = 1 << 24
_FILE_HEADER = 9 + 4
_TAG_HEADER, _TAG_TRAILER = 11, 4
_VIDEO = 9
_AVC = 7
_CONFIGURATION, _UNITS = 0, 1
_BEFORE_UNITS = 5
_SLICE, _KEY_SLICE = 1, 5
START = b"\0\0\0\1"


class StreamError(Exception):
    """An encoder has written something else than was asked for."""


class Unpacker:
    """Has what an encoder writes, and gives its pictures as Annex B has them."""

    def __init__(self) -> None:
        """Nothing has been written yet."""
        self._data = bytearray()
        self._skip = _FILE_HEADER
        self._length_bytes = 4
        self._parameters = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take what was written next; give the pictures that are complete.

        A picture is one slice; one that others can be begun with has its parameter sets in front.
        Raises `StreamError`.
        """
        self._data += data
        while True:
            if self._skip:
                count = min(self._skip, len(self._data))
                del self._data[:count]
                self._skip -= count
            if len(self._data) < _TAG_HEADER:
                return
            size = int.from_bytes(self._data[1:4])
            if len(self._data) < _TAG_HEADER + size:
                return
            kind = self._data[0]
            body = bytes(self._data[_TAG_HEADER : _TAG_HEADER + size])
            del self._data[: _TAG_HEADER + size]
            self._skip = _TAG_TRAILER
            if kind == _VIDEO and (picture := self._picture(body)):
                yield picture

    def _picture(self, body: bytes) -> bytes:
        if len(body) < _BEFORE_UNITS or body[0] & 15 != _AVC:
            raise StreamError("the encoder writes no H.264")
        if body[1] == _CONFIGURATION:
            self._configure(body[_BEFORE_UNITS:])
        if body[1] != _UNITS:
            return b""
        slices = [
            unit
            for unit in self._units(body[_BEFORE_UNITS:])
            if unit and unit[0] & 31 in {_SLICE, _KEY_SLICE}
        ]
        if len(slices) != 1:
            # noVNC takes each slice for a picture.
            raise StreamError(f"a picture of {len(slices)} slices")
        picture = START + slices[0]
        return self._parameters + picture if slices[0][0] & 31 == _KEY_SLICE else picture

    def _units(self, data: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(data):
            length = int.from_bytes(data[at : at + self._length_bytes])
            at += self._length_bytes
            if at + length > len(data):
                raise StreamError("a unit that is longer than its picture")
            yield data[at : at + length]
            at += length

    def _configure(self, record: bytes) -> None:
        try:
            self._length_bytes = (record[4] & 3) + 1
            at, sets = 5, b""
            for mask in (31, 255):  # sequence parameter sets, then those of pictures
                count = record[at] & mask
                at += 1
                for _ in range(count):
                    (length,) = struct.unpack_from(">H", record, at)
                    sets += START + record[at + 2 : at + 2 + length]
                    at += 2 + length
        except (IndexError, struct.error):
            raise StreamError("parameter sets that are cut off") from None
        self._parameters = sets
