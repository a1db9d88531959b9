"""Who clients are: what each may have, and whose turn it is.

A client is known by its process and its user (`portable.Peer`).  Containers may share a user, and
processes are made easily: so whoever has most gives way first, user before process, and no number
of connections of one shuts out another.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from hesper.portable import Peer

CONNECTIONS_AT_ONCE = 128
"""Connections of a process that are served like anybody's."""
CONNECTIONS_A_SECOND = 20.0
"""The same for ever; who makes more is served when nobody else waits."""
MOST_KNOWN = 1024
"""Processes whose connections are counted; the one that has not come for longest goes first."""

Member = TypeVar("Member")


class Crowd(Generic[Member]):
    """Members in the order in which they came, and who they are."""

    def __init__(self) -> None:
        """Nobody is there."""
        self._members: dict[Member, Peer] = {}
        self._users: collections.Counter[int] = collections.Counter()
        self._processes: collections.Counter[Peer] = collections.Counter()

    def __len__(self) -> int:
        """Count them."""
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        """Those who came first come first."""
        return iter(self._members)

    def __contains__(self, member: Member) -> bool:
        """Whether it is there."""
        return member in self._members

    def add(self, member: Member, peer: Peer) -> None:
        """Let one in."""
        self._members[member] = peer
        self._users[peer.user] += 1
        self._processes[peer] += 1

    def remove(self, member: Member) -> bool:
        """Let one go; whether it was there."""
        peer = self._members.pop(member, None)
        if peer is None:
            return False
        self._users[peer.user] -= 1
        if not self._users[peer.user]:
            del self._users[peer.user]
        self._processes[peer] -= 1
        if not self._processes[peer]:
            del self._processes[peer]
        return True

    def of_process(self, peer: Peer) -> int:
        """How many are of that process."""
        return self._processes[peer]

    def of_user(self, peer: Peer) -> int:
        """How many are of its user."""
        return self._users[peer.user]

    def heaviest(self) -> Peer:
        """The process that has most, of the user that has most; there must be somebody."""
        user = max(self._users, key=self._users.__getitem__)
        of_it = [peer for peer in self._processes if peer.user == user]
        return max(of_it, key=self._processes.__getitem__)

    def first(self, peer: Peer) -> Member:
        """The one of `peer` that came first; there must be one."""
        return next(member for member, its in self._members.items() if its == peer)

    def last(self, peer: Peer) -> Member:
        """The one of `peer` that came last; there must be one."""
        return next(member for member, its in reversed(self._members.items()) if its == peer)

    def clear(self) -> None:
        """Forget all."""
        self._members.clear()
        self._users.clear()
        self._processes.clear()


class Quota(NamedTuple):
    """Clients that may be served at a time; None: as many as there are places."""

    process: int | None = None
    user: int | None = None

    def refusal(self, crowd: Crowd[Member], peer: Peer) -> tuple[str, dict[str, int]] | None:
        """Why `peer` may not have one more than it has in `crowd`, if so; and what the limit is."""
        # A process that is not known may be many.
        if self.process is not None and peer.process and crowd.of_process(peer) >= self.process:
            return "its process has all places it may have", {"per_process": self.process}
        if self.user is not None and crowd.of_user(peer) >= self.user:
            return "its user has all places it may have", {"per_user": self.user}
        return None


class Rates:
    """How often each process connects."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds."""
        self._clock = clock
        self._left: collections.OrderedDict[Peer, tuple[float, float]] = collections.OrderedDict()

    def __len__(self) -> int:
        """Count the processes that are known."""
        return len(self._left)

    def count(self, peer: Peer) -> bool:
        """Count a connection; whether `peer` makes no more than it should."""
        now = self._clock()
        left, at = self._left.get(peer, (float(CONNECTIONS_AT_ONCE), now))
        left = min(CONNECTIONS_AT_ONCE, left + (now - at) * CONNECTIONS_A_SECOND)
        is_fine = left >= 1.0
        self._left[peer] = (left - 1.0 if is_fine else left, now)
        self._left.move_to_end(peer)
        if len(self._left) > MOST_KNOWN:
            self._left.popitem(last=False)
        return is_fine
