"""What takes long is said, and a device that is lost ends a replay."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_drivers import make_driver
from recorded_guest import Copier, record_to, replay

from hesper.api.options import HostOptions
from hesper.api.recording import ask, make_request
from hesper.host.drivers import choose_driver
from hesper.trace import session, settling
from hesper.trace.outcome import Outcome

HESPER = (sys.executable, "-c", "from hesper.cli import main; main()")
SECONDS = 120.0


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """A recording of three submissions."""
    path = tmp_path / "copies.hesper"
    recorder = record_to(path)
    copier = Copier(recorder)
    for seed in range(3):
        copier.copy(bytes([seed + 1]) * copier.size)
    copier.close()
    recorder.close()
    return path


def test_a_lost_device_ends_it_with_a_sentence(
    copies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = make_driver(tmp_path / "driver", "plain")
    driver = choose_driver(str(fake.manifest))
    for name, value in driver.environment.items():
        monkeypatch.setenv(name, value)
    fake.fault("vkQueueSubmit 2+ lost")
    outcome = replay(copies, driver, verify=True)
    assert outcome.submissions < 3
    assert outcome.fatal.startswith("command ")
    assert "the device is lost" in outcome.fatal
    assert re.search(r"submitted by command \d+ at the latest", outcome.fatal)
    assert outcome.pages_other == 0, "what is in memory then is no difference"


class Slow:
    """A context whose device is done when it is told to be."""

    def __init__(self) -> None:
        self.devices: dict[int, Any] = {}
        self.engine = SimpleNamespace(devices=SimpleNamespace(is_lost=lambda _: False))
        self.done: Callable[[], None] = lambda: None

    def fence(self, _timeline: int, done: Callable[[], None]) -> None:
        self.done = done


def test_it_is_said_what_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "NOTICE", 0.01)
    slow, said = Slow(), list[str]()

    def says(what: str) -> None:
        said.append(what)
        if len(said) == 3:
            slow.done()

    found = settling.Settling(slow, Outcome(), says)  # type: ignore[arg-type]
    found.queue(5, 1)
    found.submitted(42)
    found.settle()
    assert len(said) >= 3
    assert all("not done yet" in each and "by command 42 " in each for each in said)
    found.settle()  # nothing is pending


def test_it_is_said_that_the_program_did_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "NOTICE", 0.01)
    said: list[str] = []
    found = settling.Settling(Slow(), Outcome(), said.append)  # type: ignore[arg-type]
    found.pause(0.0)
    assert not said
    found.pause(0.05)
    assert said


@pytest.mark.parametrize("at", ["", "7, vkQueueSubmit"])
def test_it_is_said_that_nothing_has_come(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "SILENCE", 0.01)
    ours, theirs = socket.socketpair()
    said: list[str] = []

    def notice(what: str) -> None:
        said.append(what)
        if len(said) == 2:
            theirs.send(b"\0")

    with ours, theirs:
        session.wait_for(ours, at, notice)
    assert len(said) >= 2
    assert all(at in each for each in said)
    assert all(("nothing has come" in each) == (not at) for each in said)


def test_it_is_said_that_the_driver_is_being_opened(
    copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "SILENCE", 0.001)
    said: list[str] = []
    options = {"real": False, "until": None, "verify": True, "picture": False}
    request = make_request("replay", replay=options)
    host = HostOptions(driver="lavapipe")
    told = [each.outcome for each in ask([copies] * 2, request, host, notice=said.append)]
    (outcome,) = filter(None, told)
    assert outcome.fatal == ""
    assert any("the driver is not open yet, after " in each for each in said)


@pytest.mark.slow
@pytest.mark.programs
def test_the_command_says_it(copies: Path, tmp_path: Path) -> None:
    fake = make_driver(tmp_path / "driver", "plain")
    # The driver's trial submits, too.
    fake.fault("vkQueueSubmit 1+ never")
    done = subprocess.Popen(
        [*HESPER, "replay", str(copies), "--driver", str(fake.manifest)],
        env=dict(os.environ),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert done.stderr is not None
        line = ""
        while "not done yet" not in line:
            assert select.select([done.stderr], [], [], SECONDS)[0], "nothing is said"
            line = done.stderr.readline()
            assert line, "it has ended"
        assert "hesper: the device is not done yet, after " in line
    finally:
        os.killpg(done.pid, signal.SIGKILL)
        done.communicate()
