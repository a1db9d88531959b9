"""Log lines: one an event, for people or machines, and no way to a terminal's controls."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from hesper import log


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
    assert r"\x1b[31mred\x07\r" in line
    assert "\x1b" not in line
    assert "a.b" not in line
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    "text", ["a\nb", "\x1b]0;title\x07", "\u202egnp.exe", "\udcff", "\x9b31m", "\u2028"]
)
@pytest.mark.parametrize("json_lines", [False, True])
def test_text_of_a_guest_stays_in_its_line(
    capsys: pytest.CaptureFixture[str], text: str, *, json_lines: bool
) -> None:
    log.configure(json=json_lines)
    log.get_logger("a").warning("seen", reason=text)
    log.get_logger("a").warning(text)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    escaped = text.encode("unicode_escape").decode()
    if json_lines:
        assert json.loads(lines[0])["reason"] == escaped
    else:
        assert escaped in lines[0]


def test_the_standard_library_gets_one_line_an_event(caplog: pytest.LogCaptureFixture) -> None:
    log.get_logger("hesper.log").error("seen", reason="a\nERROR forged", size=3)
    (record,) = caplog.records
    assert record.getMessage() == r"seen reason='a\\nERROR forged' size=3"


@pytest.mark.parametrize("value", ["x" * 100_000, b"x" * 100_000, ["x"] * 100_000])
def test_what_is_long_is_cut(capsys: pytest.CaptureFixture[str], value: object) -> None:
    log.configure(json=True)
    log.get_logger("a").warning("seen", value=value)
    assert len(capsys.readouterr().err) < 10_000


def test_a_flood_is_a_few_lines_and_a_count(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(json=True)
    for number in range(10_000):
        log.get_logger("a").warning("refused", number=number)
    log.get_logger("a").error("something else")
    log.flush()
    lines = list(map(json.loads, capsys.readouterr().err.splitlines()))
    refused = [line for line in lines if line["event"] == "refused"]
    assert len(refused) < 20
    assert refused[0]["number"] == 0
    assert refused[-1]["number"] == 9999
    assert sum(1 + line.get("left_out", 0) for line in refused) == 10_000
    assert "something else" in [line["event"] for line in lines]


@pytest.fixture
def strange() -> Iterator[logging.Logger]:
    logger = logging.getLogger("strange")
    yield logger
    logger.handlers, logger.propagate = [], True


def test_a_flood_of_another_library_is_a_few_lines_too(
    capsys: pytest.CaptureFixture[str], strange: logging.Logger
) -> None:
    log.configure(json=True)
    log.take_over("strange")
    child = strange.getChild("child")
    for number in range(1000):
        child.error("socket %d is\ngone", number)
    try:
        raise KeyError("lost")
    except KeyError:
        strange.exception("odd")
    log.flush()
    *lines, last, broken = sorted(
        map(json.loads, capsys.readouterr().err.splitlines()),
        key=lambda line: line["logger"] == "strange",
    )
    assert len(lines) < 20
    assert lines[0]["event"] == "told by strange.child"
    assert lines[0]["text"] == r"socket 0 is\ngone"
    assert last["left_out"] == 1000 - len(lines) - 1
    assert broken["exception"].endswith("KeyError: 'lost'")


def test_debug_lines_that_nobody_wants_use_up_nothing() -> None:
    seen: list[tuple[object, ...]] = []
    log.set_sink(lambda *event: seen.append(event), level="warning")
    for _ in range(100):
        log.get_logger("a").debug("odd")
    log.get_logger("a").warning("odd")
    assert seen == [("warning", "a", "odd", {})]


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
