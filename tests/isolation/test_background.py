"""Work that gives way to everything else."""

from __future__ import annotations

import os

import pytest

from hesper.isolation.background import run_in_background
from native import native


@native
def test_it_gives_way_and_leaves_the_caller_as_it_was() -> None:
    before = os.sched_getscheduler(0)
    inside = []
    run_in_background(lambda: inside.append(os.sched_getscheduler(0)))
    assert (inside, os.sched_getscheduler(0)) == ([os.SCHED_IDLE], before)


def test_what_fails_in_it_fails_the_caller() -> None:
    empty: dict[str, None] = {}
    with pytest.raises(KeyError, match="lost"):
        run_in_background(lambda: empty["lost"])


def test_it_runs_where_giving_way_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", forbid, raising=False)
    done = []
    run_in_background(lambda: done.append(True))
    assert done == [True]
