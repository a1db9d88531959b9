"""Accepting connections of strangers: few at a time, none for long, with or without descriptors.

asyncio's own servers keep whoever connects for as long as they like to say nothing, and log a line
for each of a hundred failed accepts when the process has no descriptor left, again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hesper.display.access.tls import TLS_SECONDS, Pace
from hesper.log import get_logger

if TYPE_CHECKING:
    from hesper.display.access.places import Sockets

log = get_logger(__name__)

ACCEPTS_A_TURN = 16
SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
PAUSE_SECONDS = 1.0
"""Without descriptors, or whatever else accepting wants, it is tried again after so long."""
KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
"""A machine that has vanished is noticed after two minutes."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What strangers get.  Who has been admitted is bounded by whom it has been admitted to."""

    waiting: int = 64
    """Connections not admitted yet; a further one costs the busiest address its oldest."""
    waiting_each: int = 32
    """The same, from one address."""
    seconds: float = 120.0
    """Time until it has to be admitted."""
    received: int = 1 << 16
    """Bytes that it may send until then."""
    burst: int = 64
    """Connections that are accepted at once; more wait with the system, which keeps some."""
    rate: float = 200.0
    """Connections that are accepted in a second after that, from all addresses together."""


class Connection(asyncio.Protocol):
    """One connection: passes on to the protocol that serves it, and counts until it is admitted."""

    def __init__(self, listener: Listener, peer: str) -> None:
        """Made by `Listener`."""
        self.peer = peer
        """The address it came from, as limits count it."""
        self._listener = listener
        self._left = listener.bounds.received
        self._transport: asyncio.Transport | None = None
        self._opening: asyncio.Task[None] | None = None
        self._is_admitted = False
        self._is_dropped = False
        self._is_served = False
        self._inner = listener.make(self)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(listener.bounds.seconds, self.drop, "no time left")

    def admit(self) -> None:
        """Let it stay: it has shown that it may."""
        self._is_admitted = True
        self._end()

    def renew(self) -> None:
        """Count its time and what it sends anew: it has shown that it may, and may go on so."""
        if not self._is_admitted:
            bounds = self._listener.bounds
            self._left = bounds.received
            self._deadline.cancel()
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(bounds.seconds, self.drop, "no time left")

    def drop(self, reason: str) -> None:
        """End it at once."""
        self._is_dropped = True
        self._end()
        if self._transport is not None:
            self._transport.abort()
        elif self._opening is not None:
            self._opening.cancel()
        # Last: without descriptors logging may fail as well.
        log.of(self.peer).debug("connection dropped", peer=self.peer, reason=reason)

    def open(self, sock: socket.socket) -> None:
        """Begin to serve `sock`."""
        self._opening = asyncio.create_task(self._open(sock))
        self._opening.add_done_callback(lambda _: self._opened(sock))

    async def _open(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        tls = self._listener.tls
        try:
            if tls is None:
                await loop.connect_accepted_socket(lambda: self, sock)
                return
            await self._listener.pace.wait()
            await loop.connect_accepted_socket(
                lambda: self, sock, ssl=tls, ssl_handshake_timeout=TLS_SECONDS
            )
        except OSError as error:
            log.of(self.peer).debug("connection dropped", peer=self.peer, reason=str(error))

    def _opened(self, sock: socket.socket) -> None:
        if self._transport is None:
            sock.close()
            self._end()

    def _end(self) -> None:
        self._deadline.cancel()
        self._listener.forget(self)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"{transport} is no stream")
        self._transport = transport
        if self._is_dropped:
            transport.abort()
            return
        self._is_served = True
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if not self._is_admitted:
            self._left -= len(data)
            if self._left < 0:
                self.drop("it sends too much")
                return
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """See `asyncio.Protocol`."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._end()
        if self._is_served:
            self._inner.connection_lost(exc)


class Listener:
    """Accepts connections on one event loop, from `start` to `close`."""

    def __init__(
        self,
        sockets: Sockets,
        make: Callable[[Connection], asyncio.Protocol],
        *,
        name: str,
        bounds: Bounds | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Serve each connection with the protocol that `make` returns for it.

        name: what is served, for logs.  With `tls`, whoever connects has to begin with TLS.
        """
        self.make = make
        self.bounds = Bounds() if bounds is None else bounds
        self.tls = tls
        self.pace = Pace()
        self._sockets = sockets
        self._name = name
        # By age: dicts keep the order.
        self._waiting: dict[Connection, None] = {}
        self._resuming: dict[socket.socket, asyncio.TimerHandle] = {}
        self._paid_until = 0.0

    @property
    def port(self) -> int:
        """The port; 0 for a Unix socket."""
        return self._sockets.port

    def start(self) -> None:
        """Begin to accept, on the running loop."""
        for sock in self._sockets.sockets:
            self._resume(sock)

    def close(self) -> None:
        """Accept nobody any more, and drop who has not been admitted."""
        loop = asyncio.get_running_loop()
        for handle in self._resuming.values():
            handle.cancel()
        for sock in self._sockets.sockets:
            loop.remove_reader(sock)
        self._sockets.close()
        for connection in list(self._waiting):
            connection.drop("Hesper stops")

    def forget(self, connection: Connection) -> None:
        """Count a connection no longer: it was admitted, or has gone."""
        self._waiting.pop(connection, None)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Whoever waits the longest makes room; this is called again once it has.
                if error.errno in SCARCE and self._waiting:
                    self._drop_oldest("descriptors are needed")
                else:
                    self._pause(listening, PAUSE_SECONDS)
                    log.warning("nobody can connect for now", to=self._name, reason=error.strerror)
                return
            self._take(sock, address)
            early = self._pay()
            if early > 0:
                self._pause(listening, early)
                return

    def _take(self, sock: socket.socket, address: object) -> None:
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            _keep_alive(sock)
        peer = peer_of(address)
        bounds = self.bounds
        if sum(each.peer == peer for each in self._waiting) >= bounds.waiting_each:
            self._drop_oldest("others come from its address", peer)
        elif len(self._waiting) >= bounds.waiting:
            (busiest, _), *_ = Counter(each.peer for each in self._waiting).most_common(1)
            self._drop_oldest("others come", busiest)
        connection = Connection(self, peer)
        self._waiting[connection] = None
        connection.open(sock)

    def _drop_oldest(self, reason: str, peer: str | None = None) -> None:
        next(each for each in self._waiting if peer in {None, each.peer}).drop(reason)

    def _pay(self) -> float:
        """Count a connection; returns how many seconds too early the next would be."""
        bounds = self.bounds
        now = asyncio.get_running_loop().time()
        self._paid_until = max(self._paid_until, now) + 1 / bounds.rate
        return self._paid_until - now - bounds.burst / bounds.rate

    def _pause(self, listening: socket.socket, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        self._resuming[listening] = loop.call_later(seconds, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        self._resuming.pop(listening, None)
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)


def peer_of(address: object) -> str:
    """Return what counts as one address: of IPv6 the network, in which anybody has many."""
    if not isinstance(address, tuple):
        return "local"
    host = str(address[0]).partition("%")[0]
    with contextlib.suppress(ValueError):
        found = ipaddress.ip_address(host)
        if isinstance(found, ipaddress.IPv6Address):
            if found.ipv4_mapped is not None:
                return str(found.ipv4_mapped)
            if not found.is_loopback:
                return str(ipaddress.ip_network((found, 64), strict=False))
    return host


def _keep_alive(sock: socket.socket) -> None:
    # Who has gone already shows when it is read from.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for name, value in KEEPALIVE:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
