"""One of those that share the GPU's time, as the supervisor sees it: a page of its worker's."""

from __future__ import annotations

from hesper.portable import SharedMemory, page_size

# Words of the page, and bits of the first: `kernel/core/shares.pxd` has the same.
TOLD, LOOKS, USED, SINCE, HELD, DONE = range(6)
MEASURE, HOLD, WAKE = 1, 2, 4

_MOST_DONE = 1 << 32


class Sharer:
    """Life: made, asked what it has `used` at each look, `tell` it what holds, `close`d."""

    def __init__(self, weight: float, process: int) -> None:
        """weight: 1 or more.  process: its worker's id.  Raises `OSError`."""
        self.weight = weight
        self.process = process
        self.ran = 0
        """Nanoseconds of processors that its worker has had, at the last look."""
        self._page = SharedMemory.create(page_size(), "hesper-share")
        self._words = self._page.view.cast("Q")
        self._said = 0
        """What it has said to have used in all."""
        self._since = 0
        """Since when it has had what it has at work, on its clock; 0: nothing is."""
        self._done = 0
        """Submissions that it has said to be done, when it last had nothing at work."""
        self._began = 0
        """When it had something at work the last time that all was done, on its clock."""
        self._ended = 0
        """When all was done, then."""
        self._is_through = False
        """Whether that was since it was charged last."""
        self._open = 0.0
        """Nanoseconds that were its since then, as far as one can see."""
        self.size = 0.0
        """Nanoseconds of a submission while no other's was in its way; 0: not known."""
        self.virtual = 0.0
        self.charged = 0.0
        """Nanoseconds of the GPU's time that it has been taken to have used, in all."""
        self.lately = 0.0
        """Part of the time for which it has had something to do."""
        self.looks = 0
        """Looks of which that is known."""
        self.last = -1.0
        """When that was the last time, on the clock of `Shares`, ns."""
        self.works = False
        """Whether it has had something to do since the last look."""
        self.let_go = -1 << 62
        """When it was last told that it need not wait any more, on that clock."""
        self.held_at = 0
        """When it was last told to wait, on that clock."""
        self.idle_since: int | None = None
        """Since when it has nothing to do and could have, on that clock."""
        self.rested = -1.0
        """When it rested last, on that clock."""
        self.told = 0
        self.fd = self._page.fd

    def tell(self, told: int, now: int = 0) -> None:
        """Have its worker know what holds."""
        if told & HOLD and not self.told & HOLD:
            self.held_at = now
        if told != self.told:
            self.told = self._words[TOLD] = told

    def used(self, now: int, passed: int, alone: int | None) -> int:
        """Nanoseconds for which it had something to do of those that have passed since the last.

        alone: since when no two had work who always have some, if that is so.
        """
        since = self._words[SINCE]
        said = self._words[USED] + (max(0, now - since) if since else 0)
        used = min(max(0, said - self._said), passed)
        self._said = said
        before, self._since = self._since, since
        if not since or before != since:
            begun = before or now - used
            took = used + (now - passed - before if before else 0) - (now - since if since else 0)
            if took > 0:
                self._note(begun, took, alone=alone is not None and begun >= alone)
        return used

    def _note(self, began: int, took: int, *, alone: bool) -> None:
        """Take note that it had nothing at work any more, after so long."""
        self._began, self._ended = began, began + took
        self._is_through = True
        done = self._words[DONE]
        count = min(max(1, done - self._done), _MOST_DONE)
        self._done = done
        if alone:
            self.size = min(self.size or took, took / count)

    def let_others(self, by: int) -> float:
        """When the GPU had last done what it did for it, if that was not later; else 0.

        by: ns.  It may be done for longer than one is told.  An NVIDIA H200 was seen to do nothing
        further for one whose dispatch is over, not even to say so, before others had their turn.
        """
        for began in (self._since, self._began):
            if began and self.size and began + self.size <= by:
                return min(by, max(began + self.size, self._ended if self._ended <= by else 0))
        return float(self._ended) if self._ended <= by else 0.0

    def cost(self, part: float, others: list[Sharer] | None) -> float:
        """Nanoseconds to charge, of which that part of the time was its as far as one can see.

        others: who may have been in the way of one that has not always work.  Where the GPU was
        done with these before it was done with its work, what was before was theirs.
        """
        self._open += part
        cost = self._open
        if others is not None:
            if not self._is_through:
                return 0.0
            free = max((each.let_others(self._ended) for each in others), default=0.0)
            cost = min(cost, self._ended - max(free, self._began))
        self._open = 0.0
        self._is_through = False
        return cost

    def looked(self, count: int) -> None:
        """Let its worker see that somebody looks."""
        self._words[LOOKS] = count

    @property
    def has_something(self) -> bool:
        """Whether something of it was at work at the last look."""
        return self._since != 0

    @property
    def has_begun(self) -> bool:
        """Whether something of it is at work now, as it says."""
        return bool(self._words[SINCE])

    @property
    def waits(self) -> bool:
        """Whether it is held, and says that this keeps it from something."""
        return bool(self.told & HOLD and self._words[HELD])

    def close(self) -> None:
        """Let go of the page."""
        self._words.release()
        self._page.close()
