"""Clients that no worker serves yet: they wait, for a while, and are refused if that was in vain.

A client that is only left alone may wait for ever, and so may one whose connection just ends:
Mesa's reads the same end of the stream again and again.  So it is told, in its own protocol.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hesper.isolation.peers import Crowd
from hesper.isolation.shader_caches import Cache
from hesper.log import get_logger
from hesper.portable import Peer, hang_up, has_hung_up, peer

if TYPE_CHECKING:
    from hesper.classes import ClientClass
    from hesper.isolation.service import Refusal, Refuse
    from hesper.isolation.turns import Timer, Turns
    from hesper.log import Logger

MOST_WAITING = 64
"""Clients that may wait for a place at a time; of more, the last of whoever has most is refused."""
MOST_REFUSED = 64
"""Clients that may be on their way out at a time; of more, the first of whoever has most is cut
off."""
REFUSAL_PATIENCE = 5.0
"""Seconds in which a client must have taken its refusal in."""

_log = get_logger(__name__)


class WaitingClient:
    """A client that no worker serves yet.  Life: made, and its socket closed by who has it last."""

    def __init__(self, sock: socket.socket, kind: str = "") -> None:
        """It has just come.  kind: name of the class of the socket that it came by, if any."""
        self.kind = kind
        self.sock = sock
        self.peer: Peer = peer(sock)
        self.since = time.monotonic()
        self.timer: Timer | None = None
        self.gpu = 0
        """Number of the GPU on which it is to be served."""
        self.shaders = Cache()
        """Where shaders are kept for it."""
        self.is_new = False
        """Whether none have been kept for it yet."""
        self.of_class: ClientClass | None = None
        """Its class, if there are any."""
        self.yields = False
        """Whether others go first: its process connects too often."""

    @property
    def log(self) -> Logger:
        """Where to log what is its doing."""
        return _log.of(str(self.peer)).bind(pid=self.peer.process, user=self.peer.user)


class WaitingRoom:
    """Life: made, used, `close`d."""

    def __init__(self, turns: Turns, refuse: Refuse | None) -> None:
        """`refuse`: how to tell a client, see `isolation.service`; None: its connection ends."""
        self._turns = turns
        self._refuse = refuse
        self._material: Any = None
        self._waiting: Crowd[WaitingClient] = Crowd()
        self._refused: Crowd[WaitingClient] = Crowd()

    def __len__(self) -> int:
        """Count those that wait."""
        return len(self._waiting)

    def first(self, most: int, may: Callable[[WaitingClient], bool]) -> list[WaitingClient]:
        """The first of those that wait, yield to nobody and `may` be served."""
        those = (client for client in self._waiting if not client.yields and may(client))
        return list(itertools.islice(those, max(0, most)))

    def count_on(self, gpu: int) -> int:
        """Count those that wait for that GPU."""
        return sum(client.gpu == gpu for client in self._waiting)

    def excess(self, places: int) -> WaitingClient | None:
        """Who is to leave where so many places are free, if too many wait."""
        if len(self._waiting) <= MOST_WAITING + places:
            return None
        return self._waiting.last(self._waiting.heaviest())

    def learn(self, material: Any) -> None:
        """Take what refusals are made of, `Service.refusal`."""
        self._material = material

    def enter(self, client: WaitingClient) -> None:
        """Let a client wait."""
        self._waiting.add(client, client.peer)

    def call(self, may: Callable[[WaitingClient], bool]) -> WaitingClient | None:
        """Take out who is next: the one that has waited longest, of those that `may` be served.

        Who connects too often is next when there is nobody else.
        """
        last: WaitingClient | None = None
        for client in tuple(self._waiting):
            if has_left(client.sock):
                self._leave(client)
                hang_up(client.sock)
            elif not may(client):
                continue
            elif client.yields:
                last = last or client
            else:
                self._leave(client)
                return client
        if last is not None:
            self._leave(last)
        return last

    def _leave(self, client: WaitingClient) -> None:
        self._waiting.remove(client)
        if client.timer is not None:
            client.timer.cancel()

    def send_away(self, client: WaitingClient, reason: str, **fields: Any) -> None:
        """Refuse a client, one that waits or not."""
        self._leave(client)
        if has_left(client.sock):
            hang_up(client.sock)
            return
        waited = round(time.monotonic() - client.since, 3)
        client.log.error("client refused", reason=reason, waited=waited, **fields)
        client.sock.setblocking(False)
        if self._refuse is None or self._material is None:
            hang_up(client.sock)
            return
        if len(self._refused) >= MOST_REFUSED:
            self._done(self._refused.first(self._refused.heaviest()))
        try:
            refusal = self._refuse(client.sock, self._material, reason)
        except (TypeError, ValueError):  # it is made of what a worker has said
            hang_up(client.sock)
            return
        client.timer = self._turns.after(REFUSAL_PATIENCE, lambda: self._done(client))
        self._refused.add(client, client.peer)
        self._turns.watch(client.sock, lambda: self._hear(client, refusal))
        self._hear(client, refusal)

    def _hear(self, client: WaitingClient, refusal: Refusal) -> None:
        goes_on = False
        with contextlib.suppress(OSError):
            goes_on = refusal.hear()
        if not goes_on:
            self._done(client)

    def _done(self, client: WaitingClient) -> None:
        if client.timer is not None:
            client.timer.cancel()
        self._turns.unwatch(client.sock)
        self._refused.remove(client)
        hang_up(client.sock)

    def close(self) -> None:
        """End all connections."""
        for client in tuple(self._refused):
            self._done(client)
        for client in tuple(self._waiting):
            self._leave(client)
            hang_up(client.sock)


def has_left(client: socket.socket) -> bool:
    """Whether a client has closed, as one does that looks for a live server."""
    if has_hung_up(client):
        return True
    try:
        return not client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
