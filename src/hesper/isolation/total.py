"""What all clients of a server may have together, and how much of it each has been granted.

A worker takes of its lease without asking anybody (`kernel/core/lease.pxd`), and asks for more in
steps.  What is counted here is what was granted: a worker that a guest has taken over can say what
it likes, and take nothing from others.  It can only use more than it was granted, which the system
tells (`Total.liar`), and which its own limits bound.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Generic, TypeVar

from hesper.limits import KEPT_PART
from hesper.portable import available_memory, physical_memory, publish

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST = 16 << 20
"""Bytes that a client is granted at once: most need no more."""
SLACK = 16 << 20
"""Bytes by which what commands decode to may pass a lease; counted as granted."""
UNCOUNTED = 512 << 20
"""Bytes that a worker may have besides: its process, and what the driver keeps."""
SCARCE_PART = 16
"""Of the machine's memory: where less is available, it is short."""

Who = TypeVar("Who")


class Total(Generic[Who]):
    """Shares out the memory of all clients.  Life: made, used, `close`d."""

    def __init__(self, size: int) -> None:
        """size: bytes.  Raises `OSError`."""
        self.size = size
        self._granted: dict[Who, int] = {}
        self._sum = 0
        self._page, self.fd = publish(16, "hesper-total")
        """Two u64, the total and what is left, which all workers read; and how they come to it."""
        self._numbers = self._page.view.cast("Q")
        self._publish()

    @property
    def left(self) -> int:
        """Bytes that are granted to nobody."""
        return max(0, self.size - self._sum)

    def granted(self, who: Who) -> int:
        """Bytes of `who`'s lease."""
        return self._granted.get(who, SLACK) - SLACK

    def begin(self, who: Who) -> int:
        """Grant a client its first lease, and return it: less than usual where that is not left."""
        lease = max(0, min(FIRST, self.left - SLACK))
        self._set(who, lease + SLACK)
        return lease

    def grow(self, who: Who, lease: int) -> int:
        """Grant a lease of so many bytes, or of what there is; return it."""
        has = self._granted[who]
        self._set(who, max(has, min(lease + SLACK, has + self._open(has))))
        return self.granted(who)

    def shrink(self, who: Who, lease: int) -> None:
        """Take note that `who` takes no more than that from now on."""
        self._set(who, min(self._granted[who], max(0, lease) + SLACK))

    def end(self, who: Who) -> None:
        """Take back what a client has been granted, if anything."""
        self._sum -= self._granted.pop(who, 0)
        self._publish()

    def _open(self, has: int) -> int:
        """Bytes that one who has so many may still get: see `Limits.total_memory`."""
        kept = self.size // KEPT_PART
        return max(self.left - kept, min(self.left, kept - has), 0)

    def _set(self, who: Who, granted: int) -> None:
        self._sum += granted - self._granted.get(who, 0)
        self._granted[who] = granted
        self._publish()

    def _publish(self) -> None:
        self._numbers[0], self._numbers[1] = self.size, self.left

    def liar(self, used: Mapping[Who, int]) -> Who | None:
        """Who has most beyond what it was granted, if that is why memory is short.

        used: bytes of memory of each, as the system counts them.
        """
        is_short = (
            sum(used.values()) > self.size or available_memory() < physical_memory() // SCARCE_PART
        )
        if not is_short or not used:
            return None
        most = max(used, key=lambda who: used[who] - self._granted.get(who, 0))
        return most if used[most] - self._granted.get(most, 0) > UNCOUNTED else None

    def close(self) -> None:
        """Close the page; workers have their own."""
        self._numbers.release()
        self._page.close()
        os.close(self.fd)
