"""A recording without what tells whose it is: to be given away.

What goes: contents of memory; strings but names of extensions, layers and entry points; bytes that
commands carry (push constants, contents of buffers and images, caches); what describes this very
machine in replies (all but those of memory types and queue families); names, sources and strings
in SPIR-V; the last words of a process that died.  What stays is which commands there were, with
their numbers, and what shaders compute.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from hesper.trace.chunks import ABOUT, MAGIC, RECORDS, pack
from hesper.trace.decoded import UNREADABLE, codec, decode
from hesper.trace.records import (
    COMMAND_BODY,
    REPLIED,
    Kind,
    Reader,
    Record,
    cut,
)
from hesper.trace.translate import ASKS

NOBODY = "anonymous"
_CHUNK = 1 << 20

_KEPT_STRINGS = frozenset({"ppEnabledExtensionNames", "ppEnabledLayerNames", "pLayerName"})
_KEPT_KINDS = frozenset(
    {Kind.COMMAND, Kind.BEGUN, Kind.BLOB, Kind.GONE, Kind.FENCE, Kind.RETIRED, Kind.IMPORT}
)
_SPIRV = 0x07230203
_OP_SOURCE_CONTINUED, _OP_SOURCE, _OP_SOURCE_EXTENSION, _OP_NAME, _OP_MEMBER_NAME = 2, 3, 4, 5, 6
_OP_STRING, _OP_LINE, _OP_NO_LINE, _OP_MODULE_PROCESSED = 7, 8, 317, 330
_GONE_OPS = frozenset(
    {
        _OP_SOURCE_CONTINUED,
        _OP_SOURCE,
        _OP_SOURCE_EXTENSION,
        _OP_NAME,
        _OP_MEMBER_NAME,
        _OP_LINE,
        _OP_NO_LINE,
        _OP_MODULE_PROCESSED,
    }
)


def anonymize(reader: Reader) -> Iterator[bytes]:
    """The bytes of the other file, piece by piece.  Raises `RecordingError`."""
    about = msgspec.structs.replace(reader.about, program=NOBODY, started=0.0)
    yield MAGIC + pack(ABOUT, 0, msgspec.msgpack.encode(about))
    number = 1
    held = bytearray()
    for count, record in enumerate(reader):
        kept = _without(count, record)
        for piece in cut(kept) if kept is not None else ():
            held += piece
            if len(held) >= _CHUNK:
                yield pack(RECORDS, number, bytes(held))
                number += 1
                held.clear()
    yield pack(RECORDS, number, bytes(held))


def _without(count: int, record: Record) -> Record | None:
    """A record without what tells; None: it goes."""
    if record.kind == Kind.END:
        # The reason may name what the guest has called something.
        return record._replace(body=b"it did not end in order" if record.body else b"")
    if record.kind not in _KEPT_KINDS:
        return None
    return _command(count, record) if record.kind == Kind.COMMAND else record


def _command(count: int, record: Record) -> Record | None:
    found = decode(count, record)
    if found.parameters is None or found.has_failed:
        return None
    fields = codec().model.commands[found.name].fields
    _clean(found.parameters, fields)
    flags = int.from_bytes(found.data[4:8], "little")
    try:
        data = codec().encode(found.name, found.parameters, reply=bool(flags & 1))
    except UNREADABLE:
        return None
    reply = found.reply if found.name in ASKS else b""
    body = COMMAND_BODY.pack(found.duration, len(reply), 0) + data + reply
    return record._replace(body=body, flags=record.flags if reply else record.flags & ~REPLIED)


def _clean(values: dict[str, Any], fields: Any) -> None:
    """Take out of decoded values what tells."""
    for field in fields:
        value = values.get(field.name)
        if value is None or _is_kept(field, values):
            continue
        if field.name == "pCode":
            values[field.name] = _code(value)
        elif field.shape == "string":
            values[field.name] = b"x" * len(value)
        elif field.shape == "strings":
            values[field.name] = [b"x" * len(each) for each in value]
        elif field.kind == "struct":
            struct_of = codec().model.structs[field.type]
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, dict):
                    _clean(each, struct_of.fields)
        else:
            values[field.name] = _zeros(value)
    for name, chained in values.get("pNext") or []:
        _clean(chained, codec().model.structs[name].fields)


def _is_kept(field: Any, values: dict[str, Any]) -> bool:
    """Whether it is a name that Vulkan or a shader has given."""
    return field.name in _KEPT_STRINGS or (field.name == "pName" and "stage" in values)


def _zeros(value: Any) -> Any:
    """Bytes become zeros, in lists too."""
    if isinstance(value, bytes):
        return bytes(len(value))
    if isinstance(value, list):
        return [_zeros(each) for each in value]
    return value


def _code(value: Any) -> Any:
    """SPIR-V of the same length without names: what is gone is made up for by OpNop."""
    data = bytearray(value if isinstance(value, bytes) else struct.pack(f"<{len(value)}I", *value))
    words = list(struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4]))
    if len(words) < 5 or words[0] != _SPIRV:
        return bytes(len(data)) if isinstance(value, bytes) else [0] * len(value)
    at = 5
    while at < len(words):
        size, op = words[at] >> 16, words[at] & 0xFFFF
        if size == 0 or size > len(words) - at:
            words[at:] = [1 << 16] * (len(words) - at)
            break
        if op in _GONE_OPS:
            words[at : at + size] = [1 << 16] * size
        elif op == _OP_STRING:
            # Others refer to it; its text goes.
            words[at + 2 : at + size] = [0x00787878] + [0] * (size - 3) if size > 2 else []
        at += size
    return struct.pack(f"<{len(words)}I", *words) if isinstance(value, bytes) else words
