"""What of QEMU's complaints is passed on, and how much: a guest may have it complain for ever."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

import pytest

from hesper.vm.process import LINE_SECONDS, LINES_AT_ONCE, MOST_LINE, QemuProcess, within_allowance

COMPLAINT = b"qemu-system-x86_64: Virtqueue size exceeded\n"


class Clock:
    """Time that goes on when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_complaints_without_end_are_counted() -> None:
    clock = Clock()

    def complaints() -> Iterator[bytes]:
        yield from itertools.repeat(COMPLAINT, 100_000)
        clock.now += 2 * LINE_SECONDS
        yield b"qemu: what comes later\n"

    said = list(within_allowance(complaints(), clock))
    assert said[:LINES_AT_ONCE] == [COMPLAINT.decode()] * LINES_AT_ONCE
    rest = "".join(said[LINES_AT_ONCE:])
    assert f"{100_000 - LINES_AT_ONCE} more lines" in rest
    assert rest.endswith("qemu: what comes later\n")


def test_what_is_left_out_last_is_counted_too() -> None:
    said = list(within_allowance(iter([COMPLAINT] * (LINES_AT_ONCE + 7)), Clock()))
    assert len(said) == LINES_AT_ONCE + 1
    assert "7 more lines" in said[-1]


def test_a_terminal_has_nothing_to_obey() -> None:
    (said,) = within_allowance(iter([b"qemu: \x1b]0;title\x07\x9b2J \xff caf\xc3\xa9\r\n"]))
    assert said.endswith("café\n")
    assert said[:-1].isprintable()


def test_noise_costs_nothing() -> None:
    noise = itertools.repeat(b"vhost_set_mem_table failed: oh\n", 2 * LINES_AT_ONCE)
    said = within_allowance(itertools.chain(noise, [COMPLAINT]), Clock())
    assert list(said) == [COMPLAINT.decode()]


def test_a_line_without_end_is_not_waited_for(capfd: pytest.CaptureFixture[str]) -> None:
    program = "import sys; sys.stderr.write('x' * 50_000_000)"
    assert QemuProcess([sys.executable, "-c", program], own_group=True).wait_for_end() == 0
    said = capfd.readouterr().err
    assert "more lines" in said
    assert len(said) < 2 * LINES_AT_ONCE * MOST_LINE
