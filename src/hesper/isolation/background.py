"""Work that takes processor time from nobody else.

It imports almost nothing: a worker's process calls it before anything else.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable


def run_in_background(function: Callable[[], None]) -> None:
    """Call `function` where it gives way to everything else, and wait for it.

    That is a thread of its own: a thread that has given up its place cannot have it back.  The
    threads that `function` starts give way as well.  On systems that know no such place (only Linux
    does), and in a sandbox that forbids it, it runs like any other.  Raises what `function` raises.
    """
    failures: list[BaseException] = []

    def run() -> None:
        try:
            _give_way()
            function()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="background")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _give_way() -> None:
    if hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
