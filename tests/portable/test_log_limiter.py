"""Floods of log lines: the first of each kind is written, the others are counted."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from hesper import log_limiter
from hesper.log_limiter import ALL, CLIENT, EVERY, MOST_TOPICS, TOPIC, Limiter


class Log:
    """What is written, and a clock that stands still unless it is set."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, str, dict[str, Any]]] = []
        self.now = 1000.0
        self.came = threading.Condition()
        self.limiter = Limiter(self._write, clock=lambda: self.now)

    def _write(self, *line: Any) -> None:
        with self.came:
            self.lines.append(line)
            self.came.notify_all()

    def flood(self, count: int, event: str = "odd", who: str = "") -> None:
        for number in range(count):
            self.limiter("warning", "a", event, {"number": number}, who)

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for _, _, name, fields in self.lines if name == event]

    def counted(self) -> int:
        """Lines there have been, by what is written."""
        total = 0
        for _, _, event, fields in self.lines:
            left_out = event == "log lines left out"
            total += fields["number"] if left_out else 1 + fields.get("left_out", 0)
        return total


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Log:
    # The clock is the test's; nobody looks at it meanwhile.
    monkeypatch.setattr(Limiter, "_tell", lambda _: None)
    return Log()


def test_the_first_lines_are_written_and_the_rest_counted_in_the_last(logged: Log) -> None:
    logged.flood(TOPIC.at_once + 5)
    assert [one["number"] for one in logged.of("odd")] == list(range(TOPIC.at_once))
    logged.now += EVERY
    logged.flood(1)
    # It is held back, too: the flood goes on.
    assert logged.of("odd")[-1] == {"number": TOPIC.at_once + 4, "left_out": 4}
    logged.limiter.flush()
    assert logged.counted() == TOPIC.at_once + 6


def test_a_topic_that_was_quiet_has_its_allowance_again(logged: Log) -> None:
    logged.flood(TOPIC.at_once)
    logged.now += TOPIC.seconds * TOPIC.at_once
    logged.flood(TOPIC.at_once)
    assert len(logged.lines) == 2 * TOPIC.at_once


def test_a_single_line_that_was_held_back_is_written_as_it_is(logged: Log) -> None:
    logged.flood(TOPIC.at_once + 1)
    logged.limiter.flush()
    assert logged.of("odd")[-1] == {"number": TOPIC.at_once}


def test_topics_and_clients_use_up_nothing_of_each_other(logged: Log) -> None:
    logged.flood(100, "odd", "a")
    logged.flood(1, "odd", "b")
    logged.flood(1, "other", "a")
    logged.flood(1, "odd")
    assert len(logged.lines) == TOPIC.at_once + 3


def test_who_makes_up_topics_is_told_of_in_one_line(logged: Log) -> None:
    for number in range(1000):
        logged.flood(1, f"odd {number}", "a")
    logged.flood(1, "odd", "b")
    assert len(logged.lines) == CLIENT.at_once + 1
    logged.limiter.flush()
    assert logged.lines[-1][2:] == (
        "log lines left out",
        {"number": 1000 - CLIENT.at_once, "of": "a", "last": "odd 999"},
    )


def test_who_comes_under_many_names_is_told_of_in_one_line(logged: Log) -> None:
    for number in range(5000):
        logged.flood(1, "odd", str(number))
    logged.flood(1, "our own")
    assert len(logged.lines) == ALL.at_once + 1
    logged.limiter.flush()
    assert logged.lines[-1][3]["of"] == "all clients"
    assert logged.counted() == 5001


def test_what_is_forgotten_is_counted(logged: Log) -> None:
    for number in range(MOST_TOPICS + 10):
        logged.flood(TOPIC.at_once + 2, f"odd {number}")
    # The first are forgotten, and told of for that.
    assert logged.of("odd 0")[-1] == {"number": TOPIC.at_once + 1, "left_out": 1}
    logged.limiter.flush()
    assert logged.counted() == (MOST_TOPICS + 10) * (TOPIC.at_once + 2)


def test_a_line_of_errors_is_no_warning_when_it_is_told_of(logged: Log) -> None:
    logged.flood(TOPIC.at_once)
    logged.limiter("error", "a", "odd", {})
    logged.limiter("error", "a", "odd", {"left_out": 4})
    logged.limiter.flush()
    assert logged.lines[-1] == ("error", "a", "odd", {"left_out": 5})


def test_what_was_held_back_is_told_though_nothing_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_limiter, "EVERY", 0.0)
    logged = Log()
    logged.flood(TOPIC.at_once + 1)
    with logged.came:
        assert logged.came.wait_for(lambda: len(logged.lines) == TOPIC.at_once + 1, 60)
