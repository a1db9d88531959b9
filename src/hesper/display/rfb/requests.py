"""What one viewer has asked for, and how soon it takes what it is sent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hesper.display.geometry import Rect, Size
from hesper.display.rfb import wire
from hesper.display.rfb.pace import Pace

if TYPE_CHECKING:
    from hesper.display.rfb.pace import Latencies

MAX_UNCONFIRMED = 2
"""Updates a viewer may have in flight when it does not ask for each."""
FIRST_FENCE, UPDATE_FENCE = b"", b"update"


class Requests:
    """Asked for once by once, or continuously: then fences say what the viewer has drawn."""

    def __init__(self, latencies: Latencies) -> None:
        """Nothing is asked for; how late pictures are is noted in `latencies`."""
        self._latencies = latencies
        self._request: Rect | None = None
        self._continuous: Rect | None = None
        self._unconfirmed = 0
        self._pace = Pace()
        self._asked = time.monotonic()

    @property
    def area(self) -> Rect | None:
        """What the viewer would take now."""
        if self._continuous is not None and self._unconfirmed < MAX_UNCONFIRMED:
            return self._continuous
        return self._request

    @property
    def is_continuous(self) -> bool:
        """Whether the viewer does not ask for each update."""
        return self._continuous is not None

    @property
    def quality(self) -> int:
        """Which quality there is time for, an index of `QUALITIES`."""
        return self._pace.quality

    def ask(self, area: Rect, size: Size) -> None:
        """Note that the viewer wants an update of `area` of a screen of `size`."""
        self._request = area.clip(size) or Rect(0, 0, 0, 0)
        if self._continuous is None:
            self._confirm()

    def ask_continuously(self, area: Rect | None) -> None:
        """Note that the viewer wants updates without asking for each; None: no longer."""
        self._continuous = area

    def first_fence(self) -> bytes:
        """Return a fence that there is nothing else to wait for, to learn how long one takes."""
        self._asked = time.monotonic()
        return wire.fence(wire.FenceFlag.REQUEST, FIRST_FENCE)

    def update_fence(self) -> bytes:
        """Return the fence that goes with an update which was not asked for."""
        flags = wire.FenceFlag.REQUEST | wire.FenceFlag.BLOCK_BEFORE
        return wire.fence(flags, UPDATE_FENCE)

    def note_fence(self, payload: bytes) -> None:
        """Note that the viewer has answered a fence."""
        if payload == UPDATE_FENCE and self._unconfirmed > 0:
            self._unconfirmed -= 1
            self._confirm()
        elif payload == FIRST_FENCE:
            now = time.monotonic()
            self._pace.note_round_trip(now - self._asked, now)

    def take(self) -> None:
        """Note that what was asked for once is on its way."""
        self._request = None

    def note_sent(self, since: float | None) -> None:
        """Note an update; `since` is when the guest flushed what it shows, None for none."""
        self._pace.note_sent(since, time.monotonic())
        if self._continuous is not None:
            self._unconfirmed += 1

    def _confirm(self) -> None:
        now = time.monotonic()
        latency = self._pace.confirm(now)
        if latency is not None:
            self._latencies.add(latency, now)
