"""One vtest client, from its first byte to its last, on the thread that owns its socket."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from hesper.isolation.service import ClientError
from hesper.log import get_logger
from hesper.portable import set_receive_timeout
from hesper.protocol.virtgpu import MAX_TIMELINES
from hesper.sockets.connection import TruncatedError
from hesper.vtest import wire
from hesper.vtest.server import Server
from hesper.vtest.wire import Command, Phase

if TYPE_CHECKING:
    from hesper.kernel.port import Port

_log = get_logger(__name__)


class GuestContext(Protocol):
    """What a session needs of `guest.Context`."""

    @property
    def port(self) -> Port:
        """Where submissions go; one thread uses it."""

    def poison(self, reason: str) -> None:
        """Make a submission that is under way end, whatever it waits for."""

    def close(self) -> None:
        """Free everything; no fence retires afterwards."""


class Host(Protocol):
    """What a session needs of the process it runs in."""

    capset: bytes
    """The Venus capset, a multiple of 4 bytes."""
    refusals: tuple[type[Exception], ...]
    """What a context raises when it will not do what a client asked for."""
    handshake_timeout: float | None
    """Seconds in which a client must have come to CONTEXT_INIT."""
    silence_timeout: float | None
    """Seconds that it may be silent until then."""

    def create_context(self, name: str, on_fatal: Callable[[str], None]) -> GuestContext:
        """Make the client's context; `on_fatal` may be called from any thread."""

    def named(self, name: str) -> None:
        """Be told what the client calls itself."""

    def ended(self, reason: str) -> None:
        """Be told why the client is to be ended, while it is still connected; from any thread."""

    def no_room(self, size: int, error: Exception) -> None:
        """Be told that there is no memory for a resource of so many bytes."""


