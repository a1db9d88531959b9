"""A program for which there is no memory: it hears of it, lives, and can go on with less."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_drivers import FakeDriver, lavapipe_library
from servers import Place, Server, Setup, server_driver, serving

LIMIT = Setup("limit", ("--limit", "memory=64M"))
FAULTS = Setup("faults", mode="plain")
NO_MEMORY, LOST, NOT_MAPPED = -2, -4, -5
WAITS = "no_async_mem_alloc"
BOUND = 120.0
"""Seconds a warning may take."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled program."""
    built = tmp_path_factory.mktemp("program") / "memory"
    source = Path(__file__).parent / "memory_program.c"
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror"]
    done = subprocess.run(
        ["cc", *flags, str(source), "-o", str(built), "-lvulkan"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return built


@pytest.fixture(scope="module")
def limited(machine: Place) -> Iterator[Server]:
    with serving(machine, LIMIT) as started:
        yield started


@pytest.fixture(scope="module")
def faulty(machine: Place) -> Iterator[Server]:
    with serving(machine, FAULTS) as started:
        yield started


def run(server: Server, machine: Place, program: Path, way: str, perf: str) -> list[int]:
    """How many pieces there were, what failed, and what the next piece and a submission said."""
    done = server.client(machine).run([str(program), way], environ={"VN_PERF": perf})
    return [int(line) for line in done.stdout.split()]


def warning(server: Server, start: int) -> str:
    """The line about an allocation that the server has printed since; there is one only."""
    until = time.monotonic() + BOUND
    while True:
        lines = server.printed()[start:].splitlines(keepends=True)
        found = [line for line in lines if "command=vkAllocateMemory" in line and line[-1] == "\n"]
        if found:
            assert len(found) == 1
            return found[0]
        assert time.monotonic() < until, "no warning"
        time.sleep(0.02)


@pytest.mark.parametrize(
    "expected",
    [
        ("map", WAITS, NO_MEMORY, 0),
        ("bind", WAITS, NO_MEMORY, 0),
        ("export", WAITS, NO_MEMORY, 0),
        # Mesa tells the program that it has the memory.
        ("map", "", NOT_MAPPED, 0),
        ("export", "", NOT_MAPPED, 0),
        ("bind", "", LOST, LOST),
    ],
)
def test_at_the_limit(
    program: Path, limited: Server, machine: Place, expected: tuple[str, str, int, int]
) -> None:
    way, perf, failed, afterwards = expected
    before = limited.printed()
    pieces, *said = run(limited, machine, program, way, perf)
    assert 0 < pieces < 4
    assert said == [failed, afterwards, afterwards]
    line = warning(limited, len(before))
    assert "warning" in line
    assert "left of the memory limit" in line
    assert "size=16777216" in line


def test_freeing_what_could_not_be_had(program: Path, limited: Server, machine: Place) -> None:
    assert run(limited, machine, program, "free", "") == [64, 0, 0, 0]


@pytest.mark.parametrize(
    "expected",
    [("map", WAITS, NO_MEMORY), ("map", "", NOT_MAPPED), ("bind", "", LOST)],
)
def test_a_driver_without_memory(
    program: Path, faulty: Server, machine: Place, expected: tuple[str, str, int]
) -> None:
    way, perf, failed = expected
    driver = FakeDriver(server_driver(FAULTS).parent, FAULTS.mode, lavapipe_library())
    driver.fault("vkAllocateMemory >1000000 VK_ERROR_OUT_OF_DEVICE_MEMORY")
    try:
        assert run(faulty, machine, program, "free", "") == [64, 0, 0, 0]
        before = faulty.printed()
        assert run(faulty, machine, program, way, perf) == [0, failed]
        assert "result=VK_ERROR_OUT_OF_DEVICE_MEMORY" in warning(faulty, len(before))
    finally:
        driver.fault()
