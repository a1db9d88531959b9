"""Clients that have connected and not yet said who they are: they cost a descriptor, and no worker.

What a client says is looked at and left in its socket: its worker reads all of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from hesper.isolation.peers import Crowd, Quota
from hesper.isolation.service import ClientError
from hesper.portable import UnwantedError, descriptor_limit, hang_up, peek_plain

if TYPE_CHECKING:
    from hesper.classes import Classes
    from hesper.isolation.service import Introduced, Refuse
    from hesper.isolation.shader_caches import ShaderCaches
    from hesper.isolation.turns import Timer, Turns
    from hesper.isolation.waiting import WaitingClient

MOST_SILENT = 256
"""Silent clients at a time, or a quarter of the descriptors if those are fewer; the oldest of
whoever has most of them goes first."""
MOST_OF_ONE = 32
"""The same of one process."""
LOOK_AGAIN = 0.001
"""Seconds until it is looked again at who has begun to speak, where there is always something to
read; the next time twice as many."""
LOOK_AGAIN_MOST = 0.1
MOST_LOOKED_AT = 8192
"""Bytes of what a client says first that are looked at."""


class Admission(NamedTuple):
    """What is asked of clients."""

    introduced: Introduced | None = None
    """What a client must have said before it is given a worker, see `isolation.service`; None:
    nothing."""
    silence: float | None = None
    """Seconds in which it must have; None: any."""
    quota: Quota = Quota()
    """Of one process and one user."""
    memory: int | None = None
    """Bytes that all clients together may have, as far as workers count them; None: as many as
    each may have."""
    refuse: Refuse | None = None
    """How clients are told that they are not served; None: their connections end."""
    classes: Classes | None = None
    """What classes of clients there are; None: none."""
    shares: bool = True
    """Whether clients share the GPU's time by their weights, or as the driver has it."""
    caches: ShaderCaches | None = None
    """Where compiled shaders are kept for them; None: nowhere."""


class Doorstep:
    """Life: made, used, `close`d."""

    def __init__(
        self,
        turns: Turns,
        admission: Admission,
        let_in: Callable[[WaitingClient], None],
    ) -> None:
        """let_in: takes over who has introduced itself, or need not."""
        self._turns = turns
        self._introduced = admission.introduced
        self._seconds = admission.silence
        self._let_in = let_in
        self._most = max(1, min(MOST_SILENT, descriptor_limit() // 4))
        self._silent: Crowd[WaitingClient] = Crowd()
        self._begun: dict[WaitingClient, float] = {}
        """Who has begun to speak, and in how many seconds it is looked at again."""
        self._showing_out: Timer | None = None

    def __len__(self) -> int:
        """Count those that are silent."""
        return len(self._silent)

    def receive(self, client: WaitingClient) -> None:
        """Take over a client that has just come."""
        if self._introduced is None:
            self._let_in(client)
            return
        if self._is_silent(client):
            self._keep(client)

    def _keep(self, client: WaitingClient) -> None:
        peer = client.peer
        if self._silent.of_process(peer) >= MOST_OF_ONE:
            self._show_out(self._silent.first(peer), "too many silent clients of its process")
        elif len(self._silent) >= self._most:
            self.make_room("too many silent clients")
        self._silent.add(client, peer)
        if client not in self._begun:
            self._turns.watch(client.sock, lambda: self._hear(client))
        if self._showing_out is None and self._seconds is not None:
            self._showing_out = self._turns.after(self._seconds, self._show_late_out)

    def make_room(self, reason: str) -> bool:
        """Show one out, to have its descriptor; whether there was one."""
        if not self._silent:
            return False
        self._show_out(self._silent.first(self._silent.heaviest()), reason)
        return True

    def _is_silent(self, client: WaitingClient) -> bool:
        """Look at what a client has said; whether it is to be kept here, not let in or ended."""
        introduced = self._introduced
        try:
            data = peek_plain(client.sock, MOST_LOOKED_AT)
            if data and introduced is not None and not introduced(data):
                self._look_later(client)
                return True
        except BlockingIOError:
            return True
        except UnwantedError:
            self._show_out(client, "descriptors before it has introduced itself")
            return False
        except OSError:
            data = b""
        except ClientError as error:
            self._show_out(client, str(error))
            return False
        if data:
            self._forget(client)
            self._let_in(client)
        else:
            self._end(client)
        return False

    def _hear(self, client: WaitingClient) -> None:
        if self._is_silent(client) and client in self._begun:
            # It would be heard again at once.
            self._turns.unwatch(client.sock)

    def _look_later(self, client: WaitingClient) -> None:
        seconds = self._begun.get(client, LOOK_AGAIN)
        self._begun[client] = min(2 * seconds, LOOK_AGAIN_MOST)
        client.timer = self._turns.after(seconds, lambda: self._hear(client))

    def _show_late_out(self) -> None:
        """End those that have been silent for too long."""
        self._showing_out = None
        if self._seconds is None:
            return
        for client in tuple(self._silent):
            left = client.since + self._seconds - time.monotonic()
            if left > 0:
                self._showing_out = self._turns.after(left, self._show_late_out)
                return
            self._show_out(client, f"it has not introduced itself in {self._seconds:g} s")

    def _show_out(self, client: WaitingClient, reason: str) -> None:
        client.log.error("client refused", reason=reason)
        self._end(client)

    def _end(self, client: WaitingClient) -> None:
        self._forget(client)
        hang_up(client.sock)

    def _forget(self, client: WaitingClient) -> None:
        self._begun.pop(client, None)
        if client.timer is not None:
            client.timer.cancel()
        if self._silent.remove(client):
            self._turns.unwatch(client.sock)

    def close(self) -> None:
        """End all connections."""
        for client in tuple(self._silent):
            self._end(client)
