"""The VNC server: RFB over TCP, a port for each scanout."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

from hesper.display.rfb.channel import StreamChannel
from hesper.display.rfb.handshake import check_password

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from hesper.display.rfb.service import RfbService

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 5901


class VncServer:
    """Listens for viewers.  An async context manager; leaving it drops every viewer."""

    def __init__(
        self,
        service: RfbService,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        password: str | None = None,
    ) -> None:
        """Scanout N is at `port` + N; port 0 picks free ones.

        Raises `ValueError` for a host that is not loopback without a password, and for a password
        that VNC cannot use.
        """
        self._key = check_password(password) if password is not None else None
        if self._key is None and not is_loopback(host):
            message = f"VNC on {host} can be reached by others: set a password, or use 127.0.0.1"
            raise ValueError(message)
        self._service = service
        self._host = host
        self._port = port
        self._stack = AsyncExitStack()
        self._connections: set[asyncio.Task[None]] = set()
        self.ports: list[int] = []
        """The port of each scanout."""

    async def __aenter__(self) -> Self:
        """Listen.  Raises `OSError` when a port is taken."""
        async with AsyncExitStack() as stack:
            for feed in self._service.feeds:
                index = feed.scanout.index
                port = self._port + index if self._port else 0
                server = await asyncio.start_server(self._acceptor(index), self._host, port)
                stack.callback(server.close)
                self.ports.append(server.sockets[0].getsockname()[1])
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
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _acceptor(self, index: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            channel = StreamChannel(reader, writer)
            task = asyncio.create_task(self._service.serve(index, channel, self._key))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

        return accept


def is_loopback(host: str) -> bool:
    """Tell whether every address that `host` stands for stays on this machine.

    Raises `ValueError` when `host` cannot be resolved.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        message = f"host {host!r} cannot be resolved: {error}"
        raise ValueError(message) from error
    return all(ipaddress.ip_address(entry[4][0]).is_loopback for entry in found)
