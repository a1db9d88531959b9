"""What a worker runs: one context of a virtual machine, as the device at the other end says.

They speak the messages of `context_wire`.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence

from hesper.gpu import context_wire as wire
from hesper.gpu.context_wire import Down, Up
from hesper.gpu.wire import Response
from hesper.guest import (
    Context,
    InvalidParameterError,
    InvalidResourceError,
    OutOfMemoryError,
    ResourceError,
)
from hesper.isolation.service import ClientError
from hesper.kernel.errors import ProtocolError
from hesper.log import get_logger
from hesper.portable import recv_message, send_message

_log = get_logger(__name__)


class ContextWorker:
    """Does what the device says until it hangs up.  `fatal` may come from any thread."""

    def __init__(self, sock: socket.socket) -> None:
        """Talk over `sock`."""
        self._socket = sock
        self._sending = threading.Lock()
        self._reason = ""
        self._destroying = False

    def run(self, context: Context) -> None:
        """Serve `context`.  Raises `ClientError` when the guest broke the protocol."""
        while (message := self._receive()) is not None:
            data, fds = message
            try:
                self._handle(context, memoryview(data), fds)
            except ProtocolError:
                # The device has been told, and hangs up.
                continue
            finally:
                for fd in fds:
                    os.close(fd)
        if self._reason:
            raise ClientError(self._reason)

    def _receive(self) -> tuple[bytes, list[int]] | None:
        try:
            return recv_message(self._socket)
        except ConnectionResetError:
            # The device has hung up without hearing us out.
            return None

    def fatal(self, reason: str) -> None:
        """Tell the device that the context is poisoned; it hangs up then."""
        if self._destroying:
            # A program that ends, in whatever way, first loses its memory and then its context.
            return
        self._reason = reason
        self._say(Up.FATAL, reason.encode()[:1000])

    def _say(self, kind: Up, payload: bytes, fds: Sequence[int] = ()) -> None:
        try:
            with self._sending:
                send_message(self._socket, wire.KIND.pack(kind) + payload, fds)
        except OSError:
            return  # the device has hung up: `run` sees it

    def _handle(self, context: Context, message: memoryview, fds: Sequence[int]) -> None:
        (kind,) = wire.KIND.unpack_from(message)
        body = message[wire.KIND.size :]
        if kind == Down.SUBMIT:
            context.submit(body)
        elif kind == Down.FENCE:
            self._fence(context, *wire.FENCE.unpack(body))
        elif kind == Down.FIGURES:
            counts = context.engine.statistics()
            figures = wire.FIGURES.pack(counts["commands"], counts["bytes"], context.pool.used)
            self._say(Up.FIGURES, figures)
        elif kind == Down.CREATE_BLOB:
            self._create_blob(context, wire.CreateBlob(*wire.CREATE_BLOB.unpack(body)))
        else:
            try:
                if kind == Down.IMPORT:
                    resource_id, size = wire.IMPORT.unpack(body)
                    context.import_resource(resource_id, fds[0], size)
                elif kind == Down.DESTROY:
                    self._destroying = True
                    context.destroy_resource(*wire.DESTROY.unpack(body))
            except ResourceError as error:
                # Who uses the resource all the same breaks the protocol, and is told so.
                _log.warning("resource refused", reason=str(error))
            finally:
                self._destroying = False

    def _fence(self, context: Context, ring_idx: int, serial: int) -> None:
        def retired() -> None:
            self._say(Up.RETIRED, wire.RETIRED.pack(serial))

        try:
            context.fence(ring_idx, retired)
        except InvalidParameterError as error:
            context.engine.poison(str(error))
            retired()

    def _create_blob(self, context: Context, asked: wire.CreateBlob) -> None:
        fds: tuple[int, ...] = ()
        caching = 0
        try:
            blob = context.create_blob(asked.resource_id, asked.blob_id, asked.size, asked.flags)
        except ResourceError as error:
            _log.warning("blob refused", reason=str(error))
            response = _response(error)
        else:
            response, caching, fds = Response.OK_NODATA, blob.caching, (blob.fd,)
        self._say(Up.BLOB, wire.BLOB.pack(asked.serial, response, caching), fds)


def _response(error: ResourceError) -> Response:
    """What the specification calls `error`."""
    if isinstance(error, OutOfMemoryError):
        return Response.ERR_OUT_OF_MEMORY
    if isinstance(error, InvalidResourceError):
        return Response.ERR_INVALID_RESOURCE_ID
    if isinstance(error, InvalidParameterError):
        return Response.ERR_INVALID_PARAMETER
    return Response.ERR_UNSPEC
