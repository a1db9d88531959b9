"""A supervisor between clients that have just come and workers that guests have taken over."""

from __future__ import annotations

import atexit
import contextlib
import functools
import shutil
import socket
import tempfile
from pathlib import Path
from unittest import mock

from fuzz.checks import nothing_left
from fuzz.door_program import (
    MEMORY,
    OF_PROCESS,
    OF_USER,
    PLACES,
    DoorProgram,
    Launcher,
    StepTurns,
)
from fuzz.source import Source
from hesper.errors import StartError
from hesper.isolation.doorstep import Admission
from hesper.isolation.listen import adopt
from hesper.isolation.peers import Quota
from hesper.isolation.supervisor import Supervisor
from hesper.vtest.introduction import introduced
from hesper.vtest.refusal import VtestRefuser

INSTRUMENTED = ("hesper.isolation", "hesper.vtest.introduction", "hesper.vtest.refusal")


@functools.cache
def folder() -> Path:
    """A place for a socket."""
    made = Path(tempfile.mkdtemp(prefix="hesper-fuzz-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def prepare() -> None:
    """Make the socket's folder."""
    folder()


def run_one(data: bytes) -> None:
    """Be all clients and workers.  Raises what they should not have been able to cause."""
    with nothing_left():
        source = Source(data)
        launcher = Launcher(source)
        path = folder() / "socket"
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen()
        program = DoorProgram(source, launcher, str(path))
        turns = StepTurns()
        turns.step = program.step
        refuser = VtestRefuser()
        admission = Admission(
            introduced, 3.0, Quota(OF_PROCESS, OF_USER), memory=MEMORY, refuse=refuser
        )
        with (
            mock.patch("time.monotonic", turns.clock),
            mock.patch("hesper.isolation.supervisor.Turns", return_value=turns),
            mock.patch("hesper.isolation.launching.new_launcher", return_value=launcher),
            mock.patch("hesper.isolation.waiting.peer", program.peer),
            mock.patch("hesper.isolation.gpus.own_memory", program.memory),
        ):
            supervisor = Supervisor(
                [adopt(listener)],
                "fuzz",
                {},
                max_clients=PLACES,
                admission=admission,
                sandbox="off",
            )
            program.supervisor = supervisor
            try:
                with contextlib.suppress(StartError):
                    supervisor.run(lambda _: None)
            finally:
                refuser.close()
                program.close()
