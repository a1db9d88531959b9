"""Where two recordings part: two runs, or two drivers."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hesper.errors import HesperError
from hesper.trace.inspect import line_of
from hesper.trace.show import text_of

if TYPE_CHECKING:
    from hesper.trace.decoded import Decoded

MOST_TOLD = 20
"""Answers that differ, of which there may be very many."""
MOST_BYTES = 128 << 20
"""Of one recording's commands and answers, which are all kept as values."""


def gather(commands: Iterator[Decoded]) -> list[Decoded]:
    """All that are to be compared.  Raises `HesperError` for more than can be kept."""
    found: list[Decoded] = []
    size = 0
    for command in commands:
        size += len(command.data) + len(command.reply)
        if size > MOST_BYTES:
            raise HesperError(
                f"command {command.number}: more than {MOST_BYTES >> 20} MiB of commands are to be"
                " compared: choose some with --name, --ring, --begin, --end"
            )
        found.append(command)
    return found


def differences(first: Sequence[Decoded], second: Sequence[Decoded]) -> Iterator[str]:
    """Lines about what differs between the commands of two recordings; none where nothing does.

    Rings have other ids in each run: they are compared in the order in which they appear.
    """
    yield from _counts(first, second)
    left, right = _streams(first), _streams(second)
    if len(left) != len(right):
        yield f"streams: {len(left)} and {len(right)}"
    told = 0
    for place, (one, other) in enumerate(zip(left, right, strict=False)):
        for a, b in zip(one, other, strict=False):
            if _key(a) != _key(b):
                yield f"stream {place} parts here:"
                yield f"- {line_of(a)}"
                yield f"+ {line_of(b)}"
                break
            if (a.result, a.outputs) != (b.result, b.outputs) and told < MOST_TOLD:
                told += 1
                yield f"{a.name} is answered otherwise:"
                yield f"- {a.number}: {_answer(a)}"
                yield f"+ {b.number}: {_answer(b)}"
        else:
            if len(one) != len(other):
                yield f"stream {place}: {len(one)} and {len(other)} commands"


def _counts(first: Sequence[Decoded], second: Sequence[Decoded]) -> Iterator[str]:
    one = collections.Counter(found.name for found in first)
    other = collections.Counter(found.name for found in second)
    for name in sorted(one | other):
        if one[name] != other[name]:
            yield f"{name}: {one[name]} and {other[name]}"


def _streams(found: Sequence[Decoded]) -> list[list[Decoded]]:
    """Commands by stream, as these appear."""
    streams: dict[int, list[Decoded]] = {}
    for each in found:
        streams.setdefault(each.stream, []).append(each)
    return list(streams.values())


def _key(found: Decoded) -> tuple[str, str]:
    """What makes two commands the same, but for ids of rings."""
    if found.name.endswith("MESA") and found.parameters is not None:
        return found.name, ""
    return found.name, text_of(found.parameters, whole=True)


def _answer(found: Decoded) -> str:
    return f"{found.result} {text_of(found.outputs)}"[:400]
