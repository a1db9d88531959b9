"""What a worker's driver writes to standard output and error, as lines of the log.

Drivers and layers of the host write there what a guest makes them write: as much as it likes.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from hesper.log import get_logger
from hesper.portable import pipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from hesper.isolation.turns import Timer, Turns
    from hesper.log import Logger

PAUSE = 0.1
"""Seconds between two looks; who writes more than a pipe holds in that time waits."""
MOST_LINE = 1000
"""Bytes for whose end is waited."""
MOST_LINES = 50
"""Lines of one look that are logged; the others are counted."""
_CHUNK = 64 << 10

_log = get_logger(__name__)


class Output:
    """The supervisor's end of a pipe.  Life: made, `close`d."""

    def __init__(self, turns: Turns) -> None:
        """Raises `OSError`."""
        self.log: Callable[[], Logger] = lambda: _log
        """Where to log it, asked for each time."""
        self._turns = turns
        self._rest = b""
        self._pausing: Timer | None = None
        self._fd, self.theirs = pipe()
        """The worker's end, until `given`."""
        os.set_blocking(self._fd, False)
        turns.watch(self._fd, self._look)

    def given(self) -> None:
        """Close the worker's end here: it has its own."""
        if self.theirs >= 0:
            os.close(self.theirs)
            self.theirs = -1

    def _look(self) -> None:
        self._pausing = None
        self._turns.unwatch(self._fd)
        if self._read():
            self._pausing = self._turns.after(PAUSE, self._resume)

    def _resume(self) -> None:
        self._pausing = None
        self._turns.watch(self._fd, self._look)

    def _read(self) -> bool:
        """Log what there is; False at the end."""
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return True
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MOST_LINE or not data:
            lines.append(self._rest)
            self._rest = b""
        self._say([line for line in lines if line.strip()])
        return bool(data)

    def _say(self, lines: list[bytes]) -> None:
        log = self.log()
        for number, line in enumerate(lines[:MOST_LINES], 1):
            text = line.decode(errors="backslashreplace").rstrip()
            others = len(lines) - MOST_LINES
            if number == MOST_LINES and others > 0:
                log.warning("the driver writes", text=text, left_out=others)
            else:
                log.warning("the driver writes", text=text)

    def close(self) -> None:
        """Log the rest of what there is, and close."""
        if self._fd < 0:
            return
        self.given()
        if self._pausing is not None:
            self._pausing.cancel()
        self._turns.unwatch(self._fd)
        with contextlib.suppress(OSError):
            self._read()
            if self._rest:
                self._say([self._rest])
        os.close(self._fd)
        self._fd = -1
