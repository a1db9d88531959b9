"""All that a worker runs for a client: session, context, rings, kernel, and a driver that looks."""

from __future__ import annotations

import contextlib

from fuzz.checks import nothing_left
from fuzz.guest_program import Peer, Program, nursery
from fuzz.source import Source

INSTRUMENTED = ("hesper.guest",)


def prepare() -> None:
    """Do once what takes long."""
    nursery()


def run_one(data: bytes) -> None:
    """Be one client.  Raises whatever it should not have been able to cause."""
    with nothing_left():
        peer = Peer()
        try:
            peer.client.handshake()
            program = Program(Source(data), peer)
            try:
                with contextlib.suppress(OSError, EOFError):
                    program.run()
            finally:
                program.close()
        finally:
            peer.end()
