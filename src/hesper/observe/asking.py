"""Asking servers what they do, over their status sockets."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec

from hesper.api.server import Handed
from hesper.errors import HesperError
from hesper.observe import wire
from hesper.observe.places import status_sockets
from hesper.observe.words import plain
from hesper.portable import peer, recv_message, send_message

if TYPE_CHECKING:
    from types import TracebackType

PATIENCE = 5.0
"""Seconds in which a server answers."""

_answers = msgspec.json.Decoder(wire.Answer)
Kind = TypeVar("Kind", bound=wire.Answer)


class WatchError(HesperError):
    """There is nothing to be seen; the text says why and what to do."""


@dataclass
class Trace:
    """What a server has said while it was traced.  Whoever has it closes its descriptors."""

    began: int
    """ns of the monotonic clock."""
    seconds: float
    memory: dict[int, int] = field(default_factory=dict)
    """By context, descriptors of what happened to it: written by processes that may be hostile."""
    clients: dict[int, tuple[str, int]] = field(default_factory=dict)
    """By context, name and process."""
    frames: list[tuple[int, int]] = field(default_factory=list)
    """Of screens: which, from 1, and when (ns)."""

    def close(self) -> None:
        """Close the descriptors."""
        while self.memory:
            os.close(self.memory.popitem()[1])


class Watched:
    """A server that is asked.  A context manager."""

    def __init__(self, path: Path) -> None:
        """Connect to the status socket at `path`.  Raises `OSError`."""
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._sock.settimeout(PATIENCE)
            self._sock.connect(str(path))
            if peer(self._sock).user not in {os.geteuid(), -1}:
                raise ConnectionRefusedError(f"{path} is another user's")
        except BaseException:
            self._sock.close()
            raise

    def report(self, watch: float = 0.0) -> wire.Report:
        """What everybody does.  watch: see `wire.AskReport`.  Raises `WatchError`."""
        return self._ask(wire.AskReport(watch), wire.Report)

    def end(self, context: int) -> str | None:
        """End a client; its name, None where there is none.  Raises `WatchError`."""
        return self._ask(wire.AskEnd(context), wire.Ended).name

    def trace(self, seconds: float) -> Trace:
        """Trace for so long, all clients and screens.  Raises `WatchError`."""
        began = self._ask(wire.AskTrace(seconds), wire.Began)
        trace = Trace(began.time, seconds)
        self._sock.settimeout(seconds + PATIENCE)
        try:
            while True:
                answer, fds = self._hear()
                if isinstance(answer, wire.Traced) and len(fds) == 1:
                    trace.memory[answer.context] = fds.pop()
                elif isinstance(answer, wire.Flushed):
                    trace.frames += answer.frames
                elif isinstance(answer, wire.Over):
                    trace.clients = {number: (name, pid) for number, name, pid in answer.clients}
                    return trace
                else:
                    raise WatchError(f"the server says something else: {answer}")
        except BaseException:
            trace.close()
            raise

    def sockets(self) -> tuple[list[Handed], wire.Sockets]:
        """Its listening sockets, which it goes on to serve.  Raises `WatchError`."""
        answer, fds = self._say(wire.AskSockets())
        socks = [socket.socket(fileno=fd) for fd in fds]
        if not isinstance(answer, wire.Sockets) or len(answer.sockets) != len(socks):
            for sock in socks:
                sock.close()
            raise WatchError(f"the server says something else: {answer}")
        handed = [
            Handed(each.path, each.kind, each.identity, sock)
            for each, sock in zip(answer.sockets, socks, strict=True)
        ]
        return handed, answer

    def retire(self, kept: Sequence[int]) -> int:
        """Have it take no more clients, and end after the last; see `Server.retire`.

        Raises `WatchError`.
        """
        return self._ask(wire.AskRetire(tuple(kept)), wire.Retired).clients

    def _ask(self, question: wire.Question, kind: type[Kind]) -> Kind:
        answer, fds = self._say(question)
        for fd in fds:
            os.close(fd)
        if not isinstance(answer, kind):
            raise WatchError(f"the server says something else: {answer}")
        return answer

    def _say(self, question: wire.Question) -> tuple[wire.Answer, list[int]]:
        try:
            send_message(self._sock, msgspec.json.encode(question))
        except OSError as error:
            raise WatchError(f"the server takes no question: {error}") from error
        return self._hear()

    def _hear(self) -> tuple[wire.Answer, list[int]]:
        try:
            message = recv_message(self._sock)
        except OSError as error:
            raise WatchError(f"the server does not answer: {error}") from error
        if message is None:
            raise WatchError("the server has ended")
        try:
            answer = _answers.decode(message[0])
        except msgspec.DecodeError as error:
            for fd in message[1]:
                os.close(fd)
            raise WatchError(f"the server is of another version of Hesper: {error}") from None
        if isinstance(answer, wire.Refused):
            raise WatchError(f"the server refuses: {answer.why}")
        return answer, message[1]

    def __enter__(self) -> Self:
        """Nothing more is to be done."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Hang up."""
        self._sock.close()


def only(reports: Sequence[tuple[Watched, wire.Report]], say: str) -> Watched:
    """The server, where there is one.  Raises `WatchError` where there are several.

    say: how a user names one of them.
    """
    if len(reports) > 1:
        places = ", ".join(plain(place) for _, report in reports for place in report.sockets)
        raise WatchError(f"several servers of yours run: say {say}, one of {places}")
    return reports[0][0]


def end_among(servers: Sequence[Watched], context: int) -> str | None:
    """End a client of a server, or of the one before it that has retired; see `Watched.end`."""
    for each in servers:
        name = each.end(context)
        if name is not None:
            return name
    return None


@contextlib.contextmanager
def servers(named: Path | None = None) -> Iterator[list[Watched]]:
    """Connect to all servers of this user, or to the one whose clients connect to `named`.

    Raises `WatchError` where there is none.
    """
    with contextlib.ExitStack() as stack:
        found = []
        for path in status_sockets():
            try:
                watched = stack.enter_context(Watched(path))
                if named is None or os.path.abspath(named) in watched.report().sockets:
                    found.append(watched)
            except ConnectionRefusedError:
                with contextlib.suppress(OSError):
                    path.unlink()  # of a server that was killed
            except (OSError, WatchError):
                continue  # it is about to end
        if not found and named is not None:
            raise WatchError(
                f"no server of yours listens on {named}; hesper ps shows those that run"
            )
        if not found:
            raise WatchError(
                "no server of yours runs: hesper serve, run, gpu or vm; those of another user"
                " are seen by that user alone"
            )
        yield found
