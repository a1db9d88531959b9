"""What must hold after each input: that nothing is left of it."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from open_files import open_files

PATIENCE = 20.0
"""Seconds in which whatever ends must have ended."""
RUBBISH = 0.05
"""Seconds after which rubbish is cleared."""


class LeftoverError(Exception):
    """Something is there that should be gone."""


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """Check descriptors, threads and shared memory after a block against those before it.

    Raises `LeftoverError`, and what threads of the block have raised.
    """
    before, threads, mapped = open_files(), threading.active_count(), mappings()
    with _of_threads():
        yield
    wait_until(lambda: threading.active_count() <= threads, lambda: f"{threading.enumerate()}")
    wait_until(lambda: not open_files() - before, lambda: f"{sorted(open_files() - before)}")
    if mappings() > mapped:
        raise LeftoverError(f"{mappings()} pieces of shared memory, {mapped} before")


@contextlib.contextmanager
def _of_threads() -> Iterator[None]:
    """Raise what a thread has raised, above all else."""
    raised: list[BaseException] = []

    def note(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None:
            raised.append(arguments.exc_value)

    before, threading.excepthook = threading.excepthook, note
    try:
        yield
    except BaseException:
        if not raised:
            raise
    finally:
        threading.excepthook = before
    if raised:
        raise raised[0]


def mappings() -> int:
    """How many pieces of Hesper's shared memory this process has mapped."""
    return Path("/proc/self/maps").read_bytes().count(b"hesper-")


def wait_until(condition: Callable[[], bool], describe: Callable[[], str]) -> None:
    """Wait for a condition.  Raises `LeftoverError` with a description after `PATIENCE`."""
    start = time.monotonic()
    is_cleared = False
    while not condition():
        waited = time.monotonic() - start
        if waited > PATIENCE:
            raise LeftoverError(describe())
        if waited > RUBBISH and not is_cleared:
            # The garbage collector may take its time, but it must be able to.
            gc.collect()
            is_cleared = True
        time.sleep(0.0005)
