"""Relations: each one is met by what meets it exactly, and broken by one more or less."""

from __future__ import annotations

import random

import pytest

from hesper.protocol.codec import Codec, CodecError, Reader
from hesper.protocol.model import load
from protocol.relating import Case, Relating, cases, ids, small

MODEL = load()
KNOWN = small(MODEL)
CODEC = Codec(MODEL, KNOWN)
IDS = ids(MODEL)
CASES = cases(MODEL)


def name(case: Case) -> str:
    return f"{case.owner}: {case.relation.text}"[:90]


def message(case: Case, *, good: bool) -> bytes:
    drawn = Relating(MODEL, random.Random(1), lambda t: IDS[t], known=KNOWN)
    return CODEC.encode(case.command, drawn.message(case, good=good))


@pytest.mark.parametrize("case", CASES, ids=name)
def test_what_meets_it_exactly_is_taken(case: Case) -> None:
    data = message(case, good=True)
    command, _, decoded = CODEC.decode(Reader(data))
    assert CODEC.encode(command.name, decoded) == data


@pytest.mark.parametrize("case", CASES, ids=name)
def test_one_more_or_less_is_refused_or_mended(case: Case) -> None:
    data = message(case, good=False)
    if not case.relation.remedy:
        with pytest.raises(CodecError) as caught:
            CODEC.decode(Reader(data))
        assert repr(case.relation.text) in str(caught.value)
        return
    command, _, decoded = CODEC.decode(Reader(data))
    assert CODEC.encode(command.name, decoded) != data
