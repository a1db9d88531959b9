"""How a worker reads and replays recordings: in the sandbox that guests are served in.

An `isolation.service`; its client is the command line (`session`).
"""

from __future__ import annotations

import socket
from typing import IO, TYPE_CHECKING, Any, cast

import msgspec

from hesper.errors import HesperError
from hesper.isolation import driver
from hesper.isolation.driver import DriverOptions, OpenDriver, open_driver
from hesper.isolation.service import ClientError
from hesper.trace import inspect
from hesper.trace.anonymize import anonymize
from hesper.trace.decoded import codec
from hesper.trace.diff import differences, gather
from hesper.trace.frames import (
    AT,
    DONE,
    ERROR,
    FILE,
    MOST_LINE,
    OUTCOME,
    PIECE,
    TEXT,
    WAITS,
    FrameFile,
    Frames,
    Request,
)
from hesper.trace.plan import Plan
from hesper.trace.records import Reader
from hesper.trace.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hesper.isolation.service import Hearer


class Options(DriverOptions):
    """What a worker has to know before it reads."""

    wants_driver: bool = False
    """Whether recordings are replayed."""


preload = driver.preload


def prepare(options: dict[str, Any]) -> TraceService:
    """Read the tables, and open the driver if there is to be one.  Raises `StartError`."""
    wanted = msgspec.convert(options, Options)
    codec()
    return TraceService(wanted, open_driver(wanted) if wanted.wants_driver else None)


class TraceService:
    """Serves one request."""

    refusal = True
    """A refusal needs nothing."""

    def __init__(self, options: Options, host: OpenDriver | None) -> None:
        """Be ready."""
        self.options: dict[str, Any] = msgspec.to_builtins(options)
        nothing = {"driver": "", "device": "", "notice": ""}
        self.about = nothing if host is None else host.about
        self._host = host
        self._socket: socket.socket | None = None

    def warm_up(self) -> None:
        """There is nothing to be done ahead."""

    def serve(self, sock: socket.socket, hear: Hearer) -> None:
        """Serve the command line at `sock`, see `isolation.service.Service`."""
        self._socket = sock
        with sock:
            frames = Frames(sock)
            asked = frames.receive()
            if asked is None:
                return
            try:
                request = msgspec.msgpack.decode(asked, type=Request)
            except msgspec.MsgspecError as error:
                raise ClientError(f"the request: {error}") from None
            hear.named(request.what)
            try:
                self._answer(request, frames)
                frames.send(bytes([DONE]))
            except HesperError as error:
                frames.send(bytes([ERROR]) + str(error).encode()[:MOST_LINE])

    def stop(self) -> None:
        """Make `serve` return soon."""
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it is over already

    def _answer(self, request: Request, frames: Frames) -> None:
        first = Reader(cast("IO[bytes]", FrameFile(frames)))
        if request.what == "replay":
            # It comes twice.
            plan = Plan(first)
            self._replay(request, plan, Reader(cast("IO[bytes]", FrameFile(frames))), frames)
        elif request.what == "shaders":
            for name, code in inspect.shaders(first):
                frames.send(bytes([FILE]) + name.encode() + b"\0" + code)
        elif request.what == "anonymize":
            for piece in anonymize(first):
                for at in range(0, len(piece), PIECE):
                    frames.send(bytes([FILE]) + b"\0" + piece[at : at + PIECE])
        else:
            for line in self._lines(request, first, frames):
                frames.send(bytes([TEXT]) + line.encode()[:MOST_LINE])

    def _lines(self, request: Request, first: Reader, frames: Frames) -> Iterator[str]:
        if request.what == "summary":
            return inspect.summary(first)
        if request.what == "slow":
            return inspect.slow(first)
        if request.what == "diff":
            then = gather(inspect.commands(first, request.filter))
            second = Reader(cast("IO[bytes]", FrameFile(frames)))
            return differences(then, gather(inspect.commands(second, request.filter)))
        line_of = inspect.json_of if request.is_json else inspect.line_of
        if request.whole and not request.is_json:
            return (
                inspect.line_of(found, whole=True)
                for found in inspect.commands(first, request.filter)
            )
        return (line_of(found) for found in inspect.commands(first, request.filter))

    def _replay(self, request: Request, plan: Plan, reader: Reader, frames: Frames) -> None:
        if self._host is None:
            raise ClientError("there is no driver")

        def tell(number: int, name: str) -> None:
            frames.send(bytes([AT]) + number.to_bytes(8, "little") + name.encode())

        def says(what: str) -> None:
            frames.send(bytes([WAITS]) + what.encode())

        replay = Replay(self._host, request.replay, tell, plan, says)
        try:
            outcome = replay.run(reader)
        finally:
            replay.close()
        frames.send(bytes([OUTCOME]) + msgspec.msgpack.encode(outcome))
