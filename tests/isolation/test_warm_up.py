"""When a worker warms up: before it says that it is ready, or when nobody wants it at once."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator

import pytest

from hesper.isolation import worker as module
from native import native


class Service:
    """Notes how it was warmed up."""

    def __init__(self) -> None:
        self.warmed: list[int] = []

    def warm_up(self) -> None:
        self.warmed.append(os.sched_getscheduler(0) if sys.platform == "linux" else 0)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[int]]]:
    """Lets a worker that is not warm wait for its client, which has come or not."""
    ours, theirs = socket.socketpair()

    def late(*, has_client: bool, background: bool) -> list[int]:
        for name in ("AT_ONCE", "QUIET"):
            monkeypatch.setattr(module, name, 3600.0 if has_client else 0.0)
        if has_client:
            ours.sendall(b"serve")
        service = Service()
        module.warm_up_later(service, theirs, background=background)  # type: ignore[arg-type]
        return service.warmed

    with ours, theirs:
        yield late


@pytest.mark.parametrize("background", [False, True])
def test_a_client_that_is_there_does_not_wait_for_it(
    late: Callable[..., list[int]], background: bool
) -> None:
    assert late(has_client=True, background=background) == []


def test_a_worker_that_nobody_wants_warms_up(late: Callable[..., list[int]]) -> None:
    assert len(late(has_client=False, background=False)) == 1


@native
def test_one_that_was_started_in_a_rush_gives_way_to_others(
    late: Callable[..., list[int]],
) -> None:
    assert late(has_client=False, background=True) == [os.SCHED_IDLE]
