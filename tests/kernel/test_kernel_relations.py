"""The kernel's relations against the reference codec's: each one met exactly, and broken by one."""

from __future__ import annotations

import random

import pytest

from hesper.kernel.errors import ProtocolError
from hesper.protocol.codec import Codec, Reader
from kernel.decoding import MODEL, Bench
from protocol.relating import Case, Relating, cases, small

KNOWN = small(MODEL)
CODEC = Codec(MODEL, KNOWN)


def name(case: Case) -> str:
    return f"{case.owner}: {case.relation.text}"[:90]


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(KNOWN)


def message(bench: Bench, case: Case, *, good: bool) -> bytes:
    """The command; what a handler sees of it is compared with what the codec makes of it."""
    if bench.engine.fatal:
        bench.start()
    drawn = Relating(
        MODEL,
        random.Random(1),
        lambda t: bench.ids[t],
        bench.values(random.Random(1)).new_handle,
        KNOWN,
    )
    data = CODEC.encode(case.command, drawn.message(case, good=good))
    bench.expected, bench.problems, bench.seen = {}, [], []
    if good or case.relation.remedy:
        bench.expected = CODEC.decode(Reader(data))[2]
    return data


@pytest.mark.parametrize("case", cases(MODEL), ids=name)
def test_what_meets_it_exactly_is_taken(bench: Bench, case: Case) -> None:
    bench.engine.submit(message(bench, case, good=True))
    assert [n for n, _ in bench.seen] == [case.command]
    assert bench.problems == []


@pytest.mark.parametrize("case", cases(MODEL), ids=name)
def test_one_more_or_less_is_refused_or_mended(bench: Bench, case: Case) -> None:
    data = message(bench, case, good=False)
    if case.relation.remedy:
        bench.engine.submit(data)
        assert [n for n, _ in bench.seen] == [case.command]
        assert bench.problems == []
        return
    with pytest.raises(ProtocolError) as caught:
        bench.engine.submit(data)
    assert case.command in str(caught.value)
    assert repr(case.relation.text) in str(caught.value)
    assert bench.seen == []


def test_a_struct_that_relations_speak_of_stands_once_in_a_chain(bench: Bench) -> None:
    values = {"waitSemaphoreValueCount": 0, "signalSemaphoreValueCount": 0}
    chain = [("VkTimelineSemaphoreSubmitInfo", values)] * 2
    data = CODEC.encode(
        "vkQueueSubmit",
        {"queue": bench.ids["VkQueue"], "submitCount": 1, "pSubmits": [{"pNext": chain}]},
    )
    if bench.engine.fatal:
        bench.start()
    with pytest.raises(ProtocolError, match="twice in a pNext chain"):
        bench.engine.submit(data)
