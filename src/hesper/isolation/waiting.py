"""Clients that no worker serves yet: they wait, for a while, and are refused if that was in vain.

A client that is only left alone may wait for ever, and so may one whose connection just ends:
Mesa's reads the same end of the stream again and again.  So it is told, in its own protocol.
"""

from __future__ import annotations

import collections
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hesper.log import get_logger

if TYPE_CHECKING:
    from hesper.isolation.service import Refusal, Refuse
    from hesper.isolation.turns import Timer, Turns

MOST_WAITING = 64
"""Clients that may wait for a place at a time; more are refused at once."""
MOST_REFUSED = 64
"""Clients that may be on their way out at a time; more are left in the sockets' queues."""
REFUSAL_PATIENCE = 5.0
"""Seconds in which a client must have taken its refusal in."""
SAY_AGAIN = 1.0
"""Seconds in which refusals are told of in one line."""

_log = get_logger(__name__)


class WaitingClient:
    """A client that is waiting."""

    def __init__(self, sock: socket.socket) -> None:
        """It has just come."""
        self.sock = sock
        self.since = time.monotonic()
        self.timer: Timer | None = None


class WaitingRoom:
    """Life: made, used, `close`d."""

    def __init__(self, turns: Turns, refuse: Refuse | None) -> None:
        """`refuse`: how to tell a client, see `isolation.service`; None: its connection ends."""
        self._turns = turns
        self._refuse = refuse
        self._material: Any = None
        self._waiting: collections.deque[WaitingClient] = collections.deque()
        self._refused: set[socket.socket] = set()
        self._untold = 0
        self._telling: Timer | None = None
        self.on_room: Callable[[], None] = lambda: None
        """Called when somebody has left."""

    def __len__(self) -> int:
        """Count those that wait."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether nobody can come in, not even to be refused."""
        return len(self._refused) >= MOST_REFUSED

    def is_crowded(self, places: int) -> bool:
        """Whether nobody more can wait, where so many places are free."""
        return len(self._waiting) >= MOST_WAITING + places

    def learn(self, material: Any) -> None:
        """Take what refusals are made of, `Service.refusal`."""
        self._material = material

    def enter(self, client: WaitingClient) -> None:
        """Let a client wait."""
        self._waiting.append(client)

    def call(self) -> WaitingClient | None:
        """Take out the one that has waited longest and is still there."""
        while self._waiting:
            client = self._waiting.popleft()
            if client.timer is not None:
                client.timer.cancel()
            if not has_left(client.sock):
                return client
            client.sock.close()
        return None

    def send_away(self, client: WaitingClient, reason: str, **fields: Any) -> None:
        """Refuse a client, one that waits or not."""
        if client in self._waiting:
            self._waiting.remove(client)
        if client.timer is not None:
            client.timer.cancel()
        if has_left(client.sock):
            client.sock.close()
            return
        self._tell(reason, fields, time.monotonic() - client.since)
        sock = client.sock
        sock.setblocking(False)
        if self._refuse is None or self._material is None:
            sock.close()
            return
        refusal = self._refuse(sock, self._material, reason)
        timer = self._turns.after(REFUSAL_PATIENCE, lambda: self._done(sock))
        self._refused.add(sock)
        self._turns.watch(sock, lambda: self._hear(sock, refusal, timer))
        self._hear(sock, refusal, timer)

    def _hear(self, sock: socket.socket, refusal: Refusal, timer: Timer) -> None:
        try:
            goes_on = refusal.hear()
        except OSError:
            goes_on = False
        if not goes_on:
            timer.cancel()
            self._done(sock)

    def _done(self, sock: socket.socket) -> None:
        self._turns.unwatch(sock)
        self._refused.discard(sock)
        sock.close()
        self.on_room()

    def _tell(self, reason: str, fields: dict[str, Any], waited: float) -> None:
        """Say that a client was refused; of many in a short time, how many they were."""
        if self._telling is not None:
            self._untold += 1
            return
        _log.error("client refused", reason=reason, waited=round(waited, 3), **fields)
        self._telling = self._turns.after(SAY_AGAIN, lambda: self._tell_rest(reason, fields))

    def _tell_rest(self, reason: str, fields: dict[str, Any]) -> None:
        self._telling = None
        untold, self._untold = self._untold, 0
        if untold:
            _log.error("more clients refused", number=untold, reason=reason, **fields)

    def close(self) -> None:
        """End all connections."""
        for sock in [*(client.sock for client in self._waiting), *self._refused]:
            self._turns.unwatch(sock)
            sock.close()
        self._waiting.clear()
        self._refused.clear()


def has_left(client: socket.socket) -> bool:
    """Whether a client has closed without a word, as one does that looks for a live server."""
    try:
        return not client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
