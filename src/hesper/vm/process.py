"""QEMU's process, and what it has to say."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence

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


def _pass_on(lines: Iterable[bytes]) -> None:
    for line in lines:
        text = line.decode(errors="replace")
        if not any(noise in text for noise in NOISE):
            sys.stderr.write(text)
            sys.stderr.flush()
