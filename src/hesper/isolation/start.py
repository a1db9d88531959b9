"""What a worker's process runs first.

Run as `python -m hesper.isolation.start FD [background]`, FD being its end of the socket pair.  In
the background, all that can be done without a client gives way to what others do, from the first
import on.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hesper.isolation.background import run_in_background

if TYPE_CHECKING:
    from hesper.isolation.worker import Worker


def main() -> None:
    """Prepare a worker and let it serve; the process ends with it."""
    fd = int(sys.argv[1])
    workers: list[Worker] = []
    if sys.argv[2:] == ["background"]:
        run_in_background(lambda: workers.append(_prepare(fd, background=True)))
    else:
        workers.append(_prepare(fd, background=False))
    workers[0].run()


def _prepare(fd: int, *, background: bool) -> Worker:
    from hesper.isolation.worker import Worker

    worker = Worker(fd)
    worker.prepare(background=background)
    return worker


if __name__ == "__main__":
    main()
