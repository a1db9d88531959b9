"""Where clients come in: listening sockets, while there is room for who comes."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

from hesper.isolation.path_keeper import PathKeeper
from hesper.isolation.waiting import WaitingClient
from hesper.log import get_logger
from hesper.portable import accept

if TYPE_CHECKING:
    import socket

    from hesper.isolation.doorstep import Doorstep
    from hesper.isolation.listen import Listener
    from hesper.isolation.turns import Turns
    from hesper.isolation.waiting import WaitingRoom

ACCEPT_PAUSE = 1.0
"""Seconds to wait when accepting fails, for descriptors to become free."""

_NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE}

_log = get_logger(__name__)


class Entrance:
    """Life: made, `reserve`, used, `close`d and `release`d."""

    def __init__(
        self,
        turns: Turns,
        listeners: Sequence[Listener],
        doorstep: Doorstep,
        room: WaitingRoom,
        retry: Callable[[], None],
    ) -> None:
        """Take over `listeners`; who comes is received by `doorstep`.

        room: refuses a client for whom there is no descriptor.  retry: called some time after that;
        it is to `open` again.
        """
        self._turns = turns
        self._listeners = list(listeners)
        self._doorstep = doorstep
        self._room = room
        self._retry = retry
        self._keepers = [
            PathKeeper(turns, listener, partial(self._listen_anew, listener))
            for listener in self._listeners
        ]
        self._spare = -1
        """A descriptor to let one client in by, to be told that there is none."""
        self._is_open = False

    def reserve(self) -> None:
        """Have a spare descriptor.  Raises `OSError`."""
        if self._spare < 0:
            self._spare = os.open(os.devnull, os.O_RDONLY)

    def keep_paths(self) -> None:
        """See to it that the sockets stay where they are."""
        for keeper in self._keepers:
            keeper.begin()

    def open(self, *, wanted: bool) -> None:
        """Listen for clients, if there is a spare descriptor, or leave them in the queues."""
        wanted = wanted and self._spare >= 0
        if wanted == self._is_open:
            return
        self._is_open = wanted
        for listener in self._listeners:
            if wanted:
                self._turns.watch(listener.sock, partial(self._accept, listener))
            else:
                self._turns.unwatch(listener.sock)

    def close(self, kept: Collection[int] = ()) -> None:
        """Let nobody in any more.  kept: places of listeners whose files are another server's."""
        self.open(wanted=False)
        for keeper in self._keepers:
            keeper.close()
        for place, listener in enumerate(self._listeners):
            listener.close(keeps_file=place in kept)

    def release(self) -> None:
        """Give the spare descriptor back."""
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    def _listen_anew(self, listener: Listener, old: socket.socket) -> None:
        """`listener` has another socket; those who have come by the old one stay."""
        if self._is_open:
            self._turns.unwatch(old)
            self._turns.watch(listener.sock, partial(self._accept, listener))
        with old, contextlib.suppress(OSError):
            while True:
                self._doorstep.receive(WaitingClient(accept(old), listener.kind))

    def _accept(self, listener: Listener) -> None:
        """Let one client in."""
        try:
            sock = accept(listener.sock)
        except (BlockingIOError, ConnectionError):
            return  # it has left already
        except OSError as error:
            self._cannot_accept(listener, error)
            return
        self._doorstep.receive(WaitingClient(sock, listener.kind))

    def _cannot_accept(self, listener: Listener, error: OSError) -> None:
        """Accepting has failed; for want of a descriptor, there is one for clients to be told."""
        if error.errno in _NO_DESCRIPTOR and self._doorstep.make_room(str(error.strerror)):
            return
        self.open(wanted=False)
        self._turns.after(ACCEPT_PAUSE, self._retry)
        if error.errno not in _NO_DESCRIPTOR or self._spare < 0:
            _log.error("cannot accept a client", reason=str(error))
            return
        self.release()
        with contextlib.suppress(OSError):
            client = WaitingClient(accept(listener.sock))
            self._room.send_away(client, f"the server has no descriptor left: {error.strerror}")
