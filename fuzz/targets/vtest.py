"""What a vtest client says from its first byte on: the session alone, on the tests' context."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Sequence

from vtest_client import Served

from fuzz.checks import nothing_left
from fuzz.source import Source
from hesper.vtest.wire import REQUESTS, Command

INSTRUMENTED = ("hesper.vtest", "hesper.sockets")
NUMBERS = sorted(Command)
AS_IT_STANDS = 252
"""Choices from here on are messages of which every byte is given."""


def prepare() -> None:
    """Nothing takes long."""


def run_one(data: bytes) -> None:
    """Say it, leave, and look at what the session says of it."""
    source = Source(data)
    setup = source.number(1)
    is_after_handshake = setup % 4 > 0
    first = (Command.CREATE_RENDERER, Command.PROTOCOL_VERSION) if setup % 8 == 4 else ()
    with nothing_left():
        one = Served()
        sender = threading.Thread(target=_send, args=[one, source, first])
        try:
            if is_after_handshake:
                one.client.handshake()
            sender.start()
            _read(one.client.sock)
            sender.join()
        finally:
            reason = one.end()
        if "\n" in reason:
            raise ValueError(f"a reason of several lines: {reason!r}")


def _send(one: Served, source: Source, first: Sequence[int]) -> None:
    messages = [message(source, number) for number in first]
    while not source.is_empty:
        messages.append(message(source, None))
    with contextlib.suppress(OSError):
        one.client.sock.sendall(b"".join(messages))
        one.client.sock.shutdown(socket.SHUT_WR)


def input_of_messages(messages: Sequence[bytes]) -> bytes:
    """The input that says `messages`, from the first on, as they stand."""
    data = bytes([0])
    for message in messages:
        data += struct.pack("<BH", AS_IT_STANDS, len(message) & 0xFFFF) + message[:0xFFFF]
    return data


def message(source: Source, number: int | None) -> bytes:
    """A message that is mostly of the right shape."""
    if number is None:
        choice = source.number(1)
        if choice >= AS_IT_STANDS:
            return source.take(source.number(2))
        number = NUMBERS[choice % len(NUMBERS)] if choice < 240 else source.number(4)
    request = REQUESTS.get(Command(number)) if number in NUMBERS else None
    # Words, most of which are small.
    count = source.number(1) % 24
    body = b"".join(
        struct.pack("<I", source.number(1) if source.number(1) < 224 else source.number(4))
        for _ in range(count)
    )
    is_odd = source.number(1) >= 240
    if request is not None and not is_odd:
        body = body[: request.longest].ljust(request.shortest, b"\0")
    unit = request.unit if request is not None else 4
    length = source.number(4) if is_odd else len(body) // unit
    return struct.pack("<II", length, number) + body


def _read(sock: socket.socket) -> None:
    """Take the answers, or both sides would wait for each other."""
    with contextlib.suppress(OSError):
        while True:
            data, fds, _, _ = socket.recv_fds(sock, 1 << 16, 64)
            for fd in fds:
                os.close(fd)
            if not data:
                return
