"""Memory that the guest and the device both write to, as a replay has it."""

from __future__ import annotations

import mmap
from collections.abc import Sequence

from hesper.trace.picture import Picture, Place, cut_out

PAGE = 4096
_ZEROS = bytes(PAGE)
MOST_TAKEN_BACK = 64
"""Words of a page; where it is more, that is no place where fences are looked for."""


class Shadow:
    """A part of a guest's memory that lies in memory of its own, here."""

    def __init__(self, fd: int, start: int, size: int) -> None:
        """The first `size` bytes of `fd`, which stays the caller's, for those from `start` on.

        Raises `OSError`.
        """
        self.start, self.end = start, start + size
        self.memory = mmap.mmap(fd, size)

    def close(self) -> None:
        """Unmap it."""
        self.memory.close()


class ReplayedMemory:
    """A resource's memory, and what the recording has said of it last.

    A page is noted when its contents have changed, and it cannot be told by whom: the device may
    have been in the middle of writing it.  Here the device is through.  So where the device has
    written here, since the page was noted last, what it wrote stays; all else is the guest's.
    Where the guest knew that the device was through, too, all is as it was noted.
    """

    def __init__(self, fd: int, size: int) -> None:
        """Map the first `size` bytes of `fd`, which stays the caller's.  Raises `OSError`."""
        self.size = size
        self._memory = mmap.mmap(fd, size)
        self._shadows: list[Shadow] = []
        self._noted: dict[int, bytes] = {}
        self._expected: dict[int, bytes] = {}
        self._taken_back: dict[int, set[int]] = {}
        """By pages, words that the device has written here and that were as before when noted."""
        self._early: dict[int, tuple[bytes, bytes]] = {}
        """Pages that were noted while the device may have been at work: as before, and noted."""

    def close(self) -> None:
        """Unmap it."""
        self._memory.close()

    def add(self, shadow: Shadow) -> None:
        """Have a part lie elsewhere from now on."""
        self._shadows.append(shadow)

    def take(self, shadow: Shadow) -> None:
        """Have a part lie here again, with what it holds."""
        if shadow in self._shadows:
            self._shadows.remove(shadow)
            end = min(shadow.end, self.size)
            if shadow.start < end:
                self._put(shadow.start, shadow.memory[: end - shadow.start])

    def copy_to(self, shadow: Shadow) -> None:
        """Give a part what is here."""
        found = self._get(shadow.start, shadow.end - shadow.start)
        shadow.memory[: len(found)] = found

    def _get(self, start: int, size: int) -> bytes:
        """What is there, wherever it lies."""
        found = self._memory[start : start + size]
        for shadow in self._shadows:
            at, to = max(start, shadow.start), min(start + len(found), shadow.end)
            if at < to:
                part = shadow.memory[at - shadow.start : to - shadow.start]
                found = found[: at - start] + part + found[to - start :]
        return found

    def _put(self, start: int, data: bytes) -> None:
        """Write it, wherever it lies."""
        self._memory[start : start + len(data)] = data
        for shadow in self._shadows:
            at, to = max(start, shadow.start), min(start + len(data), shadow.end)
            if at < to:
                part = data[at - start : to - start]
                shadow.memory[at - shadow.start : to - shadow.start] = part

    def write(self, offset: int, data: bytes, *, is_done: bool = False) -> tuple[int, int]:
        """Put what was noted of pages from `offset` on, a multiple of `PAGE`.

        is_done: the device was through then.
        Returns how many of them the device has written here already, to the same bytes; and of how
        many that is replaced, since it was something else then.
        """
        confirmed = replaced = 0
        for at in range(0, len(data), PAGE):
            noted = data[at : at + PAGE]
            start = offset + at
            before = self._before(start, len(noted))
            here = self._get(start, len(noted))
            if here == noted and here != before:
                confirmed += 1
            elif is_done or here == before:
                self._put(start, noted)
                replaced += here != before
            else:
                found, kept = merged(before, noted, here)
                self._put(start, found)
                if kept:
                    self._taken_back.setdefault(start, set()).update(kept)
            if is_done:
                self._early.pop(start, None)
                self._taken_back.pop(start, None)
            else:
                self._early[start] = (before, noted)
            self._noted[start] = noted
        return confirmed, replaced

    def _before(self, start: int, size: int) -> bytes:
        """What was noted of a page last; a broken recording may have noted less of it then."""
        return self._noted.get(start, _ZEROS)[:size].ljust(size, b"\0")

    def picture(self, place: Place) -> Picture | None:
        """The picture that lies at a place, if it does."""
        memory = self._get(0, self.size) if self._shadows else self._memory
        return cut_out(memory, self.size, place)

    def expect(self, offset: int, data: bytes) -> None:
        """Take note of what pages from `offset` on held in the end."""
        for at in range(0, len(data), PAGE):
            self._expected[offset + at] = data[at : at + PAGE]

    def picture_then(self, place: Place) -> Picture | None:
        """The picture that lay there when pages were noted last, if it did."""
        memory = bytearray(self.size)
        for start, noted in (self._noted | self._expected).items():
            memory[start : start + len(noted)] = noted
        return cut_out(memory, self.size, place)

    def differing(self, left: Sequence[tuple[int, int]] = ()) -> tuple[int, list[int], int]:
        """How many pages are what was noted of them last, and where the others begin.

        left: first bytes and ends of what nobody is to look at.
        The third: how many pages may be that.  They differ in words that were noted while the
        device was at work and became after that what they had been: that the device has written
        something else in between, and this again, cannot be told from the guest's writing.

        A few words of a page may differ that the device writes and the guest puts back to what
        they were, as it does where it looks for fences: nothing was noted of that.
        """
        wanted = self._noted | self._expected
        others, unknown = [], 0
        for start, noted in sorted(wanted.items()):
            here = self._get(start, len(noted))
            for first, end in left:
                at, to = max(0, first - start), min(len(noted), end - start)
                if at < to:
                    here = here[:at] + noted[at:to] + here[to:]
            if here == noted or self._is_as(start, noted, here):
                continue
            if self._may_be(start, noted, here):
                unknown += 1
            else:
                others.append(start)
        return len(wanted) - len(others) - unknown, others, unknown

    def _may_be(self, start: int, noted: bytes, here: bytes) -> bool:
        before, early = self._early.get(start, (b"", b""))
        return len(early) == len(noted) and all(
            here[at : at + 4] == noted[at : at + 4]
            or (here[at : at + 4], noted[at : at + 4]) == (early[at : at + 4], before[at : at + 4])
            for at in range(0, len(noted), 4)
        )

    def _is_as(self, start: int, noted: bytes, here: bytes) -> bool:
        # Since it was noted last before a submission, too.
        before = self._before(start, len(noted))
        taken_back = self._taken_back.get(start, set()) | set(merged(before, noted, here)[1])
        if not 0 < len(taken_back) <= MOST_TAKEN_BACK:
            return False
        return all(
            here[at : at + 4] == noted[at : at + 4] or at in taken_back
            for at in range(0, len(noted), 4)
        )


def merged(before: bytes, noted: bytes, here: bytes) -> tuple[bytes, list[int]]:
    """By words of 4 bytes, and what is left over by bytes: what was noted, where nobody wrote here.

    All three have one length.  Also returns where words are that are noted as before, not as here.
    """
    kept = []
    found = bytearray(noted)
    whole = len(noted) // 4 * 4
    old, new = (memoryview(each[:whole]).cast("I") for each in (before, here))
    into = memoryview(found)[:whole].cast("I")
    for i, word in enumerate(new):
        if word != old[i]:
            if into[i] == old[i]:
                kept.append(4 * i)
            into[i] = word
    into.release()
    for i in range(whole, len(noted)):
        if here[i] != before[i]:
            found[i] = here[i]
    return bytes(found), kept
