"""Commands of a recording as values, by the protocol's tables."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from hesper.protocol import load
from hesper.protocol.codec import Codec, CodecError, Reader
from hesper.trace.records import EARLIER, FAILED, NESTED, Record, command_of

if TYPE_CHECKING:
    from hesper.protocol.model import Command as Description


UNREADABLE = (CodecError, RecursionError, ValueError, TypeError, AttributeError, LookupError)
"""What the codec raises for bytes that are no command: it is made for those that are."""


MOST_DECODED = 32 << 20
"""Bytes of a command, and of a reply, that become values, which take dozens of times as much."""


class Decoded(NamedTuple):
    """A command that was run."""

    number: int
    """Of the commands in the recording, from 0 on."""
    name: str
    time: int
    """Nanoseconds since the recording began."""
    duration: int
    stream: int
    is_nested: bool
    has_failed: bool
    is_earlier: bool
    """It happened before what is recorded."""
    data: bytes
    reply: bytes
    parameters: dict[str, Any] | None
    """None where they cannot be read: `problem` says why."""
    result: int | None
    """What it returned, where it was answered and returns something."""
    outputs: dict[str, Any]
    """What else was answered."""
    problem: str


@functools.cache
def codec() -> Codec:
    """The reference codec, without relations: a command that breaks one is worth looking at."""
    return Codec(msgspec.structs.replace(load(), relations={}))


def name_of(data: bytes) -> str:
    """The name of the command that stands there, or its number."""
    number = int.from_bytes(data[:4], "little")
    command = codec().model.commands_by_number.get(number)
    return command.name if command is not None else f"command {number}"


def kind_of(data: bytes) -> str:
    """The name of the command that stands there; one for all that there is not."""
    number = int.from_bytes(data[:4], "little")
    command = codec().model.commands_by_number.get(number)
    return command.name if command is not None else "unknown"


def decode(number: int, record: Record) -> Decoded:
    """Decode a COMMAND.  Raises `RecordingError` for a body that is none."""
    body = command_of(record)
    parameters: dict[str, Any] | None = None
    result: int | None = None
    outputs: dict[str, Any] = {}
    problem = ""
    try:
        for part in (body.data, body.reply):
            if len(part) > MOST_DECODED:
                raise CodecError(f"more than {MOST_DECODED} bytes are not looked into")
        description, _, parameters = codec().decode(Reader(body.data))
        if body.reply:
            result, outputs = _answer(description, body.reply, parameters)
    except UNREADABLE as error:
        problem = str(error) or type(error).__name__
    return Decoded(
        number,
        name_of(body.data),
        record.time,
        body.duration,
        record.stream,
        bool(record.flags & NESTED),
        bool(record.flags & FAILED),
        bool(record.flags & EARLIER),
        body.data,
        body.reply,
        parameters,
        result,
        outputs,
        problem,
    )


def _answer(
    description: Description, reply: bytes, parameters: dict[str, Any]
) -> tuple[int | None, dict[str, Any]]:
    command, result, outputs = codec().decode_reply(Reader(reply), parameters)
    if command.name != description.name:
        raise CodecError(f"it is answered as {command.name}")
    return (None if command.result == "void" else result), outputs


def answered(then: Decoded, reply: bytes) -> tuple[int, dict[str, Any]] | None:
    """Result and outputs of a reply to a command; None where it cannot be read."""
    if then.parameters is None:
        return None
    try:
        _, result, outputs = codec().decode_reply(Reader(reply), then.parameters)
    except UNREADABLE:
        return None
    return result, outputs


def handles(value: Any, of: Description) -> Iterator[int]:
    """The objects that decoded parameters name."""
    for field in of.fields:
        yield from _handles(value.get(field.name), field)


def _handles(value: Any, field: Any) -> Iterator[int]:
    if value is None:
        return
    if field.kind == "handle":
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, list):
                yield from each
            else:
                yield each
    elif field.kind == "struct":
        struct = codec().model.structs[field.type]
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                yield from _of_struct(each, struct)


def _of_struct(value: dict[str, Any], struct: Any) -> Iterator[int]:
    for field in struct.fields:
        yield from _handles(value.get(field.name), field)
    for name, chained in value.get("pNext") or []:
        yield from _of_struct(chained, codec().model.structs[name])
