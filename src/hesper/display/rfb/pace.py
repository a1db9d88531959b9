"""What a viewer takes: how late its pictures are, and which quality that leaves room for."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from hesper.display.video.encoder import QUALITIES

FIRST = 1
"""The quality to begin with."""
LATE_SECONDS, EARLY_SECONDS = 0.1, 0.03
"""What an update waits beyond what the fastest ones take: more is too much, less leaves room."""
WEIGHT = 0.2
"""Of the last update, in what is averaged."""
DOWN_SECONDS = 1.5
UP_SECONDS, MOST_UP_SECONDS = 6.0, 96.0
"""From one change to the next; up it takes twice as long each time it was too early."""
RECENT_SECONDS = 60.0
MOST_SAMPLES = 2048


@dataclass(slots=True)
class _Sent:
    since: float | None
    when: float


class Pace:
    """The updates that one viewer has yet to confirm, and what is learnt when it does."""

    def __init__(self) -> None:
        """Nothing has been sent."""
        self.quality = FIRST
        """An index of `QUALITIES`; the smallest is the best."""
        self._sent: deque[_Sent] = deque(maxlen=MOST_SAMPLES)
        self._fastest: deque[tuple[float, float]] = deque(maxlen=MOST_SAMPLES)
        self._wait = 0.0
        self._changed: float | None = None
        self._up_seconds = UP_SECONDS
        self._went_up = -math.inf

    def note_sent(self, since: float | None, now: float) -> None:
        """Note an update; `since` is when the guest flushed what it shows, None for none."""
        self._sent.append(_Sent(since, now))

    def confirm(self, now: float) -> float | None:
        """Note that the viewer has the oldest update that was sent.

        Returns the seconds from the guest's flush to now; None where nothing was flushed.
        """
        if not self._sent:
            return None
        sent = self._sent.popleft()
        self._learn(now - sent.when, now)
        return None if sent.since is None else now - sent.since

    def note_round_trip(self, took: float, now: float) -> None:
        """Note how long an answer took that there was nothing else to wait for."""
        # The fastest of the last seconds, as a queue whose first is the least.
        while self._fastest and self._fastest[-1][1] >= took:
            self._fastest.pop()
        self._fastest.append((now, took))
        while self._fastest[0][0] < now - RECENT_SECONDS:
            self._fastest.popleft()

    def _learn(self, took: float, now: float) -> None:
        self.note_round_trip(took, now)
        self._wait += WEIGHT * (took - self._fastest[0][1] - self._wait)
        if self._changed is None:
            self._changed = now
        since = now - self._changed
        if self._wait > LATE_SECONDS and since > DOWN_SECONDS and self.quality + 1 < len(QUALITIES):
            if now - self._went_up < self._up_seconds:
                self._up_seconds = min(2 * self._up_seconds, MOST_UP_SECONDS)
            self._change(1, now)
        elif self._wait < EARLY_SECONDS and since > self._up_seconds and self.quality > 0:
            self._went_up = now
            self._change(-1, now)

    def _change(self, step: int, now: float) -> None:
        self.quality += step
        self._changed = now
        self._wait = (LATE_SECONDS + EARLY_SECONDS) / 2


@dataclass(slots=True)
class Latencies:
    """From the guest's flush to a viewer's confirmation, of the last seconds."""

    _samples: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=MOST_SAMPLES))

    def add(self, seconds: float, now: float) -> None:
        """Note one."""
        self._samples.append((now, seconds))

    def percentiles(self, now: float, seconds: float = 5.0) -> tuple[float, float] | None:
        """Return the median and the 99th percentile of the last `seconds`; None without any."""
        recent = [latency for when, latency in self._samples if when >= now - seconds]
        if not recent:
            return None
        median, late = np.percentile(recent, (50, 99))
        return float(median), float(late)