class Session:
    """Serves one client.

    Life: construct, `run` (returns when the client is gone), nothing more.  `stop` may be called
    from any thread at any time.
    """

    def __init__(self, sock: socket.socket, host: Host) -> None:
        """Take over `sock`, a connected blocking stream socket; `run` closes it."""
        self._sock = sock
        self._host = host
        self._name = ""
        self._context: GuestContext | None = None
        self._fatal: str | None = None
        self._ending = threading.Lock()
        """Held until the host knows why; nobody hangs up before."""
        self._stopping = False
        self._handshake: threading.Timer | None = None
        # Opened now: there may be no descriptor left when it is needed.
        self._nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._server = Server(sock.fileno(), unmappable=self._nothing, no_room=host.no_room)
        self._serve: dict[int, Callable[[memoryview], None]] = {
            Command.CREATE_RENDERER: self._create_renderer,
            Command.PING_PROTOCOL_VERSION: self._ping,
            Command.RESOURCE_BUSY_WAIT: self._busy_wait,
            Command.PROTOCOL_VERSION: self._protocol_version,
            Command.GET_PARAM: self._get_param,
            Command.GET_CAPSET: self._get_capset,
            Command.CONTEXT_INIT: self._context_init,
        }

    def run(self) -> None:
        """Serve the client until it leaves, then free everything it had.

        Raises `ClientError` when it has broken the protocol, here or on a ring.
        """
        seconds = self._host.handshake_timeout
        if seconds is not None:
            self._handshake = threading.Timer(
                seconds, self._poisoned, [f"no complete handshake in {seconds:g} s"]
            )
            self._handshake.daemon = True
            self._handshake.start()
        try:
            set_receive_timeout(self._sock, self._host.silence_timeout)
            self._loop()
        except ClientError as error:
            # What poisoned the context says more than what became of the command after it.
            self._end(str(error))
        finally:
            self._end_handshake()
            self._hang_up()
            if self._context is not None:
                self._context.close()
            self._server.close()
            self._sock.close()
            os.close(self._nothing)
        if self._fatal is not None:
            raise ClientError(self._fatal)

    def stop(self) -> None:
        """Make `run` return soon, even from commands that wait for each other."""
        self._hang_up()
        if self._context is not None and self._fatal is None:
            self._context.poison("the client is gone or the server stops")

    def _hang_up(self) -> None:
        self._stopping = True
        with contextlib.suppress(OSError):  # the client may be gone already
            self._sock.shutdown(socket.SHUT_RDWR)

    def _end_handshake(self) -> None:
        if self._handshake is not None:
            self._handshake.cancel()
            self._handshake = None

    def _poisoned(self, reason: str) -> None:
        """Take note that the context is dead, from whichever thread found out."""
        self._end(reason)
        self._hang_up()

    def _end(self, reason: str) -> None:
        """Tell the host why the client is ended, unless somebody has."""
        if self._stopping:
            return
        with self._ending:
            if self._fatal is None:
                self._fatal = reason
                self._host.ended(reason)

    def _loop(self) -> None:
        server = self._server
        while True:
            try:
                message = server.next()
                if message is None:
                    return
                number, length, data = message
                self._check(number, length)
                if data is not None:
                    self._serve[number](data)
            except ClientError:
                raise
            except TruncatedError as error:
                if not self._stopping:
                    # As a program does that is killed.
                    _log.info(
                        "the client has left in mid-message", reason=f"{server.what}: {error}"
                    )
                return
            except BlockingIOError:
                seconds = self._host.silence_timeout
                raise ClientError(
                    f"{server.what}: the client was silent for {seconds:g} s in its handshake"
                ) from None
            except ConnectionError:
                return  # the client has left without waiting for its answer
            except self._host.refusals as error:
                raise ClientError(f"{server.what}: {error}") from None

    def _check(self, number: int, length: int) -> None:
        """Raise `ClientError` for a header that is wrong."""
        try:
            command = Command(number)
        except ValueError:
            raise ClientError(f"unknown command {number}") from None
        name = command.name
        request = wire.REQUESTS.get(command)
        if request is None:
            raise ClientError(f"{name}: not for Venus clients")
        phase = Phase(self._server.phase)
        if not request.first <= phase <= request.last:
            raise ClientError(f"{name}: out of order, the client is {phase.name}")
        size = length * request.unit
        if not request.shortest <= size <= request.longest:
            raise ClientError(
                f"{name}: {size} bytes of data, must be {request.shortest} to {request.longest}"
            )

    def _create_renderer(self, data: memoryview) -> None:
        text = bytes(data).split(b"\0", 1)[0].decode("utf-8", "replace")
        self._name = "".join(c if c.isprintable() else "?" for c in text)[:100] or "unnamed"
        self._server.phase = Phase.NAMED
        self._host.named(self._name)

    def _ping(self, _: memoryview) -> None:
        self._sock.sendall(wire.HEADER.pack(0, Command.PING_PROTOCOL_VERSION))

    def _busy_wait(self, data: memoryview) -> None:
        # Venus clients send it once, with resource 0, to learn whether PING is known.
        resource, _ = wire.BUSY_WAIT.unpack(data)
        if resource:
            raise ClientError(f"RESOURCE_BUSY_WAIT: resource {resource}, must be 0")
        self._sock.sendall(wire.REPLY_U32.pack(1, Command.RESOURCE_BUSY_WAIT, 0))

    def _protocol_version(self, data: memoryview) -> None:
        (version,) = wire.U32.unpack(data)
        if version < wire.PROTOCOL_VERSION:
            raise ClientError(
                f"PROTOCOL_VERSION: the client knows {version}, Venus needs {wire.PROTOCOL_VERSION}"
            )
        self._server.phase = Phase.NEGOTIATED
        self._reply(Command.PROTOCOL_VERSION, wire.PROTOCOL_VERSION)

    def _get_param(self, data: memoryview) -> None:
        (param,) = wire.U32.unpack(data)
        known = param == wire.Param.MAX_TIMELINE_COUNT
        value = MAX_TIMELINES if known else 0
        self._sock.sendall(wire.REPLY_TWO_U32.pack(2, Command.GET_PARAM, known, value))

    def _get_capset(self, data: memoryview) -> None:
        capset_id, version = wire.CAPSET.unpack(data)
        if (capset_id, version) != (wire.CAPSET_VENUS, 0):
            self._reply(Command.GET_CAPSET, 0)
            return
        capset = self._host.capset
        head = wire.REPLY_U32.pack(1 + len(capset) // 4, Command.GET_CAPSET, 1)
        self._sock.sendall(head + capset)

    def _context_init(self, data: memoryview) -> None:
        (capset_id,) = wire.U32.unpack(data)
        if capset_id != wire.CAPSET_VENUS:
            raise ClientError(f"CONTEXT_INIT: capset {capset_id}, only Venus (4) is served")
        self._context = self._host.create_context(self._name, self._poisoned)
        self._server.attach(self._context.port)
        self._server.phase = Phase.RUNNING
        self._end_handshake()
        set_receive_timeout(self._sock, None)

    def _reply(self, command: Command, value: int) -> None:
        self._sock.sendall(wire.REPLY_U32.pack(1, command, value))
