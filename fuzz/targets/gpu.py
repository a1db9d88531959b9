"""The GPU's device between a hostile driver and hostile workers, over vhost-user."""

from __future__ import annotations

import contextlib

from fuzz.checks import nothing_left
from fuzz.machine import Machine
from fuzz.machine_program import MachineProgram
from fuzz.source import Source
from hesper.gpu.limits import Limits

INSTRUMENTED = ("hesper.gpu", "hesper.vhost", "hesper.vhost_user_gpu", "hesper.display.scanout")


def prepare() -> None:
    """Nothing takes long."""


def run_one(data: bytes) -> None:
    """Be one machine and its workers.  Raises what they should not have been able to cause."""
    with nothing_left():
        limits = Limits(resources=64, picture_memory=16 << 20, contexts=8)
        machine = Machine(limits)
        try:
            machine.frontend.start()
            with contextlib.suppress(ConnectionError, TimeoutError):
                MachineProgram(Source(data), machine).run()
        finally:
            machine.close()
