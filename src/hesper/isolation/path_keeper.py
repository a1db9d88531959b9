"""Notices that a socket's path no longer leads to the socket, and takes back a path that is free.

Whoever can write in the socket's folder, as in a container that has it mounted for writing, can
remove the socket and put one of its own in its place: clients that come then reach that one.  A
path where there is nothing any more is taken back: something has cleaned up.  One where there is
something else is left: it may be the user's, and who has done it once can do it again, so that
nothing is won by fighting for it.  The log says so, and those who are connected stay.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from hesper.errors import ListenError
from hesper.log import get_logger
from hesper.portable import path_watch

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from hesper.isolation.listen import Listener
    from hesper.isolation.turns import Turns

LOOK_SECONDS = 5.0
"""Between two looks where the system does not tell of a change, or not of this one."""
TAKE_BACK_SECONDS = 5.0
"""Between two times that the path is taken back."""

_log = get_logger(__name__)


class PathKeeper:
    """Looks after the path of one listener.  Life: made, `begin`, `close`d."""

    def __init__(
        self, turns: Turns, listener: Listener, moved: Callable[[socket.socket], None]
    ) -> None:
        """moved: called with the socket that listened until now; `listener` has another."""
        self._turns = turns
        self._listener = listener
        self._moved = moved
        self._watch = -1
        self._is_taken = False
        self._not_before = 0.0
        self._closed = False

    def begin(self) -> None:
        """Look after it, if it is ours."""
        if self._listener.is_ours:
            self._watch_path()
            self._look_again()

    def _watch_path(self) -> None:
        self._unwatch_path()
        self._watch = path_watch(self._listener.path)
        if self._watch >= 0:
            self._turns.watch(self._watch, self._changed)

    def _unwatch_path(self) -> None:
        if self._watch >= 0:
            self._turns.unwatch(self._watch)
            os.close(self._watch)
            self._watch = -1

    def _changed(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._watch, 4096)
        self._look()

    def _look_again(self) -> None:
        if not self._closed:
            self._look()
            self._turns.after(LOOK_SECONDS, self._look_again)

    def _look(self) -> None:
        listener = self._listener
        leads = listener.leads_to()
        if leads == "us":
            self._is_taken = False
        elif leads == "nothing":
            self._take_back()
        elif not self._is_taken:
            self._is_taken = True
            _log.error(
                "the socket's path leads to something else: clients that come now do not reach us",
                path=listener.path,
                advice="mount its folder read-only in containers, and let nobody else write there",
            )

    def _take_back(self) -> None:
        listener = self._listener
        now = time.monotonic()
        if now < self._not_before:
            return
        self._not_before = now + TAKE_BACK_SECONDS
        try:
            old = listener.bind_again()
        except ListenError as error:
            _log.error("the socket was removed, and cannot be made again", reason=str(error))
            return
        self._is_taken = False
        _log.warning("the socket was removed, and is made again", path=listener.path)
        self._watch_path()
        self._moved(old)

    def close(self) -> None:
        """Look no more.  May be called again."""
        self._closed = True
        self._unwatch_path()
