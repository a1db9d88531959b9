"""The GPU's time, shared out among clients by their weights.

Workers measure what their contexts use, and hold what they submit when told (`Share`,
`kernel/core/shares.pxd`); here it is decided who is to wait.  It is start-time fair queuing over
what has been used: everybody has a virtual time, which goes on as the GPU works for it, the slower
the larger its weight is.  Who is ahead of the last of those that always have work waits until they
have come so far.  Who has not always work is never behind them: what it does not use is given away.

Where a driver draws on the processors, those are what is shared: of the time in which several have
had work, each is charged by how much of the processors its worker had, which the system tells.  It
is not the same for all: others on the machine take the processor from one and not from another.

A page is shared with each worker, which may be a guest's by now and write there what it likes.  So
nothing counts that cannot be: no more time than has passed, and nobody's virtual time stands still
who keeps others waiting.  A worker that says too much pays for it; one that says too little has
taken what it could have taken without asking, since it is the one that calls the driver.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from hesper.isolation.sharer import HOLD, MEASURE, WAKE, Sharer
from hesper.portable import WakePipe, map_for_good, page_size, processor_ns

if TYPE_CHECKING:
    from hesper.kernel.shares import Shares as ContextShares

TICK = 0.002
"""Seconds between two looks while several clients are at work."""
SOON = 0.0002
"""Seconds at least between two looks, where somebody has something to tell."""
MOST_OF_A_PROCESSOR = 0.05
"""What looking may take of one: else it is looked less often."""
QUIET = 0.25
"""Seconds for which no two clients have been at work until nobody looks any more."""
LEAD = 4_000_000
"""Nanoseconds of virtual time that one may be ahead of the last."""
ABREAST = 2
"""Of those that always have work, how many may submit at a time: one is at work while the other
one's next comes.  More would only have each wait for more of the others, and a light client for
all."""
SETTLING = 6_000_000
"""Nanoseconds for which one that is let go has not begun yet; then another may go in its place."""
RESTING = 5_000_000
"""Nanoseconds without work after which one that is not held rests; others' would be in its way."""
RESTED = 30_000_000
"""Nanoseconds for which one that has rested does not count as always having work."""
PATIENCE = 50_000_000
"""Nanoseconds for which those that are to go wait until one that was held is through."""
CREDIT = 10 * LEAD
"""Nanoseconds of virtual time that one may be behind the floor who has not always work, but had
some within `QUIET`: it may have been kept from it, by processors that are busy."""
BUSY = 0.75
"""Part of the time, lately, for which one has something to do who counts as always having work."""
MEMORY = 16
"""Looks that are "lately"."""
ALIKE = 1.5
"""How many times as long submissions may be as those of others, as far as these count as alike."""
RENEW = 2.0
"""Seconds after which it is found out anew how long everybody's submissions are."""
MOST_A_LOOK = 100_000_000
"""Nanoseconds that are charged at a look: where the last was longer ago, anything may have happened
meanwhile.  Not none: who is held would wait for ever where each look is late."""

Who = TypeVar("Who")


