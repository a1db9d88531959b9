"""Work of a request that takes longer than others should wait: done a slice a turn."""

from __future__ import annotations

import collections
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from hesper.gpu.request import OK, Answer, GpuError, Outcome, Pending
from hesper.gpu.wire import Response

if TYPE_CHECKING:
    from hesper.event_loop import EventLoop

SLICE = 0.001
"""Seconds of work before others have a turn."""

Work: TypeAlias = Generator[None, None, Answer | Pending | None]
"""Yields between steps that are each well below a `SLICE`, and returns what operations return."""


class LongWork:
    """All such work of a device, by turns.  For the loop's thread."""

    def __init__(self, loop: EventLoop) -> None:
        """Work on `loop`."""
        self._loop = loop
        self._waiting: collections.deque[tuple[Work, Pending]] = collections.deque()
        self._scheduled = False

    def run(self, work: Work) -> Answer | Pending | None:
        """Do `work`: at once if it is short, and else later, with a `Pending` for its outcome.

        Raises what short work raises.
        """
        done = _slice(work)
        if done is not None:
            return done.outcome
        pending = Pending()
        self._waiting.append((work, pending))
        self._schedule()
        return pending

    def clear(self) -> None:
        """Forget what is left to do: nobody waits for it any more."""
        self._waiting.clear()

    def finish(self) -> None:
        """Do all that is left, now: the loop has ended."""
        while self._waiting:
            self._turn()

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._loop.call(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if not self._waiting:
            return
        work, pending = self._waiting.popleft()
        outcome: Outcome | Pending | None
        try:
            done = _slice(work)
        except GpuError as error:
            outcome = error
        except (OSError, MemoryError) as error:
            outcome = GpuError(Response.ERR_OUT_OF_MEMORY, str(error))
        else:
            if done is None:
                self._waiting.append((work, pending))
                self._schedule()
                return
            outcome = done.outcome
        self._schedule()
        if isinstance(outcome, Pending):
            outcome.then(pending.finish)
        else:
            pending.finish(outcome or OK)


class _Done(NamedTuple):
    outcome: Answer | Pending | None


def _slice(work: Work) -> _Done | None:
    """Work for a slice of time; None when there is more to do."""
    end = time.monotonic() + SLICE
    try:
        while True:
            next(work)
            if time.monotonic() >= end:
                return None
    except StopIteration as stop:
        return _Done(stop.value)
