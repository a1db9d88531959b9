"""What a client hears that nobody serves."""

from __future__ import annotations

import mmap
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from hesper.protocol.virtgpu import MAX_TIMELINES
from hesper.vtest import wire
from hesper.vtest.refusal import VtestRefusal, VtestRefuser
from hesper.vtest.wire import Command

CAPSET = bytes(range(160))


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, VtestRefusal]]:
    """A client's socket, and who answers at the other end."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    ours.settimeout(10)
    with ours, theirs:
        refuser = VtestRefuser()
        yield ours, refuser(theirs, CAPSET.hex(), "no place")
        refuser.close()


def message(command: Command, *words: int) -> bytes:
    return wire.HEADER.pack(len(words), command) + struct.pack(f"<{len(words)}I", *words)


def hello() -> bytes:
    return (
        wire.HEADER.pack(5, Command.CREATE_RENDERER)
        + b"name\0"
        + message(Command.PING_PROTOCOL_VERSION)
        + message(Command.RESOURCE_BUSY_WAIT, 0, 0)
        + message(Command.PROTOCOL_VERSION, 4)
        + message(Command.GET_PARAM, wire.Param.MAX_TIMELINE_COUNT)
        + message(Command.GET_CAPSET, wire.CAPSET_VENUS, 0)
        + message(Command.CONTEXT_INIT, wire.CAPSET_VENUS)
        + message(Command.RESOURCE_CREATE_BLOB, wire.BlobType.HOST3D, 1, 4096, 0, 0, 0)
    )


ANSWER = (
    wire.HEADER.pack(0, Command.PING_PROTOCOL_VERSION)
    + wire.REPLY_U32.pack(1, Command.RESOURCE_BUSY_WAIT, 0)
    + wire.REPLY_U32.pack(1, Command.PROTOCOL_VERSION, wire.PROTOCOL_VERSION)
    + wire.REPLY_TWO_U32.pack(2, Command.GET_PARAM, 1, MAX_TIMELINES)
    + wire.REPLY_U32.pack(41, Command.GET_CAPSET, 1)
    + CAPSET
    + wire.REPLY_U32.pack(1, Command.RESOURCE_CREATE_BLOB, 1)
)


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_the_handshake_succeeds_and_the_first_memory_cannot_be_mapped(
    sockets: tuple[socket.socket, VtestRefusal], step: int
) -> None:
    ours, refusal = sockets
    data = hello()
    for start in range(0, len(data), step):
        ours.sendall(data[start : start + step])
        assert refusal.hear()
    answer = b""
    while len(answer) < len(ANSWER):
        answer += ours.recv(len(ANSWER) - len(answer))
    assert answer == ANSWER
    byte, fds, _, _ = socket.recv_fds(ours, 1, 1)
    assert byte == b"\0"
    with pytest.raises(OSError, match=r"Permission denied|No such device"):
        mmap.mmap(fds[0], 4096)
    os.close(fds[0])
    ours.sendall(message(Command.RESOURCE_UNREF, 1))
    assert refusal.hear()
    ours.close()
    assert not refusal.hear()


@pytest.mark.parametrize(
    "data",
    [
        wire.HEADER.pack(1, 1000),
        wire.HEADER.pack(1 << 30, Command.CREATE_RENDERER),
        message(Command.PROTOCOL_VERSION),
        message(Command.SUBMIT_CMD2, 0),
        wire.HEADER.pack(1 << 20, Command.SUBMIT_CMD2),
    ],
)
def test_nonsense_ends_it(sockets: tuple[socket.socket, VtestRefusal], data: bytes) -> None:
    ours, refusal = sockets
    ours.sendall(data)
    assert not refusal.hear()


def test_a_client_that_takes_nothing_in_does_not_block(
    sockets: tuple[socket.socket, VtestRefusal],
) -> None:
    ours, refusal = sockets
    ours.setblocking(False)
    with pytest.raises(BlockingIOError):
        ask_for_ever(ours, refusal)


def ask_for_ever(ours: socket.socket, refusal: VtestRefusal) -> None:
    while True:
        ours.sendall(message(Command.GET_CAPSET, wire.CAPSET_VENUS, 0))
        refusal.hear()
