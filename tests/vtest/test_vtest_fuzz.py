"""Whatever a client sends: the session ends, says why in one line, and keeps nothing."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vtest_client import Served

from hesper.vtest import wire
from hesper.vtest.wire import Command
from open_files import assert_closed_since, open_files

u32 = st.one_of(
    st.integers(0, 12),
    st.sampled_from([63, 64, 255, 4096, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]),
    st.integers(0, (1 << 32) - 1),
)
numbers = st.one_of(
    st.sampled_from(sorted(wire.REQUESTS)), st.sampled_from(sorted(Command)), st.integers(0, 60)
)
data = st.one_of(
    st.lists(u32, max_size=24).map(lambda words: struct.pack(f"<{len(words)}I", *words)),
    st.binary(max_size=200),
)


@st.composite
def message(draw: st.DrawFn) -> bytes:
    """A message that is mostly of the right shape."""
    number, body = draw(numbers), draw(data)
    request = wire.REQUESTS.get(Command(number)) if number in set(Command) else None
    if request is not None and draw(st.integers(0, 9)):
        size = max(request.shortest, min(len(body), request.longest))
        body = body[:size].ljust(size, b"\0")
    unit = request.unit if request is not None else 4
    length = len(body) // unit if draw(st.integers(0, 9)) else draw(u32)
    return struct.pack("<II", length, number) + body


def attack(stream: bytes, *, after_handshake: bool) -> str:
    """Send all of it, leave, and return what the session says of it."""
    before = open_files()
    one = Served()
    if after_handshake:
        one.client.handshake()
    sock = one.client.sock
    sender = threading.Thread(target=_send, args=[sock, stream])
    sender.start()
    # Replies must be read, or both sides wait for each other.
    with contextlib.suppress(ConnectionError):
        while True:
            received, fds, _, _ = socket.recv_fds(sock, 1 << 16, 16)
            for fd in fds:
                os.close(fd)
            if not received:
                break
    sender.join()
    reason = one.end()
    assert "\n" not in reason
    assert after_handshake == one.host.context.closed or one.host.on_fatal is not None
    assert_closed_since(before)
    return reason


def _send(sock: socket.socket, stream: bytes) -> None:
    with contextlib.suppress(OSError):
        sock.sendall(stream)
        sock.shutdown(socket.SHUT_WR)


@settings(max_examples=300, deadline=None)
@given(stream=st.binary(max_size=400), after_handshake=st.booleans())
def test_random_bytes(stream: bytes, after_handshake: bool) -> None:
    attack(stream, after_handshake=after_handshake)


@settings(max_examples=500, deadline=None)
@given(messages=st.lists(message(), max_size=12), after_handshake=st.booleans())
def test_random_messages(messages: list[bytes], after_handshake: bool) -> None:
    attack(b"".join(messages), after_handshake=after_handshake)


@pytest.mark.parametrize("seed", range(20))
def test_long_random_streams(seed: int) -> None:
    generator = random.Random(seed)
    stream = bytearray()
    for _ in range(2000):
        number = generator.choice(sorted(wire.REQUESTS))
        request = wire.REQUESTS[number]
        size = min(request.longest, max(request.shortest, generator.randrange(0, 80, 4)))
        words = [generator.choice([0, 1, 2, 3, 7, 8, 4096]) for _ in range(size // 4)]
        if number not in (Command.CREATE_RENDERER, Command.CONTEXT_INIT):
            stream += struct.pack(f"<II{len(words)}I", len(words), number, *words)
    assert attack(bytes(stream), after_handshake=True)


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_stream_that_ends_anywhere(cut: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    whole = struct.pack("<II", 5, 8) + b"name\0" + struct.pack("<III", 1, 11, 3)
    whole += struct.pack("<III", 1, 17, 4) + struct.pack("<IIQ", 2, 19, 5)
    whole += struct.pack("<IIIQ", 3, 22, 1, 9)
    assert attack(whole[:cut], after_handshake=False) == ""
    ends = {13, 25, 37, 53, 73}
    assert ("left in mid-message" in caplog.text) == (cut not in ends)
