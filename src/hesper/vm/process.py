"""QEMU's process, and what it has to say."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import IO

from hesper.observe.words import plain

NOISE = (
    "Failed preparing vhost-user memory table msg",
    "vhost_set_mem_table failed",
    "Received unexpected msg type: -",
    f"Error starting vhost-user-base: {errno.ENOBUFS}",
)
"""What QEMU says without need.

The first two for every mapped blob beyond the first few: QEMU does not share it back with the
device, which has made it; the guest's own mapping of it works.  The third when a pause or a reset
has overtaken a request (see `vhost.channel`).  The last when a machine goes on after a pause, and
more is mapped than the device can be told of; it goes on all the same (see `vhost.backend`).
"""

LAST_WORDS_SECONDS = 2.0
MOST_LINE = 1000
"""Bytes for whose end is waited."""
LINES_AT_ONCE = 200
"""Lines that are passed on; a QEMU that is asked for help has most to say."""
LINE_SECONDS = 1.0
"""Until there is one more: a guest that breaks its devices, and resets them, has QEMU complain for
as long as it likes."""


class QemuProcess(subprocess.Popen[bytes]):
    """QEMU; what it says on standard error goes to ours, without the noise."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        own_group: bool,
        stdin: int | None = None,
        stdout: int | None = None,
    ) -> None:
        """Start it.  On the main thread: on Linux it ends with the thread that has started it.

        own_group: a process group of its own, so that Ctrl-C in a terminal is not for it.  stdin,
        stdout: as for `subprocess.Popen`.  Raises `OSError`.
        """
        super().__init__(
            arguments,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            process_group=0 if own_group else None,
        )
        assert self.stderr is not None
        self._messages = threading.Thread(target=_pass_on, args=[self.stderr], daemon=True)
        self._messages.start()

    def wait_for_end(self) -> int:
        """Wait until it has ended and its last words are out; returns what `wait` does."""
        status = self.wait()
        # A process that it has left behind may hold the other end.
        self._messages.join(LAST_WORDS_SECONDS)
        return status


def _pass_on(stream: IO[bytes]) -> None:
    for text in within_allowance(iter(partial(stream.readline, MOST_LINE), b"")):
        sys.stderr.write(text)
        sys.stderr.flush()


def within_allowance(
    lines: Iterator[bytes], clock: Callable[[], float] = time.monotonic
) -> Iterator[str]:
    """Yield what is to be passed on of QEMU's lines: no noise, nothing that a terminal would obey.

    What is past the allowance is counted.  clock: seconds.
    """
    left, at, lost = float(LINES_AT_ONCE), clock(), 0
    for line in lines:
        text = line.decode(errors="replace").rstrip("\r\n")
        if any(noise in text for noise in NOISE):
            continue
        now = clock()
        left, at = min(left + (now - at) / LINE_SECONDS, LINES_AT_ONCE), now
        if left < 1.0:
            lost += 1
            continue
        left -= 1.0
        if lost:
            yield _left_out(lost)
            lost = 0
        yield f"{plain(text, MOST_LINE)}\n"
    if lost:
        yield _left_out(lost)


def _left_out(lines: int) -> str:
    return f"(QEMU has said {lines} more lines, which are left out)\n"
