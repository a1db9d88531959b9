"""A device that is lost while a program waits for it: the program hears of it, others go on."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_drivers import FakeDriver, lavapipe_library
from servers import Client, Place, Server, Setup, server_driver, serving

SETUP = Setup("faults", mode="plain")
LOST = -4
WITH_RESULT = ("fence", "fence-status", "queue", "device")
"""Ways to wait in which Mesa has room for a result."""
WITHOUT = ("semaphore", "counter")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled program."""
    built = tmp_path_factory.mktemp("program") / "lost"
    source = Path(__file__).parent / "lost_program.c"
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror"]
    done = subprocess.run(
        ["cc", *flags, str(source), "-o", str(built), "-lvulkan"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return built


@pytest.fixture(scope="module")
def driver() -> FakeDriver:
    """The server's."""
    return FakeDriver(server_driver(SETUP).parent, SETUP.mode, lavapipe_library())


@pytest.fixture(scope="module")
def server(machine: Place) -> Iterator[Server]:
    with serving(machine, SETUP) as started:
        yield started


@pytest.fixture
def client(machine: Place, server: Server) -> Client:
    return server.client(machine)


class Running:
    """The program while it runs."""

    def __init__(self, client: Client, program: Path, way: str, **environ: str) -> None:
        command = client.place.command([str(program), way], {**client.environ, **environ})
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.line() == "ready", shlex.join(command)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def submit(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.line() == "submitted"

    def results(self) -> list[int]:
        found = [int(self.line()), int(self.line())]
        assert self.process.wait(60) == 0
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.mark.parametrize(
    "wait",
    [
        *((way, "", LOST) for way in WITH_RESULT),
        ("fence", "no_fence_feedback", LOST),
        ("semaphore", "no_semaphore_feedback", LOST),
        # What the program looks at is a number, so that it can only be told to go on.
        *((way, "", 0) for way in WITHOUT),
    ],
)
def test_a_program_that_waits_hears_of_it(
    program: Path, driver: FakeDriver, server: Server, client: Client, wait: tuple[str, str, int]
) -> None:
    way, perf, expected = wait
    driver.fault()
    # Its worker does not call the driver while every call says that the device is lost.
    other = Running(client, program, "fence-later")
    running = Running(client, program, way, VN_PERF=perf)
    try:
        before = len(re.findall("device lost", server.printed()))
        driver.fault("vkQueueSubmit 1+ never")
        running.submit()
        driver.fault("* 1+ lost")
        assert running.results() == [expected, expected]
        driver.fault()
        other.submit()
        assert other.results() == [0, 0]
        said = [line for line in server.printed().splitlines() if "device lost" in line]
        assert len(said) == before + 1
        assert "warning" in said[-1]
        assert re.search(r"command=vk\w+ .*context=lost", said[-1])
    finally:
        running.close()
        other.close()


@pytest.mark.parametrize("command", ["vkQueueSubmit", "vkQueueSubmit*", "vkGetFenceStatus"])
def test_a_device_that_is_lost_at_a_submission(
    program: Path, driver: FakeDriver, client: Client, command: str
) -> None:
    driver.fault()
    running = Running(client, program, "fence", VN_PERF="no_fence_feedback")
    try:
        driver.fault(f"{command} 1 lost")
        running.submit()
        assert running.results() == [LOST, LOST]
    finally:
        running.close()
