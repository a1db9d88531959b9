"""The kernel's decoder and reply encoder against the reference codec, for every command."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hesper.kernel.errors import ProtocolError
from hesper.protocol.codec import CodecError, Reader
from hesper.protocol.model import Command
from kernel.decoding import CODEC, MODEL, REPLY_BYTES, REPLY_RESOURCE, SENT, Bench


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def new_ids(command: Command, values: dict[str, Any]) -> dict[str, Any]:
    return {f.name: values[f.name] for f in command.fields if f.output and f.kind == "handle"}


@pytest.mark.parametrize("name", [n for n in SENT if n != "vkSetReplyCommandStreamMESA"])
def test_every_command_and_its_reply(bench: Bench, name: str) -> None:
    command = MODEL.commands[name]
    for seed in range(12):
        if bench.engine.fatal:
            bench.start()
        values = bench.values(random.Random(f"{name} {seed}")).parameters(command)
        if name == "vkGetPipelineCacheData" and values["pData"] is None:
            continue  # the kernel asks the driver itself (`core/caches.pxd`)
        bench.expected, bench.problems, bench.seen = values, [], []
        bench.engine.submit(CODEC.encode("vkSeekReplyCommandStreamMESA", {"position": 0}))
        bench.expected, bench.seen, bench.problems = values, [], []
        stream = {"pStream": {"resourceId": REPLY_RESOURCE, "offset": 0, "size": REPLY_BYTES}}
        bench.engine.submit(CODEC.encode("vkSetReplyCommandStreamMESA", stream))
        bench.engine.submit(CODEC.encode(name, values, reply=True))
        assert [n for n, _ in bench.seen] == [name]
        assert bench.problems == []
        reader = Reader(bench.reply.raw)
        answered, result, outputs = CODEC.decode_reply(reader, values)
        assert (answered.name, result) == (name, 0)
        assert outputs == {**new_ids(command, values), **bench.outputs}


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(SENT), st.integers(0, 2**32), st.data())
def test_damaged_commands_are_refused_by_both(
    bench: Bench, name: str, seed: int, data: st.DataObject
) -> None:
    rng = random.Random(seed)
    if bench.engine.fatal:
        bench.start()
    values = bench.values(rng).parameters(MODEL.commands[name])
    sent = bytearray(CODEC.encode(name, values))
    if data.draw(st.booleans()):
        del sent[data.draw(st.integers(0, len(sent) // 4)) * 4 :]
    for _ in range(data.draw(st.integers(0, 3))):
        if len(sent) > 8:
            sent[data.draw(st.integers(8, len(sent) - 1))] = data.draw(st.integers(0, 255))
    bench.expected = {}
    try:
        CODEC.decode(Reader(bytes(sent))) if sent else None
        valid = True
    except CodecError:
        valid = False
    said = ""
    try:
        bench.engine.submit(bytes(sent))
    except ProtocolError as error:
        said = str(error)
    accepted = not said
    assert bench.engine.fatal == bool(said)
    assert bench.fatal == ([said] if said else [])
    # The kernel checks more (objects, devices, depth), never less.
    assert valid or not accepted


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=256))
def test_garbage_poisons_the_context(bench: Bench, garbage: bytes) -> None:
    if bench.engine.fatal:
        bench.start()
    bench.expected = {}
    try:
        bench.engine.submit(garbage)
    except ProtocolError:
        assert bench.engine.fatal
        assert len(bench.fatal) == 1
