"""The reference codec: what it encodes it decodes, byte for byte, for every command."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hesper.protocol.codec import Codec, CodecError, Reader
from hesper.protocol.model import load
from protocol.relating import Relating

MODEL = load()
CODEC = Codec(MODEL)
SENT = sorted(c.name for c in MODEL.commands.values() if not c.refused)


@pytest.mark.parametrize("name", SENT)
def test_every_command_round_trips(name: str) -> None:
    for seed in range(20):
        values = Relating(MODEL, random.Random(f"{name} {seed}")).parameters(MODEL.commands[name])
        data = CODEC.encode(name, values, reply=seed % 2 == 0)
        reader = Reader(data)
        command, flags, decoded = CODEC.decode(reader)
        assert (command.name, flags, reader.left) == (name, int(seed % 2 == 0), 0)
        assert decoded == values
        assert CODEC.encode(name, decoded, reply=bool(flags)) == data


@given(st.sampled_from(SENT), st.integers(0, 2**32), st.data())
def test_damaged_bytes_are_refused_or_decode_to_what_they_say(
    name: str, seed: int, data: st.DataObject
) -> None:
    rng = random.Random(seed)
    sent = bytearray(CODEC.encode(name, Relating(MODEL, rng).parameters(MODEL.commands[name])))
    for _ in range(data.draw(st.integers(1, 4))):
        sent[data.draw(st.integers(8, len(sent) - 1)) if len(sent) > 8 else 0] = data.draw(
            st.integers(0, 255)
        )
    reader = Reader(bytes(sent))
    try:
        command, flags, decoded = CODEC.decode(reader)
    except CodecError:
        return
    # Padding and flags may differ; the values may not.
    again = CODEC.decode(Reader(CODEC.encode(command.name, decoded, reply=bool(flags))))[2]
    assert repr(again) == repr(decoded)


@given(st.binary(max_size=256))
def test_garbage_never_does_anything_but_be_refused(garbage: bytes) -> None:
    reader = Reader(garbage)
    try:
        while reader.left:
            CODEC.decode(reader)
    except CodecError:
        pass
    assert reader.position <= len(garbage)
