"""What one of those that share is charged for: not for what it has waited for others."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import pytest

from hesper.isolation.sharer import DONE, SINCE, USED, Sharer

MS = 1_000_000
START = 1_000 * MS


class Pair:
    """One that comes now and then, and one that always has work; the test is their workers."""

    def __init__(self) -> None:
        self.light, self.heavy = Sharer(1.0, 1), Sharer(1.0, 2)
        self.words = {
            each: memoryview(mmap.mmap(each.fd, mmap.PAGESIZE)).cast("Q")
            for each in (self.light, self.heavy)
        }
        self.now = START

    def look(self, passed: int) -> list[int]:
        """What both have used until now, if the heavy one is alone among its kind."""
        self.now += passed
        return [each.used(self.now, passed, START) for each in (self.light, self.heavy)]

    def begin(self, sharer: Sharer, at: int) -> None:
        self.words[sharer][SINCE] = at

    def end(self, sharer: Sharer, at: int) -> None:
        words = self.words[sharer]
        words[USED] += at - words[SINCE]
        words[SINCE] = 0
        words[DONE] += 1


@pytest.fixture
def pair() -> Iterator[Pair]:
    one = Pair()
    yield one
    for sharer, words in one.words.items():
        words.release()
        sharer.close()


def learn(pair: Pair) -> None:
    """Have the heavy one done once, by itself: what it submits takes 8 ms."""
    pair.begin(pair.heavy, pair.now)
    pair.end(pair.heavy, pair.now + 8 * MS)
    pair.look(10 * MS)
    assert pair.heavy.size == 8 * MS
    assert pair.heavy.cost(8 * MS, None) == 8 * MS


def test_who_came_behind_pays_for_what_was_left(pair: Pair) -> None:
    """The GPU was done with the heavy one, which has not been told before the light one was."""
    learn(pair)
    start = pair.now
    pair.begin(pair.heavy, start)
    pair.begin(pair.light, start + 2 * MS)
    pair.look(4 * MS)
    assert pair.light.cost(1 * MS, [pair.heavy]) == 0
    pair.end(pair.light, start + 9 * MS)
    pair.end(pair.heavy, start + 9 * MS + 1)
    pair.look(6 * MS)
    assert pair.light.cost(3 * MS, [pair.heavy]) == 1 * MS


def test_that_is_so_while_the_other_has_not_been_told(pair: Pair) -> None:
    learn(pair)
    start = pair.now
    pair.begin(pair.heavy, start)
    pair.begin(pair.light, start + 2 * MS)
    pair.end(pair.light, start + 9 * MS)
    pair.look(9 * MS)
    assert pair.light.cost(4 * MS, [pair.heavy]) == 1 * MS


def test_who_is_served_beside_another_pays_its_part(pair: Pair) -> None:
    """As where time is sliced: the heavy one is not done by then."""
    learn(pair)
    start = pair.now
    pair.begin(pair.heavy, start)
    pair.begin(pair.light, start + 2 * MS)
    pair.end(pair.light, start + 5 * MS)
    pair.look(6 * MS)
    assert pair.light.cost(1_500_000, [pair.heavy]) == 1_500_000


def test_who_is_followed_pays_for_itself(pair: Pair) -> None:
    learn(pair)
    start = pair.now
    pair.begin(pair.light, start)
    pair.end(pair.light, start + 1 * MS)
    pair.begin(pair.heavy, start + 1 * MS)
    pair.look(2 * MS)
    assert pair.light.cost(1 * MS, [pair.heavy]) == 1 * MS


def test_who_begins_has_ended_nothing(pair: Pair) -> None:
    pair.begin(pair.light, pair.now + 1 * MS)
    pair.look(2 * MS)
    assert pair.light.cost(1 * MS, []) == 0
    pair.end(pair.light, pair.now + 1 * MS)
    pair.look(2 * MS)
    assert pair.light.cost(1 * MS, []) == 2 * MS


@pytest.mark.parametrize("since", [1, (1 << 64) - 1])
@pytest.mark.parametrize("done", [0, (1 << 64) - 1])
def test_a_page_may_hold_anything(pair: Pair, since: int, done: int) -> None:
    words = pair.words[pair.heavy]
    for _ in range(3):
        words[SINCE], words[DONE] = since, done
        assert 0 <= pair.look(2 * MS)[1] <= 2 * MS
        words[SINCE], words[USED] = 0, since
        assert 0 <= pair.look(2 * MS)[1] <= 2 * MS
        assert pair.heavy.cost(1 * MS, None) == 1 * MS
    assert pair.heavy.let_others(pair.now) <= pair.now
