"""The VNC server: RFB over TCP, a port for each scanout, or over Unix sockets."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from hesper.display.access.listener import Connection, Listener
from hesper.display.access.passwords import make_password
from hesper.display.access.places import Address, Place, UnixPath, is_local, listen_on
from hesper.display.rfb.channel import StreamChannel
from hesper.display.rfb.handshake import Access, check_password

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from hesper.display.access.tls import Certificate
    from hesper.display.rfb.service import RfbService

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 5901
MAX_PORT = 0xFFFF


class VncServer:
    """Listens for viewers.  An async context manager; leaving it drops every viewer."""

    def __init__(
        self,
        service: RfbService,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        password: str | None = None,
        *,
        path: Path | None = None,
        is_open: bool = False,
        certificate: Certificate | None = None,
    ) -> None:
        """Scanout N is at `port` + N; port 0 picks free ones.

        password: what viewers have to know; None makes one up.
        path: a Unix socket to listen on instead, for this user alone, who needs no password; that
        of scanout N ends in `.N+1` from the second on.
        is_open: let every user of this machine connect, without a password.
        certificate: has viewers begin with TLS.

        Raises `ValueError` for a host that is not loopback without a certificate or `is_open`, and
        for a password that VNC cannot use.
        """
        self._where: Place = Address(host, port) if path is None else UnixPath(path)
        self._is_local = is_local(self._where)
        if not self._is_local and certificate is None:
            message = f"VNC on {host} can be reached by others: it wants TLS, and so a certificate"
            raise ValueError(message)
        if is_open and (password is not None or not self._is_local):
            message = "VNC without a password: only on 127.0.0.1 or ::1, and with none given"
            raise ValueError(message)
        if password is None and path is None and not is_open:
            password = make_password()
        self.password = password
        """What viewers have to know; None when they need not know anything."""
        self._access = Access(
            check_password(password) if password is not None else None,
            certificate.context if certificate is not None else None,
        )
        self._service = service
        self._stack = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self.places: list[Place] = []
        """Where each scanout is."""

    @property
    def ports(self) -> list[int]:
        """The port of each scanout; none with Unix sockets."""
        return [place.port for place in self.places if isinstance(place, Address)]

    async def __aenter__(self) -> Self:
        """Listen.  Raises `OSError` when a port is taken, `ListenError` for a socket."""
        async with AsyncExitStack() as stack:
            for feed in self._service.feeds:
                index = feed.scanout.index
                place = self._place(index)
                sockets = listen_on(place, local=self._is_local)
                listener = Listener(sockets, self._acceptor(index), name=f"VNC on {place}")
                stack.callback(listener.close)
                listener.start()
                if isinstance(place, Address):
                    place = Address(place.host, listener.port)
                self.places.append(place)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop listening and drop every viewer."""
        await self._stack.aclose()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _place(self, index: int) -> Place:
        if isinstance(self._where, UnixPath):
            path = self._where.path
            return UnixPath(path.with_name(f"{path.name}.{index + 1}") if index else path)
        port = self._where.port + index if self._where.port else 0
        if port > MAX_PORT:
            raise ValueError(
                f"VNC on {self._where}: there is no port {port} for screen {index + 1}"
            )
        return Address(self._where.host, port)

    def _acceptor(self, index: int) -> Callable[[Connection], asyncio.Protocol]:
        def accept(connection: Connection) -> asyncio.Protocol:
            def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                channel = StreamChannel(reader, writer)
                task = asyncio.create_task(self._serve(index, channel, connection))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

            return asyncio.StreamReaderProtocol(asyncio.StreamReader(), serve)

        return accept

    async def _serve(self, index: int, channel: StreamChannel, connection: Connection) -> None:
        with contextlib.suppress(Exception):  # it has been logged
            await self._service.serve(
                index, channel, self._access, connection.peer, connection.admit
            )
