"""A server that takes another one's place, whose clients stay with that one until they leave."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hesper.errors import HesperError
from hesper.log import get_logger
from hesper.observe.asking import Watched, WatchError, only, servers

if TYPE_CHECKING:
    from hesper import VtestServer
    from hesper.api.server import Handed
    from hesper.observe import wire

OPTION = "--take-over"

_log = get_logger(__name__)


class Predecessor:
    """A server that runs, and what is taken from it."""

    def __init__(self, server: Watched) -> None:
        """Have it hand over its sockets; it goes on to serve them.  Raises `WatchError`."""
        self._server = server
        self.sockets, self.about = server.sockets()

    @property
    def were_given(self) -> bool:
        """Whether its sockets are those of whoever has started it, as systemd."""
        return all(each.identity is None for each in self.sockets)

    def of(self, paths: Sequence[str]) -> list[Handed]:
        """The sockets of those paths."""
        wanted = {os.path.abspath(path) for path in paths}
        return [each for each in self.sockets if each.path in wanted]

    def retire(self, service: VtestServer) -> None:
        """Have it take no more clients, now that `service` can; in its `on_ready`."""
        kept = [i for i, each in enumerate(self.sockets) if each.path in service.sockets]
        try:
            service.take_over(self._server.retire(kept))
        except (OSError, HesperError) as error:
            # It has ended, or is about to; its clients come to us.
            service.take_over(0)
            _log.error("the server before this one has not retired", reason=str(error))

    def close(self) -> None:
        """Close what nobody has taken.  May be called again."""
        for each in self.sockets:
            each.sock.close()


@contextlib.contextmanager
def taking_over(path: Path | None) -> Iterator[Predecessor | None]:
    """Take the place of the server that serves clients at `path`, if one is named.

    Raises `WatchError` where there is none of this user's.
    """
    if path is None:
        yield None
        return
    with servers(path) as found, contextlib.closing(Predecessor(current(found))) as predecessor:
        yield predecessor


def current(found: Sequence[Watched]) -> Watched:
    """The one server of those that clients come to; those that have retired do not count.

    Raises `WatchError` where there is none, or more than one.
    """
    reports = [(server, server.report()) for server in found]
    coming = [(server, report) for server, report in reports if not report.retired]
    if not coming:
        raise WatchError("the server has retired already: another one has taken its place")
    return only(coming, "which")


def arguments_for(about: wire.Sockets, place: str) -> list[str]:
    """The arguments with which a server was started, for one that takes its place."""
    kept: list[str] = []
    words = iter(about.arguments)
    for word in words:
        name, separator, _ = word.partition("=")
        if name not in {OPTION, "--ready-fd"}:
            kept.append(word)
        elif not separator:
            next(words, None)
    return [*kept, OPTION, place]
