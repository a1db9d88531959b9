"""What a worker's process runs first.

Run as `python -m hesper.isolation.start FD SANDBOX [background]`, FD being its end of the socket
pair, SANDBOX how it is confined.  In the background, all that can be done without a client gives
way to what others do, from the first import on.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, cast

from hesper.isolation.background import run_in_background
from hesper.sandbox import worker as sandbox

if TYPE_CHECKING:
    from hesper.isolation.service import Service
    from hesper.isolation.worker import Worker
    from hesper.sandbox import Mode


def main() -> None:
    """Prepare a worker and let it serve; the process ends with it."""
    fd = int(sys.argv[1])
    background = sys.argv[3:] == ["background"]
    sandbox.begin(cast("Mode", sys.argv[2]), fd)
    prepared: list[tuple[Worker, Service]] = []

    def prepare() -> None:
        from hesper.isolation.worker import Worker

        worker = Worker(fd)
        prepared.append((worker, worker.prepare(background=background)))

    if background:
        run_in_background(prepare)
    else:
        prepare()
    worker, service = prepared[0]
    worker.run(service)


if __name__ == "__main__":
    main()
