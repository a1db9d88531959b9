"""What workers say of their clients is asked for, and believed within bounds only."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from supervised import Supervised

from hesper.figures import ContextFigures, Figures
from hesper.isolation import survey
from hesper.isolation.channel import ChannelError
from hesper.isolation.gpus import Gpus
from hesper.isolation.survey import Survey
from hesper.isolation.tracing import MOST_TRACED, TRACE_BYTES
from hesper.isolation.turns import Turns
from hesper.isolation.worker_process import WorkerProcess

HUGE = (1 << 63) - 1


class FakeCrew:
    """Workers that do nothing by themselves."""

    def __init__(self, count: int) -> None:
        self.workers = {self._worker(number) for number in range(1, count + 1)}
        self.orders: list[tuple[int, str, dict[str, Any], int]] = []
        self.killed: list[tuple[int, str]] = []
        self.on_figures: Any = None

    @staticmethod
    def _worker(number: int) -> WorkerProcess:
        nothing: Any = SimpleNamespace(pid=number)
        worker = WorkerProcess(nothing, nothing, nothing, nothing, background=False)
        worker.state, worker.client, worker.name = "serving", number, f"program {number}"
        return worker

    def worker(self, number: int) -> WorkerProcess:
        return next(worker for worker in self.workers if worker.client == number)

    def order(self, worker: WorkerProcess, do: str, fds: list[int] = [], **values: Any) -> None:  # noqa: B006
        self.orders.append((worker.client, do, values, len(fds)))

    def kill(self, worker: WorkerProcess, why: str) -> None:
        self.killed.append((worker.client, why))


class Asked:
    """A survey of fake workers, and what came of it."""

    def __init__(self, count: int) -> None:
        self.crew = FakeCrew(count)
        self.turns = Turns()
        self.survey = Survey(self.turns, cast(Gpus, self.crew))
        self.answers: list[list[ContextFigures]] = []

    def ask(self, seconds: float = 0.0) -> None:
        self.survey.ask(seconds, self.answers.append)

    def say(self, number: int, **said: Any) -> None:
        message = json.loads(json.dumps({"is": "figures", **said}))
        self.crew.on_figures(self.crew.worker(number), message)


@pytest.fixture
def asked() -> Any:
    asked = Asked(2)
    yield asked
    asked.turns.close()


def test_all_are_asked_and_their_answers_come_together(asked: Asked) -> None:
    asked.ask(5.0)
    assert sorted(asked.crew.orders) == [
        (1, "figures", {"watch": 5.0}, 0), (2, "figures", {"watch": 5.0}, 0),
    ]  # fmt: skip
    asked.say(2, commands=20, doing=[["driver", "vkQueueSubmit"]])
    assert asked.answers == []
    asked.say(1, **msgspec.to_builtins(Figures(commands=10, held={"devices": (1, 16)})))
    ((first, second),) = asked.answers
    assert (first.context, first.name, first.commands) == (1, "program 1", 10)
    assert first.held == {"devices": (1, 16)}
    assert (second.commands, second.doing) == (20, (("driver", "vkQueueSubmit"),))


def test_who_does_not_answer_is_asked_once_and_shown_as_it_was(asked: Asked) -> None:
    asked.ask()
    asked.say(1, commands=1)
    while not asked.answers:
        asked.turns.turn()
    asked.ask()
    assert [order[0] for order in asked.crew.orders].count(2) == 1
    assert [each.commands for each in asked.answers[0]] == [1, 0]


def test_who_has_just_answered_is_not_asked_again(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "FRESH_SECONDS", 3600.0)
    asked.ask()
    asked.say(1, commands=1)
    asked.say(2, commands=2)
    for _ in range(100):
        asked.ask()
    assert len(asked.crew.orders) == 2
    assert [each.commands for each in asked.answers[-1]] == [1, 2]


def test_who_wants_queues_timed_has_it_asked(asked: Asked) -> None:
    asked.ask(0.0)
    asked.say(1)
    asked.say(2)
    asked.ask(5.0)
    assert [values for _, _, values, _ in asked.crew.orders[2:]] == [{"watch": 5.0}] * 2


NONSENSE: dict[str, dict[str, Any]] = {
    "a negative count": {"commands": -1},
    "no number": {"commands": "many"},
    "a float": {"commands": 1.5},
    "too large": {"memory": 1 << 63},
    "no number at all": {"memory": float("nan")},
    "another field": {"user": 0},
    "an unknown account": {"accounts": {"x" * 1000: 1}},
    "an unknown stage": {"doing": [["\x1b[2J", ""]]},
    "an escape for a command": {"doing": [["driver", "\x1b[31mvkCmdDraw"]]},
    "markup for a command": {"doing": [["driver", "[bold]vkCmdDraw"]]},
    "a long command": {"doing": [["driver", "v" * 65]]},
    "many streams": {"doing": [["wait", ""]] * 10},
    "half a pair": {"held": {"devices": [1]}},
    "a deep list": {"doing": [[["wait"]]]},
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_refused(asked: Asked, name: str) -> None:
    asked.ask()
    with pytest.raises(ChannelError, match="figures: "):
        asked.say(1, **NONSENSE[name])


def test_what_nobody_has_asked_for_is_refused(asked: Asked) -> None:
    with pytest.raises(ChannelError, match="nobody has asked"):
        asked.say(1, commands=1)
    asked.ask()
    asked.say(1, commands=1)
    with pytest.raises(ChannelError, match="nobody has asked"):
        asked.say(1, commands=2)


def test_no_counter_falls(asked: Asked) -> None:
    """A worker could make sums of all of them fall, or jump back and forth."""
    asked.ask()
    asked.say(1, commands=HUGE, busy_ns=7, frames=3, submissions=9, stream_bytes=8, memory=5)
    asked.crew.worker(1).answered = 0.0
    asked.ask()
    asked.say(1, memory=4)
    found = asked.crew.worker(1).figures
    assert (found.commands, found.busy_ns, found.frames) == (HUGE, 7, 3)
    assert (found.submissions, found.stream_bytes, found.memory) == (9, 8, 4)


def test_a_client_is_ended_by_its_number(asked: Asked) -> None:
    assert asked.survey.end(2, "so it is")
    assert not asked.survey.end(3, "nobody")
    assert asked.crew.killed == [(2, "so it is")]


def test_a_trace_has_those_that_are_there_and_those_that_come(asked: Asked) -> None:
    got: list[tuple[int, int]] = []

    def on_context(number: int, fd: int) -> None:
        got.append((number, os.fstat(fd).st_size))
        os.close(fd)

    assert asked.survey.trace(60.0, on_context)
    assert not asked.survey.trace(60.0, lambda *_: None), "one at a time"
    assert got == [(1, TRACE_BYTES), (2, TRACE_BYTES)]
    for _ in range(2 * MOST_TRACED):
        asked.survey.began(asked.crew.worker(1))
    assert len(got) == MOST_TRACED
    asked.survey.end_trace(on_context)
    asked.survey.began(asked.crew.worker(2))
    assert len(got) == MOST_TRACED
    assert {(do, fds) for _, do, _, fds in asked.crew.orders} == {("trace", 1)}


@pytest.mark.parametrize(
    "said", ['{"is": "figures", "commands": 1}', '{"is": "figures", "commands": -1e999}']
)
def test_a_worker_that_says_figures_unasked_is_killed(tmp_path: Path, said: str) -> None:
    one = Supervised(tmp_path / "socket")
    try:
        one.ready()
        client, other = one.client(), one.client()
        assert other.ask()
        client.say(f"send {said}")
        assert "figures that nobody has asked for" in one.logged("client killed")["reason"]
        assert other.ask()
    finally:
        one.process.kill()
        one.end()
