"""What a server could leave in the process that it was in."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from open_files import open_files

PATIENCE = 180.0


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition, polling it."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)


def descendants(pid: int) -> set[int]:
    """Processes below a process, zombies among them."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            children = [int(word) for word in (task / "children").read_text().split()]
            found.update(children)
            for child in children:
                found |= descendants(child)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


class Trace:
    """The process as it is now."""

    def __init__(self) -> None:
        self.threads = {thread.name for thread in threading.enumerate()}
        self.descriptors = open_files()
        self.processes = descendants(os.getpid())
        self.environ = dict(os.environ)
        del self.environ["PYTEST_CURRENT_TEST"]
        self.handlers = [
            signal.getsignal(number) for number in signal.valid_signals() - {signal.SIGALRM}
        ]
        self.umask = os.umask(0)
        os.umask(self.umask)
        loggers = [logging.getLogger(), logging.getLogger("hesper")]
        self.logging = [(logger.level, list(logger.handlers)) for logger in loggers]

    def assert_nothing_left(self) -> None:
        """Fail where something is here or otherwise now that was not then.

        What earlier tests left to the garbage collector may be gone since.
        """
        now, then = vars(Trace()), vars(self)
        for what in ("threads", "descriptors", "processes"):
            new = now.pop(what) - then[what]
            assert not new, f"new {what}: {sorted(new)}"
        assert now == {what: then[what] for what in now}

    def kill_new_children(self) -> None:
        """Kill the processes that have come since."""
        for pid in descendants(os.getpid()) - self.processes:
            os.kill(pid, signal.SIGKILL)
