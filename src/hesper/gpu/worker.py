"""What a worker runs: one context of a virtual machine, as the device at the other end says.

They speak the messages of `context_wire`; most of them `server` serves.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import msgspec

from hesper.gpu import context_wire as wire
from hesper.gpu.context_wire import Down, Up
from hesper.gpu.server import Server
from hesper.gpu.wire import Response
from hesper.guest import (
    Context,
    InvalidParameterError,
    InvalidResourceError,
    OutOfMemoryError,
    ResourceError,
)
from hesper.guest.watching import ContextWatch
from hesper.isolation.service import ClientError
from hesper.log import get_logger

_log = get_logger(__name__)


class ContextWorker:
    """Does what the device says until it hangs up.  `fatal` may come from any thread."""

    def __init__(self, sock: socket.socket, ended: Callable[[str], None]) -> None:
        """Talk over `sock`.  ended: told why the context is lost, before the device is."""
        self._ended = ended
        self._server = Server(sock.fileno(), self)
        self._context: Context | None = None
        self._reason = ""

    def run(self, context: Context) -> None:
        """Serve `context`.  Raises `ClientError` when the guest broke the protocol."""
        self._context = context
        watched = ContextWatch(context)
        try:
            self._run(context, watched)
        finally:
            watched.close()

    def _run(self, context: Context, watched: ContextWatch) -> None:
        self._server.attach(context.port)
        while (message := self._server.next()) is not None:
            kind, body, fds = message
            try:
                self._handle(context, watched, kind, body, fds)
            finally:
                for fd in fds:
                    os.close(fd)
        if self._reason:
            raise ClientError(self._reason)

    def close(self) -> None:
        """Send nothing any more; before the socket is closed."""
        self._server.close()

    def fatal(self, reason: str) -> None:
        """Tell the device that the context is poisoned; it hangs up then."""
        if self._server.destroying:
            # A program that ends, in whatever way, first loses its memory and then its context.
            return
        self._reason = reason
        self._ended(reason)
        self._server.send(Up.FATAL, reason.encode()[:1000])

    def _handle(
        self, context: Context, watched: ContextWatch, kind: int, body: memoryview, fds: list[int]
    ) -> None:
        if kind == Down.FIGURES:
            (seconds,) = wire.FIGURES.unpack(body)
            found = watched.figures(seconds)
            self._server.send(Up.FIGURES, msgspec.json.encode(found))
        elif kind == Down.TRACE:
            if len(fds) != 1:
                raise ConnectionError(f"TRACE with {len(fds)} descriptors")
            (seconds,) = wire.TRACE.unpack(body)
            watched.trace(fds[0], seconds)
        elif kind == Down.IMPORT:
            if len(fds) != 1 or len(body) != wire.IMPORT.size:
                raise ConnectionError(f"IMPORT of {len(body)} bytes and {len(fds)} descriptors")
            resource_id, size = wire.IMPORT.unpack(body)
            try:
                context.import_resource(resource_id, fds[0], size)
            except ResourceError as error:
                self.resource_refused(error)
        else:
            raise ConnectionError(f"message of kind {kind}")

    # What the context will not do (`server.Owner`).

    def blob_refused(self, error: Exception) -> Response:
        """Return what the specification calls that."""
        if not isinstance(error, ResourceError):
            raise error
        _log.warning("blob refused", reason=str(error))
        if isinstance(error, OutOfMemoryError):
            return Response.ERR_OUT_OF_MEMORY
        if isinstance(error, InvalidResourceError):
            return Response.ERR_INVALID_RESOURCE_ID
        if isinstance(error, InvalidParameterError):
            return Response.ERR_INVALID_PARAMETER
        return Response.ERR_UNSPEC

    def resource_refused(self, error: Exception) -> None:
        """Who uses the resource all the same breaks the protocol, and is told so."""
        if not isinstance(error, ResourceError):
            raise error
        _log.warning("resource refused", reason=str(error))

    def timeline_refused(self, error: Exception) -> None:
        """End the context."""
        if self._context is not None:
            self._context.poison(str(error))
