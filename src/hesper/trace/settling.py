"""Waits for what a replay has submitted, as the guest did, and says so where that takes long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hesper.trace.outcome import Outcome, ReplayError
from hesper.trace.work import Countdown, Work

if TYPE_CHECKING:
    from hesper.guest import Context

LONGEST = 3600.0
"""Seconds for work that waits for nothing but the device, and for a pause."""
PATIENCE = 10.0
"""Seconds for work that may wait for an event which is set later in the recording."""
IMPATIENCE = 0.1
"""And after that, until it is through."""
NOTICE = 10.0
"""Seconds after which it is said what is waited for, again and again."""


class DeviceLostError(ReplayError):
    """The driver has said so: nothing that would follow can be told from a fault of its own."""


class Settling:
    """Knows what was submitted here, and waits for it."""

    def __init__(self, context: Context, outcome: Outcome, says: Callable[[str], None]) -> None:
        """Of `context`.  says: is told what is waited for, where that takes long."""
        self._context = context
        self._outcome = outcome
        self._says = says
        self.work = Work()
        self.waits_for_events = False
        """Whether work may wait for an event."""
        self._timelines: dict[int, int] = {}
        """Of queues, by their ids."""
        self._last = -1
        """Number of the command that has submitted last."""
        self._pending = False
        self._is_stuck = False

    def queue(self, queue: int, timeline: int) -> None:
        """Take note of a queue's timeline."""
        self._timelines[queue] = timeline

    def submitted(self, number: int) -> None:
        """Take note that the command of that number has submitted something."""
        self._pending = True
        self._last = number
        self._check()

    def settle(self) -> None:
        """Wait for it, as the guest did, by whatever it looked at.

        But not for what waits for something that comes later in the recording.
        Raises `ReplayError`; `DeviceLostError`.
        """
        if not self._pending:
            return
        self._pending = False
        blocked = self.work.blocked()
        timelines = {line for queue, line in self._timelines.items() if queue not in blocked}
        self._outcome.stuck += bool(blocked)
        if not timelines:
            return
        over = threading.Event()
        left = Countdown(len(timelines), over.set)
        for timeline in sorted(timelines):
            self._context.fence(timeline, left.less)
        if not self.waits_for_events:
            if not self._is_over(over, LONGEST):
                raise ReplayError(f"the device is not done after {LONGEST:.0f} s")
        elif self._is_over(over, IMPATIENCE if self._is_stuck else PATIENCE):
            self._is_stuck = False
        else:
            self._is_stuck = True
            self._outcome.stuck += 1
        self._check()

    def pause(self, seconds: float) -> None:
        """Let time pass, as it did for the program."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if left > NOTICE:
                self._says(f"the program did nothing: {left:.0f} s until it goes on")
            time.sleep(min(left, NOTICE))

    def _is_over(self, over: threading.Event, most: float) -> bool:
        """Whether it is, within `most` seconds."""
        begun = time.monotonic()
        while not over.wait(min(NOTICE, max(0.0, most - (time.monotonic() - begun)))):
            waited = time.monotonic() - begun
            if waited >= most:
                return False
            self._says(
                f"the device is not done yet, after {waited:.0f} s, with what was submitted by"
                f" command {self._last} at the latest"
            )
        return True

    def _check(self) -> None:
        """Raise `DeviceLostError` where the driver has said that a device is lost."""
        if any(map(self._context.engine.devices.is_lost, list(self._context.devices))):
            raise DeviceLostError(
                f"the device is lost: what was submitted by command {self._last} at the latest was"
                " too much for the driver or the GPU; the kernel's log may have the reason"
            )