class Shares(Generic[Who]):
    """Life: made, clients `join` and `leave`, `look` while it asks for that, `close`d."""

    def __init__(
        self,
        clock: Callable[[], int] = time.monotonic_ns,
        processor_ns: Callable[[int], int] = processor_ns,
    ) -> None:
        """clock: nanoseconds, that of workers.  processor_ns: see `portable.processor_ns`."""
        self._clock = clock
        self._processor_ns = processor_ns
        self.by_processor = False
        """Whether the driver draws on the processors, so that it is those that are shared."""
        self._members: dict[Who, Sharer] = {}
        self._floor = 0.0
        """The virtual time of the last of those that always have work."""
        self._looks = 0
        self._looked = 0
        self._renewed = 0
        """When it was last forgotten how long submissions are."""
        self._one_at_a_time = False
        self._alone: int | None = None
        """Since when no two had something at work who always have, if that is so."""
        self._cost = 0.0
        self.is_awake = False
        """Whether `look` is to be called."""

    def join(self, who: Who, weight: float, process: int = 0) -> int:
        """Let one in; returns a descriptor of its page, which stays ours.

        weight: 1 or more, the least of all being 1.  process: its worker's.  Raises `OSError`.
        """
        member = self._members[who] = Sharer(weight, process)
        member.virtual = self._floor
        if len(self._members) > 1:
            for each in self._members.values():
                if not each.told:
                    each.tell(MEASURE | (0 if self.is_awake else WAKE))
        return member.fd

    def leave(self, who: Who) -> None:
        """Let one go, if it is there."""
        member = self._members.pop(who, None)
        if member is None:
            return
        member.close()
        if len(self._members) < 2:
            self._sleep()

    def charged(self, who: Who) -> float:
        """Seconds of the GPU's time that one has used, as far as it was shared: 0 when alone."""
        member = self._members.get(who)
        return member.charged / 1e9 if member is not None else 0.0

    def wake(self) -> bool:
        """Take note that somebody has begun to work; whether `look` is to be called from now on."""
        if self.is_awake or len(self._members) < 2:
            return False
        self.is_awake = True
        self._looked = self._clock()
        if self.by_processor:
            self._ran(dict.fromkeys(self._members.values(), 0))
        for member in self._members.values():
            member.used(self._looked, 0, None)
            member.last = self._looked
            member.lately = 0.0
            member.looks = 0
            member.tell(MEASURE)
        return True

    def hurry(self, who: Who) -> float | None:
        """Take note that one that is held is through; seconds until the next look, None: as before.

        Whoever goes instead is not to wait until it would be time to look.
        """
        member = self._members.get(who)
        if not self.is_awake or member is None or not member.told & HOLD:
            return None
        since = (self._clock() - self._looked) / 1e9
        return max(0.0, SOON - since, self._cost / MOST_OF_A_PROCESSOR - since)

    def look(self) -> float | None:
        """Decide who waits; seconds until the next look, None: no more before `wake`."""
        now = self._clock()
        passed = now - self._looked
        self._looked = now
        self._looks += 1
        since = now - int(QUIET * 1e9)
        at_work = {member for member in self._members.values() if member.waits}
        if passed > 0:
            self._charge(now, passed)
            self._decide()
        for member in self._members.values():
            member.looked(self._looks)
        at_work.update(member for member in self._members.values() if member.last > since)
        if len(at_work) < 2:
            self._sleep()
            # Who has begun just before it was told so has woken nobody.
            if not any(each.told & WAKE and each.has_begun for each in self._members.values()):
                return None
            self.wake()
            return TICK
        # By the clock: where others have the processors, programs come to submit late as well, and
        # whether they always have work is seen over a longer time.
        cost = (self._clock() - now) / 1e9
        self._cost += (cost - self._cost) / MEMORY
        return max(TICK, self._cost / MOST_OF_A_PROCESSOR)

    def _charge(self, now: int, passed: int) -> None:
        """Charge the time that has passed: the GPU worked for all that had something to do."""
        alone = self._alone
        used = {each: each.used(now, passed, alone) for each in self._members.values()}
        whose = self._ran(used) if self.by_processor else used
        all_used = sum(used.values())
        part = min(passed, all_used, MOST_A_LOOK) / max(1, sum(whose.values()))
        busy = self._busy()
        for member, time_used in used.items():
            member.works = time_used > 0
            if time_used:
                member.last = now
                is_light = not self.by_processor and member not in busy
                cost = member.cost(whose[member] * part, busy if is_light else None)
                member.charged += cost
                member.virtual += cost / member.weight
            if time_used or member.told & HOLD:
                member.idle_since = None
            elif member.idle_since is None:
                member.idle_since = now
            elif now - member.idle_since > RESTING and member.last > now - QUIET * 1e9:
                member.rested = now
            if not member.waits:
                member.looks = min(MEMORY, member.looks + 1)
                member.lately += (time_used / passed - member.lately) / member.looks

    def _ran(self, used: dict[Sharer, int]) -> dict[Sharer, int]:
        """How long the processors have worked for those that had work, since the last look.

        What they have `used`, where the system does not tell.
        """
        found = {}
        for member, time_used in used.items():
            now = self._processor_ns(member.process)
            found[member] = max(0, now - member.ran) if time_used else 0
            member.ran = now
        return found if any(found.values()) else used

    def _busy(self) -> list[Sharer]:
        """Those that always have work, as far as one can see; first who is behind."""
        since = self._looked - RESTED
        busy = (m for m in self._members.values() if m.lately >= BUSY and m.rested <= since)
        return sorted(busy, key=lambda each: each.virtual)

    def _decide(self) -> None:
        """Tell everybody whether to wait."""
        busy = self._busy()
        if busy:
            self._floor = max(self._floor, busy[0].virtual)
        most = self._floor + LEAD
        mean = max(self._floor, sum(each.virtual for each in busy) / max(1, len(busy)))
        among, since = set(busy), self._looked - int(QUIET * 1e9)
        light = any(each.last > since for each in self._members.values() if each not in among)
        self._one_at_a_time = not self.by_processor and (light or self._are_unlike(busy))
        if not self._one_at_a_time or sum(each.has_something for each in busy) > 1:
            self._alone = None
        elif self._alone is None:
            self._alone = self._looked
        going = self._going(busy, most)
        for member in self._members.values():
            if member in among:
                member.tell(MEASURE if member in going else MEASURE | HOLD, self._looked)
                continue
            behind = CREDIT if member.last > since else 0
            member.virtual = max(member.virtual, self._floor - behind)
            # It is some time until the last of them has its turn: not one to be waited for here.
            held = bool(busy) and member.virtual > mean + LEAD
            member.tell(MEASURE | HOLD if held else MEASURE, self._looked)

    def _are_unlike(self, busy: list[Sharer]) -> bool:
        """Whether it matters whom of those that always have work the GPU works for.

        Of two that have something submitted nobody knows that.  Where it does one submission after
        the other it is half for each only if these are alike.
        """
        if self._looked - self._renewed > RENEW * 1e9:
            self._renewed = self._looked
            for each in self._members.values():
                each.size = 0.0
        sizes = [each.size for each in busy]
        return len(busy) > 1 and (
            len({each.weight for each in busy}) > 1
            or not all(sizes)
            or max(sizes) > ALIKE * min(sizes)
        )

    def _going(self, busy: list[Sharer], most: float) -> set[Sharer]:
        """Who of those that always have work may submit: as many as keep the GPU at work.

        One at a time if it matters to any, or somebody comes now and then who would wait for both.
        """
        going: set[Sharer] = set()
        abreast, at_work = ABREAST, 0
        if self._one_at_a_time:
            abreast = 1
            at_work = sum(
                each.has_something
                and (not each.told & HOLD or self._looked - each.held_at < PATIENCE)
                for each in busy
                if each.told & HOLD or each.virtual > most
            )
        # Whoever goes already comes first.
        for each in sorted(busy, key=lambda each: each.told & HOLD):
            if at_work >= abreast or each.virtual > most:
                continue
            if each.told & HOLD:
                each.let_go = self._looked
            going.add(each)
            at_work += each.works or self._looked - each.let_go < SETTLING
        return going

    def _sleep(self) -> None:
        """Hold nobody; who works alone may go on, whoever else begins wakes us."""
        self.is_awake = False
        last = max(self._members.values(), key=lambda each: each.last, default=None)
        for member in self._members.values():
            member.virtual = 0.0
            member.size = 0.0
            if len(self._members) < 2:
                member.tell(0)
            else:
                member.tell(MEASURE if member is last else MEASURE | WAKE)
        self._floor = 0.0

    def close(self) -> None:
        """Let all go."""
        for member in self._members.values():
            member.close()
        self._members.clear()
        self.is_awake = False


class Share:
    """A worker's end of it.  It stays mapped."""

    def __init__(self, page: int) -> None:
        """page: descriptor of the page, closed here.  Raises `OSError`."""
        try:
            self._address = map_for_good(page, page_size())
        finally:
            os.close(page)
        self.wake = WakePipe()
        """Readable when the supervisor is to be told that there is work."""

    def lend(self, shares: ContextShares) -> None:
        """Have a context measured, and held."""
        shares.join(self._address, self.wake.write_fd)
