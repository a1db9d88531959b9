"""Runs a filter as the kernel would: the instructions that `bpf` writes, and no others."""

from __future__ import annotations

import struct
from collections.abc import Sequence


def run(program: bytes, architecture: int, number: int, arguments: Sequence[int] = ()) -> int:
    """Return what the filter says of a call."""
    words = list(arguments) + [0] * (6 - len(arguments))
    data = struct.pack("=iIQ6Q", number, architecture, 0, *words)
    code = list(struct.iter_unpack("=HBBI", program))
    assert len(code) <= 4096, "more than the kernel takes"
    at = accumulator = 0
    while True:
        operation, true, false, value = code[at]
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x05:
            at += value
        elif operation == 0x15:
            at += true if accumulator == value else false
        elif operation == 0x35:
            at += true if accumulator >= value else false
        else:
            assert operation == 0x06, operation
            return int(value)
