"""Log lines: one an event, for people or machines, and no way to a terminal's controls."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from hesper import log


@pytest.fixture(autouse=True)
def _default() -> Iterator[None]:
    yield
    log.configure()


def test_lines_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(level="info", json=True)
    logger = log.get_logger("a.b", client=3)
    logger.debug("too small")
    logger.bind(name="x").warning("odd", value=b"\0")
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    entry.pop("timestamp")
    assert entry == {
        "event": "odd",
        "level": "warning",
        "logger": "a.b",
        "client": 3,
        "name": "x",
        "value": "b'\\x00'",
    }


def test_lines_for_people_hold_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(level="debug")
    log.get_logger("a.b").debug("seen", reason="\x1b[31mred\x07\r")
    line = capsys.readouterr().err
    assert "?[31mred??" in line
    assert "\x1b" not in line
    assert "a.b" not in line
    assert line.count("\n") == 1


def test_an_exception_brings_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(json=True)
    try:
        raise KeyError("lost")
    except KeyError:
        log.get_logger("a").exception("broken", number=1)
    entry = json.loads(capsys.readouterr().err)
    assert entry["exception"].startswith("Traceback")
    assert entry["exception"].endswith("KeyError: 'lost'")
    assert (entry["level"], entry["number"]) == ("error", 1)


def test_a_sink_gets_what_is_important_enough() -> None:
    seen: list[tuple[object, ...]] = []
    log.set_sink(lambda *event: seen.append(event), level="warning")
    assert log.threshold() == "warning"
    log.get_logger("a").info("small")
    log.get_logger("a").error("large", n=1)
    assert seen == [("error", "a", "large", {"n": 1})]


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown log level 'loud'; known: debug, info"):
        log.configure(level="loud")
