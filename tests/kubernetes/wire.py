"""protobuf's wire format, by hand: what a kubelet's own definitions say is typed in the tests.

Source: "Encoding" in protobuf's documentation.  Were the messages of `hesper.kubernetes` used here,
a wrong number in them would go unseen.
"""

from __future__ import annotations

Value = bytes | str | bool


def encode(*fields: tuple[int, Value]) -> bytes:
    """A message of these fields: their numbers, and texts, messages or truth values."""
    parts = []
    for number, value in fields:
        if isinstance(value, bool):
            parts.append(_varint(number << 3) + _varint(value))
        else:
            data = value.encode() if isinstance(value, str) else value
            parts.append(_varint(number << 3 | 2) + _varint(len(data)) + data)
    return b"".join(parts)


def decode(data: bytes) -> dict[int, list[bytes]]:
    """The fields of a message, which has nothing but texts and messages, by number."""
    found: dict[int, list[bytes]] = {}
    at = 0
    while at < len(data):
        tag, at = _read(data, at)
        assert tag & 7 == 2, f"field {tag >> 3} has wire type {tag & 7}"
        size, at = _read(data, at)
        assert at + size <= len(data)
        found.setdefault(tag >> 3, []).append(data[at : at + size])
        at += size
    return found


def texts(data: bytes, number: int) -> list[str]:
    """The texts of a field."""
    return [each.decode() for each in decode(data).get(number, [])]


def text(data: bytes, number: int) -> str:
    """The text of a field that is there once, or is empty."""
    found = texts(data, number)
    assert len(found) <= 1
    return found[0] if found else ""


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _read(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
