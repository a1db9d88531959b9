"""Recordings, which may come from anybody: what `hesper inspect` makes of them."""

from __future__ import annotations

import contextlib
import io

import msgspec

from fuzz.source import Source
from hesper.trace import inspect
from hesper.trace.anonymize import anonymize
from hesper.trace.chunks import ABOUT, MAGIC, RECORDS, RecordingError, pack
from hesper.trace.decoded import codec
from hesper.trace.diff import differences
from hesper.trace.inspect import Filter
from hesper.trace.records import About, Reader

INSTRUMENTED = ("hesper.trace", "hesper.protocol.codec")
_ABOUT = About(
    hesper="", registry=0, program="", driver="", device="", transport="", started=0.0, page=4096
)


def prepare() -> None:
    """Read the tables."""
    codec()


def input_of_records(what: int, records: bytes) -> bytes:
    """An input that asks `what`, from 0 to 5, of a file with these records."""
    return bytes([1 | what << 1]) + records


def run_one(data: bytes) -> None:
    """Ask something of it, as a file or as records in one.  Raises what is not documented."""
    source = Source(data)
    kind = source.number(1)
    rest = source.take(len(data))
    if kind & 1:
        start = MAGIC + pack(ABOUT, 0, msgspec.msgpack.encode(_ABOUT))
        rest = start + pack(RECORDS, 1, rest)
    with contextlib.suppress(RecordingError):
        reader = Reader(io.BytesIO(rest))
        what = kind >> 1 & 7
        if what == 0:
            list(inspect.summary(reader))
        elif what == 1:
            list(inspect.slow(reader))
        elif what == 2:
            list(inspect.shaders(reader))
        elif what == 3:
            list(anonymize(reader))
        elif what == 4:
            found = list(inspect.commands(reader, Filter()))
            list(differences(found, found[1:]))
        else:
            for each in inspect.commands(reader, Filter()):
                inspect.line_of(each, whole=bool(kind & 128))
                inspect.json_of(each)
