"""Slowing down who sends too much, without losing any of it."""

from __future__ import annotations

import asyncio


class Throttle:
    """Lets `burst` things pass at once, and `rate` in a second after that."""

    __slots__ = ("_burst", "_free_at", "_interval")

    def __init__(self, rate: float, burst: int) -> None:
        """Nothing has passed yet."""
        self._interval = 1 / rate
        self._burst = burst * self._interval
        self._free_at = 0.0

    async def wait(self, things: int = 1) -> None:
        """Wait until the next `things` may pass."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now) + things * self._interval
        early = self._free_at - now - self._burst
        if early > 0:
            await asyncio.sleep(early)
