"""Wake-ups between threads and processes."""

from __future__ import annotations

import contextlib
import os

from hesper.portable.platform import pipe


class WakePipe:
    """Wakes a thread or process that polls `read_fd`; any number of wakes merge into one."""

    def __init__(self) -> None:
        """Open it; both ends are non-blocking and closed on exec."""
        self.read_fd, self.write_fd = pipe()
        os.set_blocking(self.read_fd, False)
        os.set_blocking(self.write_fd, False)

    def wake(self) -> None:
        """Make `read_fd` readable.  Safe from any thread and from a signal handler."""
        # A full pipe is as readable as it gets.
        with contextlib.suppress(BlockingIOError):
            os.write(self.write_fd, b"\0")

    def drain(self) -> None:
        """Make `read_fd` unreadable again."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self.read_fd, 4096)) == 4096:
                pass

    def close(self) -> None:
        """Close both ends.  May be called again."""
        for fd in (self.read_fd, self.write_fd):
            if fd >= 0:
                os.close(fd)
        self.read_fd = self.write_fd = -1
