"""Signals that a command takes in its own way."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence

from hesper.log import get_logger
from hesper.portable import pipe

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that ask a command to end."""

_handlers: dict[int, Callable[[int], None]] = {}
"""By number; those of the innermost `handled`."""

_log = get_logger(__name__)


@contextlib.contextmanager
def handled(signals: Sequence[signal.Signals], handler: Callable[[int], None]) -> Iterator[None]:
    """Have `handler` called with each of `signals`, on a thread of its own; one at a time.

    On the main thread it would be called when that does something else than wait, and a signal that
    comes just before it begins to wait would be forgotten.  May be nested; for the main thread.
    """
    with contextlib.ExitStack() as stack:
        if not _handlers:
            stack.enter_context(_listening())
        for number in signals:
            stack.callback(signal.signal, number, signal.signal(number, lambda *_: None))
            if number in _handlers:
                stack.callback(_handlers.__setitem__, number, _handlers[number])
            else:
                stack.callback(_handlers.__delitem__, number)
            _handlers[number] = handler
        yield


@contextlib.contextmanager
def _listening() -> Iterator[None]:
    """Have a thread that calls what `_handlers` has; Python writes each signal into a pipe."""
    read_fd, write_fd = pipe()
    os.set_blocking(write_fd, False)
    thread = threading.Thread(target=_listen, args=[read_fd], name="signals", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(write_fd)
        if thread is not threading.current_thread():
            thread.join()
        os.close(read_fd)


def _listen(fd: int) -> None:
    while numbers := os.read(fd, 1):
        handler = _handlers.get(numbers[0])
        if handler is None:
            continue
        try:
            handler(numbers[0])
        except Exception:
            _log.exception("a signal was not handled", signal=numbers[0])


@contextlib.contextmanager
def interrupting(signals: Sequence[signal.Signals]) -> Iterator[None]:
    """Take `signals` for Ctrl-C: `KeyboardInterrupt` on the main thread."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in signals}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
