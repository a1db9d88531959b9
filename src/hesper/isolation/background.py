"""Work that takes processor time from nobody else.

It imports almost nothing: a worker's process calls it before anything else.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable

_errands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
"""What the thread that waits is to do, for the one in the background; None: that has ended."""
_done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
_background: list[threading.Thread] = []


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
        finally:
            _errands.put(None)

    thread = threading.Thread(target=run, name="background")
    _background.append(thread)
    thread.start()
    while (errand := _errands.get()) is not None:
        _done.put(_failure(errand))
    thread.join()
    _background.clear()
    if failures:
        raise failures[0]


def in_both_threads(function: Callable[[], None]) -> None:
    """Call `function` on this thread, and on the one that waits for it if this is the background.

    Raises what it raises.
    """
    if threading.current_thread() in _background:
        _errands.put(function)
        error = _done.get()
        if error is not None:
            raise error
    function()


def _failure(function: Callable[[], None]) -> BaseException | None:
    """Call it; return what it raises."""
    try:
        function()
    except BaseException as error:
        return error
    return None


def _give_way() -> None:
    from hesper.portable import give_way

    with contextlib.suppress(OSError):
        give_way()
