"""Signals that a command takes in its own way."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that ask a command to end."""


@contextlib.contextmanager
def handled(signals: Sequence[signal.Signals], handler: Any) -> Iterator[None]:
    """Have `handler` called with each of `signals`."""
    before = {number: signal.signal(number, lambda n, _: handler(n)) for number in signals}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
