"""A worker's part of what all clients may have: asked for when it is wanted, given back when not.

The supervisor's side is `isolation.total`; threads wait in the kernel (`kernel/core/lease.pxd`).
For one thread, but `lend`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from hesper.portable import WakePipe, map_for_reading

if TYPE_CHECKING:
    from hesper.kernel.ledger import Ledger

STEP = 16 << 20
"""Bytes by which a lease grows at least."""
PAUSE = 1.0
"""Seconds for which something is not wanted until it is given back."""


class Lease:
    """Life: made, `lend`ed to a ledger once; then what is said is passed on."""

    def __init__(self, size: int, slack: int, total: int) -> None:
        """It is of `size` bytes, and `slack`; total: descriptor of `Total`'s page, closed here.

        Raises `OSError`.
        """
        self.size = self._first = size
        self.wake = WakePipe()
        """Readable when somebody waits for more."""
        self._slack = slack
        self._address = map_for_reading(total, 16)
        os.close(total)
        self._ledger: Ledger | None = None
        self._asked: int | None = None
        """Those who wait up to that one will be answered; None: nobody is asked."""
        self._answered = 0
        self._in_vain = False
        """Whether the last answer was what there is already."""
        self._was_large = False

    def lend(self, ledger: Ledger) -> None:
        """Have what is taken of `ledger` bounded by it."""
        ledger.borrow(self.size, self._slack, self.wake.write_fd, self._address)
        self._ledger = ledger

    @property
    def patience(self) -> float | None:
        """Seconds after which `rest` is to be called if nothing comes; None: need not be."""
        return PAUSE if self.size > self._first else None

    def question(self) -> dict[str, Any] | None:
        """What to ask the supervisor for, if there is anything: after a wake and an answer."""
        self.wake.drain()
        if self._ledger is None or self._asked is not None:
            return None
        asks, used, missing = self._ledger.wanted()
        # What commands decode to may pass the lease while nobody waits: where there is no more, to
        # ask again and again would bring none.
        if asks == self._answered and (used <= self.size or self._in_vain):
            return None
        self._asked = asks
        return {"lease": used + missing + max(STEP, used // 8)}

    def answer(self, size: int) -> None:
        """Take in what the supervisor has granted."""
        if self._ledger is None or self._asked is None:
            return
        self._in_vain = size <= self.size
        self.size = size
        self._answered, self._asked = self._asked, None
        self._ledger.grant(size, self._answered)

    def rest(self) -> int | None:
        """Give back what has not been wanted for a while; return the lease then, if it changes."""
        if self._ledger is None or self._asked is not None:
            return None
        _, used, _ = self._ledger.wanted()
        wanted = max(self._first, used + max(STEP, used // 8))
        is_large = self.size > wanted + STEP
        gives = is_large and self._was_large and self._ledger.give_back(wanted)
        self._was_large = is_large and not gives
        if not gives:
            return None
        self.size = wanted
        return wanted
