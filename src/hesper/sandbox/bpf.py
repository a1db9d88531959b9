"""Programs for the kernel's filter of system calls, as bytes.

A program is classic BPF over `struct seccomp_data` (`linux/seccomp.h`, `linux/bpf_common.h`): which
call, which kind of processor, its arguments.  libseccomp would make it, too; but a plain container
need not have it, and what is wanted here is a search and some comparisons.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Code: TypeAlias = list[tuple[int, int, int, int]]
"""Instructions: code, how far to jump when true and when false, constant."""

ALLOW = 0x7FFF0000
KILL = 0x80000000
"""The process, at once."""
TRAP = 0x00030000
"""SIGSYS, whose handler says which call it was."""
NOTIFY = 0x7FC00000
"""Ask a listener."""
ERROR = 0x00050000
"""Fail; the error's number is added."""

_LOAD, _JUMP, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x05, 0x15, 0x35, 0x54, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_X32 = 0x40000000
"""From here on are the numbers of x86_64's other calling convention."""
_NEAR = 255
"""How far a comparison can jump."""


def load(argument: int) -> Code:
    """Load the lower half of an argument; both architectures are little-endian."""
    return [(_LOAD, 0, 0, _ARGUMENTS + 8 * argument)]


def answer(action: int) -> Code:
    """End with that."""
    return [(_RETURN, 0, 0, action)]


def one_of(argument: int, values: Sequence[int], otherwise: Code) -> Code:
    """Allow a call if an argument has one of those values."""
    code = load(argument)
    for value in values:
        code += [(_EQUAL, 0, 1, value), *answer(ALLOW)]
    return code + otherwise


def masked(argument: int, mask: int, values: Sequence[int], otherwise: Code) -> Code:
    """Allow a call if an argument has one of those values under a mask."""
    code = [*load(argument), (_AND, 0, 0, mask)]
    for value in values:
        code += [(_EQUAL, 0, 1, value), *answer(ALLOW)]
    return code + otherwise


def all_equal(arguments: Sequence[int], value: int, otherwise: Code) -> Code:
    """Allow a call if all those arguments have a value."""
    code = answer(ALLOW)
    for argument in reversed(arguments):
        code = [*load(argument), (_EQUAL, 0, len(code), value), *code]
    return code + otherwise


def where(argument: int, value: int, then: Code, otherwise: Code) -> Code:
    """Go on with `then` if an argument has that value."""
    return [*load(argument), (_EQUAL, 0, len(then), value), *then, *otherwise]


def program(architecture: int, calls: Mapping[int, Code], otherwise: Code) -> bytes:
    """Do for each call what its code says, and `otherwise` for all others.

    architecture: as the kernel calls it; a call of another kind ends the process.
    """
    steps: list[tuple[int, Code]] = [(0, otherwise)]
    for number in sorted({*calls, *(number + 1 for number in calls), _X32}):
        code = calls.get(number, otherwise)
        if code != steps[-1][1]:
            steps.append((number, code))
    head = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        *answer(KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    return b"".join(struct.pack("=HBBI", *each) for each in head + _search(steps))


def _search(steps: Sequence[tuple[int, Code]]) -> Code:
    """Find the last step that begins at or before the number that is loaded."""
    if len(steps) == 1:
        return steps[0][1]
    middle = len(steps) // 2
    below, above = _search(steps[:middle]), _search(steps[middle:])
    start = steps[middle][0]
    if len(below) <= _NEAR:
        return [(_AT_LEAST, len(below), 0, start), *below, *above]
    return [(_AT_LEAST, 0, 1, start), (_JUMP, 0, 0, len(below)), *below, *above]
