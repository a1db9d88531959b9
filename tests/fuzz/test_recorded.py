"""What real clients say, as inputs: they say the same again."""

from __future__ import annotations

import struct

import pytest
from fuzz.commands import CODEC
from fuzz.guest_program import Peer, Program, input_of
from fuzz.recorder import Session
from fuzz.source import Source
from fuzz.targets import vtest

STREAMS = [
    CODEC.encode("vkEnumerateInstanceVersion", {"pApiVersion": 0}, reply=True),
    CODEC.encode("vkSeekReplyCommandStreamMESA", {"position": 64}) * 40,
]


@pytest.mark.parametrize(("ring", "stream"), [(False, False), (True, False), (False, True)])
def test_an_input_sends_what_it_was_made_of(
    ring: bool, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[bytes] = []
    names = ["_submit", "_put", "_stream"]
    way = names[2 if stream else 1 if ring else 0]
    peer = Peer()
    try:
        peer.client.handshake()
        program = Program(Source(input_of(STREAMS, ring=ring, stream=stream)), peer)
        take = said.append
        for name in names:
            plain = getattr(program, name)
            noted = {
                "_submit": take,
                "_put": lambda _, data: take(data),
                "_stream": lambda data, _: take(data),
            }[name]
            monkeypatch.setattr(program, name, noted if name == way else plain)
        program.run()
        program.close()
    finally:
        peer.end()
    # Before them come those that make rings.
    assert said[-len(STREAMS) :] == STREAMS


def test_an_input_says_the_messages_it_was_made_of() -> None:
    messages = [struct.pack("<II", 5, 8) + b"test\0", struct.pack("<II", 0, 10)]
    source = Source(vtest.input_of_messages(messages))
    assert source.number(1) % 8 == 0, "from the first byte on"
    assert [vtest.message(source, None) for _ in messages] == messages
    assert source.is_empty


@pytest.mark.parametrize("words", [6, 8])
def test_a_session_keeps_the_commands_of_all_batches(words: int) -> None:
    heads, at = b"", 1 + words * len(STREAMS)
    for stream in STREAMS:
        head = struct.pack("<6I", 0, at, len(stream) // 4, 0, 0, 0)
        heads += head.ljust(4 * words, b"\0")
        at += len(stream) // 4
    body = struct.pack("<I", len(STREAMS)) + heads + b"".join(STREAMS)
    session = Session()
    session.say(struct.pack("<II", len(body) // 4, 24) + body)
    assert b"".join(data for _, data in session.commands) == b"".join(STREAMS)
    assert {name for name, _ in session.commands} == {
        "vkEnumerateInstanceVersion", "vkSeekReplyCommandStreamMESA",
    }  # fmt: skip
