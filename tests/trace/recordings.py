"""Recordings made up for tests."""

from __future__ import annotations

import io

import msgspec

from hesper.trace.chunks import ABOUT, MAGIC, RECORDS, pack
from hesper.trace.records import (
    COMMAND_BODY,
    LAYOUTS,
    MEMORY_BODY,
    About,
    Kind,
    Reader,
    Record,
    put,
)

ABOUT_NOTHING = About(
    hesper="1",
    registry=366,
    program="made up",
    driver="lavapipe",
    device="llvmpipe",
    transport="vtest",
    started=0.0,
    page=4096,
    records={kind.name: int(kind) for kind in Kind},
    layouts=LAYOUTS,
)


def file_of(*chunks: bytes, about: About = ABOUT_NOTHING) -> bytes:
    """A file whose chunks hold these records."""
    parts = [MAGIC, pack(ABOUT, 0, msgspec.msgpack.encode(about))]
    parts += [pack(RECORDS, number, data) for number, data in enumerate(chunks, 1)]
    return b"".join(parts)


def command(data: bytes, reply: bytes = b"", *, time: int = 0, stream: int = 0) -> bytes:
    """A COMMAND that took a microsecond."""
    body = COMMAND_BODY.pack(1000, len(reply), 0) + data + reply
    return put(Kind.COMMAND, body, flags=8 if reply else 0, time=time, stream=stream)


def memory(resource: int, offset: int, data: bytes, kind: Kind = Kind.MEMORY) -> bytes:
    """A MEMORY or LAST."""
    return put(kind, MEMORY_BODY.pack(resource, 0, offset) + data)


def read(data: bytes) -> tuple[Reader, list[Record]]:
    """All that is in a file."""
    reader = Reader(io.BytesIO(data))
    return reader, list(reader)
