"""What must hold after each input: that nothing is left of it."""

from __future__ import annotations

import contextlib
import functools
import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from open_files import open_files

PATIENCE = 20.0
"""Seconds in which whatever ends must have ended."""

LOG = "hesper log"
"""The thread of `log_limiter`."""


class LeftoverError(Exception):
    """Something is there that should be gone."""


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """Check descriptors, threads and shared memory after a block against those before it.

    Raises `LeftoverError`, and what threads of the block have raised.
    """
    before, threads = open_files(), count_threads()
    mapped = _mapped_first()
    with _of_threads():
        yield
    wait_until(lambda: count_threads() <= threads, lambda: f"{threading.enumerate()}")
    wait_until(lambda: not open_files() - before, lambda: f"{sorted(open_files() - before)}")
    if (now := mappings()) > mapped:
        raise LeftoverError(f"{now} pieces of shared memory, {mapped} before")


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


def count_threads() -> int:
    """How many there are, but for the log's, which waits for seconds with what it has held back."""
    return sum(each.name != LOG for each in threading.enumerate())


@functools.cache
def _mapped_first() -> int:
    """What `mappings` said before the first input: looking takes longer than many an input."""
    return mappings()


def mappings() -> int:
    """How many pieces of Hesper's shared memory this process has mapped."""
    return Path("/proc/self/maps").read_bytes().count(b"/memfd:hesper-")


def wait_until(condition: Callable[[], bool], describe: Callable[[], str]) -> None:
    """Wait for a condition.  Raises `LeftoverError` with a description after `PATIENCE`."""
    if condition():
        return
    # The garbage collector may take its time, but it must be able to.
    gc.collect()
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise LeftoverError(describe())
        time.sleep(0.0005)
