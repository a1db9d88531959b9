"""How often a password may be tried."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

MAX_PEERS = 1024
"""Addresses that are remembered; all together are bounded whoever is forgotten."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` tries at once, then one every `seconds`."""

    burst: int
    seconds: float


EACH = Rate(5, 5.0)
"""From one address.  Eight characters of 32 kinds last 100,000 years."""
ALL = Rate(40, 0.5)
"""From all addresses together."""


class _Bucket:
    """Tries that are left."""

    __slots__ = ("_left", "_rate", "_when")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._left = float(rate.burst)
        self._when = now

    def wait(self, now: float) -> float:
        """Seconds until there is a try."""
        self._left += (now - self._when) / self._rate.seconds
        self._left = min(self._left, float(self._rate.burst))
        self._when = now
        return max(0.0, 1.0 - self._left) * self._rate.seconds

    def is_full(self, now: float) -> bool:
        self.wait(now)
        return self._left >= self._rate.burst

    def add(self, tries: int) -> None:
        self._left += tries


class Attempts:
    """Bounds tries of one password, by one address and in all.  Not thread-safe."""

    def __init__(
        self, each: Rate = EACH, total: Rate = ALL, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock` gives seconds."""
        self._each = each
        self._clock = clock
        self._total = _Bucket(total, clock())
        self._peers: dict[str, _Bucket] = {}

    def wait(self, peer: str) -> float:
        """Seconds until `peer` may try; 0 when it may now."""
        now = self._clock()
        bucket = self._peers.get(peer)
        return max(self._total.wait(now), bucket.wait(now) if bucket is not None else 0.0)

    def begin(self, peer: str) -> bool:
        """Take a try, so that many at once are no way around; false when there is none."""
        if self.wait(peer) > 0:
            return False
        self._bucket(peer).add(-1)
        self._total.add(-1)
        return True

    def succeed(self, peer: str) -> None:
        """Give back the try that was the right one."""
        self._bucket(peer).add(1)
        self._total.add(1)

    def _bucket(self, peer: str) -> _Bucket:
        bucket = self._peers.get(peer)
        if bucket is None:
            if len(self._peers) >= MAX_PEERS:
                self._forget()
            bucket = self._peers[peer] = _Bucket(self._each, self._clock())
        return bucket

    def _forget(self) -> None:
        """Forget who has all tries again, and if nobody has, who came first."""
        now = self._clock()
        full = [peer for peer, bucket in self._peers.items() if bucket.is_full(now)]
        for peer in full or [next(iter(self._peers))]:
            del self._peers[peer]
