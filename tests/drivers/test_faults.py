"""Faults on demand: each fires at its call, in programs that run already, too."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from driver_program import Use, environ
from fake_drivers import FakeDriver, make_driver

LOST, NO_MEMORY, TIMEOUT = -4, -2, 2

Make = Callable[..., FakeDriver]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A driver with faults."""
    return lambda *rules, mode="plain": make_driver(tmp_path / mode, mode, rules)


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    return done.stdout.splitlines()


@pytest.mark.parametrize("mode", ["plain", "moltenvk", "discrete"])
def test_the_nth_call(use: Use, make: Make, mode: str) -> None:
    driver = make("vkAllocateMemory 2 VK_ERROR_OUT_OF_DEVICE_MEMORY", mode=mode)
    assert lines(use(driver, "allocations 65536 3")) == ["0", str(NO_MEMORY), "0"]
    driver.fault("vkAllocateMemory 2+ VK_ERROR_OUT_OF_HOST_MEMORY")
    assert lines(use(driver, "allocations 65536 3")) == ["0", "-1", "-1"]


def test_large_allocations(use: Use, make: Make) -> None:
    driver = make("vkAllocateMemory >65536 VK_ERROR_OUT_OF_DEVICE_MEMORY")
    assert lines(use(driver, "allocations 65536 1")) == ["0"]
    assert lines(use(driver, "allocations 65537 1")) == [str(NO_MEMORY)]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        # What vkQueueSubmit, vkWaitForFences and vkGetFenceStatus say, three times.
        ("vkQueueSubmit", ["0 0 0", "-4 -4 -4", "-4 -4 -4", "idle -4"]),
        ("vkQueueSubmit*", ["0 0 0", "-4 -4 -4", "-4 -4 -4", "idle -4"]),
        ("vkWaitForFences", ["0 0 0", "0 -4 -4", "-4 -4 -4", "idle -4"]),
        ("vkGetFenceStatus", ["0 0 0", "0 0 -4", "-4 -4 -4", "idle -4"]),
    ],
)
def test_a_lost_device_stays_lost(use: Use, make: Make, command: str, expected: list[str]) -> None:
    done = use(make(f"{command} 2 lost"), "work 3")
    assert lines(done) == expected
    assert done.returncode == 0, "what the device used can be destroyed"


def test_a_submission_that_never_completes(use: Use, make: Make) -> None:
    done = use(make("vkQueueSubmit 2 never", "vkDeviceWaitIdle 1 lost"), "work 3")
    assert lines(done) == ["0 0 0", f"0 {TIMEOUT} 1", f"0 {TIMEOUT} 1", f"idle {LOST}"]


@pytest.mark.parametrize("mode", ["plain", "moltenvk", "kosmickrisp", "discrete"])
def test_a_program_that_waits_hears_of_the_loss(program: Path, make: Make, mode: str) -> None:
    driver = make("vkQueueSubmit 1 never", mode=mode)
    process = subprocess.Popen(
        [str(program), "wait"],
        env=environ(driver),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "0\n", "it is submitted"
        driver.fault("* 1+ lost")
        assert process.stdout.read().split() == [str(LOST), str(LOST)]
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_an_instance_is_refused_from_now_on(program: Path, make: Make) -> None:
    driver = make()
    process = subprocess.Popen(
        [str(program), "instances"],
        env=environ(driver),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for rules, expected in (
            ((), "0\n"),
            (("vkCreateInstance 1+ VK_ERROR_INCOMPATIBLE_DRIVER",), "-9\n"),
            ((), "0\n"),
        ):
            driver.fault(*rules)
            process.stdin.write("again\n")
            process.stdin.flush()
            assert process.stdout.readline() == expected
        process.stdin.close()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_a_device_is_refused(use: Use, make: Make) -> None:
    done = use(make("vkCreateDevice 1 VK_ERROR_INITIALIZATION_FAILED"), "types")
    assert lines(done) == ["vkCreateDevice: -3"]


@pytest.mark.parametrize(
    ("action", "number"), [("segv", signal.SIGSEGV), ("abort", signal.SIGABRT)]
)
def test_a_crash_in_a_named_command(use: Use, make: Make, action: str, number: int) -> None:
    done = use(make(f"vkCreateFence 2 {action}"), "work 3")
    assert lines(done) == ["0 0 0"]
    assert done.returncode == -number


def test_rules_that_are_none(use: Use, make: Make) -> None:
    done = use(make("vkCreateFence 2 explode"), "types")
    assert done.returncode == -signal.SIGABRT
    assert "says no action" in done.stderr
