"""Who has most gives way first, and nobody is shut out by another's numbers."""

from __future__ import annotations

import pytest

from hesper.isolation.peers import CONNECTIONS_AT_ONCE, MOST_KNOWN, Crowd, Quota, Rates
from hesper.portable import Peer

ONE, OTHER, STRANGER = Peer(1000, 1), Peer(1000, 2), Peer(2000, 3)


def crowd_of(*peers: Peer) -> Crowd[int]:
    crowd: Crowd[int] = Crowd()
    for number, peer in enumerate(peers):
        crowd.add(number, peer)
    return crowd


def test_the_user_with_most_is_heaviest_and_of_its_processes_the_one_with_most() -> None:
    crowd = crowd_of(STRANGER, STRANGER, STRANGER, ONE, OTHER, OTHER, ONE, ONE)
    assert crowd.heaviest() == ONE
    assert (crowd.first(ONE), crowd.last(ONE)) == (3, 7)
    for member in (3, 6, 7):
        assert crowd.remove(member)
    assert not crowd.remove(3)
    assert crowd.heaviest() == STRANGER
    assert list(crowd) == [0, 1, 2, 4, 5]
    assert (crowd.of_process(ONE), crowd.of_user(ONE)) == (0, 2)


@pytest.mark.parametrize(
    ("quota", "peer", "limit"),
    [
        (Quota(), ONE, None),
        (Quota(2, 4), ONE, {"per_process": 2}),
        (Quota(3, 4), ONE, None),
        (Quota(3, 3), ONE, {"per_user": 3}),
        (Quota(2, 3), OTHER, {"per_user": 3}),
        (Quota(1, 1), STRANGER, None),
    ],
)
def test_quotas_count_processes_and_users(
    quota: Quota, peer: Peer, limit: dict[str, int] | None
) -> None:
    refusal = quota.refusal(crowd_of(ONE, ONE, OTHER), peer)
    assert (refusal and refusal[1]) == limit


def test_processes_that_nobody_sees_are_not_taken_for_one() -> None:
    unseen = Peer(1000, 0)
    assert Quota(1, None).refusal(crowd_of(unseen, unseen), unseen) is None
    assert Quota(1, 2).refusal(crowd_of(unseen, unseen), unseen) is not None


def test_who_connects_too_often_is_known_and_forgiven() -> None:
    now = 0.0
    rates = Rates(lambda: now)
    assert all(rates.count(ONE) for _ in range(CONNECTIONS_AT_ONCE))
    assert not rates.count(ONE)
    assert rates.count(OTHER)
    now = 0.05
    assert rates.count(ONE)
    assert not rates.count(ONE)


def test_few_processes_are_remembered() -> None:
    rates = Rates(lambda: 0.0)
    for number in range(2 * MOST_KNOWN):
        rates.count(Peer(1000, number))
    assert len(rates) == MOST_KNOWN
