"""Relations: each one is met by what meets it exactly, and broken by one more or less."""

from __future__ import annotations

import random

import pytest

from hesper.protocol.codec import Codec, CodecError, Reader
from hesper.protocol.model import load
from protocol.relating import Case, Relating, cases, small_limits

MODEL = load()
CODEC = Codec(MODEL, small_limits(MODEL))
CASES = cases(MODEL)


def name(case: Case) -> str:
    return f"{case.owner}: {case.relation.text}"[:90]


@pytest.mark.parametrize("case", CASES, ids=name)
def test_what_meets_it_exactly_is_taken(case: Case) -> None:
    values = Relating(MODEL, random.Random(1)).message(case, good=True)
    data = CODEC.encode(case.command, values)
    command, _, decoded = CODEC.decode(Reader(data))
    assert CODEC.encode(command.name, decoded) == data


@pytest.mark.parametrize("case", CASES, ids=name)
def test_one_more_or_less_is_refused_or_mended(case: Case) -> None:
    values = Relating(MODEL, random.Random(1)).message(case, good=False)
    data = CODEC.encode(case.command, values)
    if not case.relation.remedy:
        with pytest.raises(CodecError) as caught:
            CODEC.decode(Reader(data))
        assert repr(case.relation.text) in str(caught.value)
        return
    command, _, decoded = CODEC.decode(Reader(data))
    assert CODEC.encode(command.name, decoded) != data
