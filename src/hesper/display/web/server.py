"""The web server: a page with noVNC in it, its WebSockets, and Prometheus metrics.

Other pages in the same browser must not reach the guest.  Whatever shows or does something wants a
token, which the page gets in its address behind `#`, where browsers send it to nobody; and a
browser that says where a WebSocket comes from has to name this server.  The page itself is public
and holds nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import re
import secrets
import socket as sockets
from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import msgspec
from aiohttp import WSCloseCode, hdrs, web

from hesper.display.access.listener import Bounds, Connection, Listener
from hesper.display.access.places import ANY_HOST, Address, Place, UnixPath, is_local, listen_on
from hesper.display.rfb.handshake import OPEN
from hesper.display.rfb.service import MAX_VIEWERS
from hesper.display.web.live import LiveSampler
from hesper.display.web.socket import STALL_SECONDS, WebSocketChannel, close, drain
from hesper.display.web.sound import play
from hesper.log import get_logger

if TYPE_CHECKING:
    from types import TracebackType

    from hesper.display.access.tls import Certificate
    from hesper.display.rfb.service import RfbService
    from hesper.display.sound import SoundSource
    from hesper.display.web.live import GpuSource

log = get_logger(__name__)

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 6080
TOKEN_BYTES = 18
PROTOCOL = "hesper"
"""The WebSocket subprotocol; the token is offered as another one, `hesper.TOKEN`."""
MAX_MESSAGE = 1 << 16
LIVE_SECONDS = 1.0
HEARTBEAT_SECONDS = 30.0
MAX_SOCKETS = 2 * MAX_VIEWERS
"""WebSockets that are open: a page has two, and one more for sound."""
MAX_LISTENERS = 16
"""Pages that have the guest's sound; of QEMU's connections, there are 32."""
KEEPALIVE_SECONDS = 15.0
MAX_HEADERS = 64
MAX_PATH = 200
"""Characters; no file of the page needs half."""
BOUNDS = Bounds(seconds=30.0, received=1 << 20)
"""For a browser until it has opened a WebSocket: to get the page, some forty files."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": (
        "camera=(), geolocation=(), microphone=(), clipboard-read=(self), clipboard-write=(self)"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Server": "Hesper",
    "Cache-Control": "no-cache",
}


class WebServer:
    """Serves the page.  An async context manager; leaving it drops every viewer."""

    def __init__(
        self,
        service: RfbService,
        *,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        path: Path | None = None,
        certificate: Certificate | None = None,
        token: str | None = None,
        gpu: GpuSource | None = None,
        metrics: Callable[[], bytes] | None = None,
    ) -> None:
        """Serve the screens of `service`; port 0 picks a free one.

        path: a Unix socket to listen on instead, for this user alone: a reverse proxy, or a test.
        certificate: serve by HTTPS.
        token: what a viewer has to know; None makes one up.
        gpu: gives the figures that the display does not have.
        metrics: gives the text for `/metrics`.
        Raises `FileNotFoundError` when noVNC was left out of this build, `ValueError` for a token
        that no address can carry, and for a host that is not loopback without a certificate.
        """
        self.token = secrets.token_urlsafe(TOKEN_BYTES) if token is None else token
        if re.fullmatch(r"[A-Za-z0-9_-]+", self.token) is None:
            message = "web token: use letters, digits, '-' and '_'"
            raise ValueError(message)
        self._where: Place = Address(host, port) if path is None else UnixPath(path)
        self._is_local = is_local(self._where)
        if not self._is_local and certificate is None:
            message = (
                f"a page on {host} can be reached by others: it wants TLS, and so a certificate"
            )
            raise ValueError(message)
        self._tls = certificate.context if certificate is not None else None
        self._service = service
        self._gpu = gpu
        self.sound: SoundSource | None = None
        """What the guest plays, for pages that are opened from now on."""
        self._listeners = 0
        self._metrics = metrics
        self._sockets: dict[web.WebSocketResponse, asyncio.Transport] = {}
        self._listener: Listener | None = None
        self._runner = web.AppRunner(
            self._make_app(),
            access_log=None,
            shutdown_timeout=2.0,
            keepalive_timeout=KEEPALIVE_SECONDS,
            lingering_time=1.0,
            max_headers=MAX_HEADERS,
            logger=_quiet_logger(),
        )

    @property
    def url(self) -> str:
        """The page's address, with the token."""
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{self._authority()}/#token={self.token}"

    def _authority(self) -> str:
        if isinstance(self._where, UnixPath):
            return "localhost"
        if self._where.host in ANY_HOST:
            return str(Address(sockets.gethostname(), self._where.port))
        return str(self._where)

    async def __aenter__(self) -> Self:
        """Listen.  Raises `OSError` when the port is taken, `ListenError` for a socket."""
        await self._runner.setup()
        server = self._running()
        server.request_handler = _without_expectations(server.request_handler)
        try:
            listening = listen_on(self._where, local=self._is_local)
        except BaseException:
            await self._runner.cleanup()
            raise
        self._listener = Listener(
            listening,
            self._accept,
            name=f"the web page on {self._where}",
            bounds=BOUNDS,
            tls=self._tls,
        )
        self._listener.start()
        if isinstance(self._where, Address):
            self._where = Address(self._where.host, self._listener.port)
        return self

    def _accept(self, _connection: Connection) -> asyncio.Protocol:
        return self._running()()

    def _running(self) -> web.Server:
        server = self._runner.server
        if server is None:
            raise RuntimeError("the page's server has not been set up")
        return server

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop listening and drop every viewer."""
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()

    def _make_app(self) -> web.Application:
        folder = Path(str(resources.files("hesper.display.web")))
        novnc = folder / "novnc"
        if not (novnc / "core" / "rfb.js").is_file():
            message = (
                "this build of Hesper has no noVNC, so there is no web page: "
                "use a VNC viewer, or install a build with -Dweb=enabled"
            )
            raise FileNotFoundError(message)
        app = web.Application(middlewares=[_secure])
        app.router.add_get("/", _file_handler(folder / "page" / "index.html"))
        app.router.add_get("/favicon.svg", _file_handler(folder / "page" / "favicon.svg"))
        app.router.add_static("/page", folder / "page")
        app.router.add_static("/novnc", novnc)
        app.router.add_get("/live", self._serve_live)
        app.router.add_get("/vnc/{index:[0-9]{1,2}}", self._serve_vnc)
        app.router.add_get("/sound", self._serve_sound)
        app.router.add_get("/metrics", self._serve_metrics)
        app.on_shutdown.append(self._close_sockets)
        return app

    async def _serve_vnc(self, request: web.Request) -> web.StreamResponse:
        index = int(request.match_info["index"])
        if index >= len(self._service.feeds):
            raise web.HTTPNotFound(text=f"there is no screen {index + 1}\n")
        socket = await self._open(request)
        transport = self._sockets[socket]
        peer = request.remote or "local"
        channel = WebSocketChannel(socket, transport, f"web {peer}")
        try:
            with contextlib.suppress(Exception):  # it has been logged
                await self._service.serve(index, channel, OPEN, peer)
        finally:
            self._sockets.pop(socket, None)
        return socket

    async def _serve_live(self, request: web.Request) -> web.StreamResponse:
        socket = await self._open(request)
        transport = self._sockets[socket]
        watch = asyncio.create_task(drain(socket))
        sampler = LiveSampler(self._service, self._gpu, sound=self.sound is not None)
        encoder = msgspec.json.Encoder()
        try:
            while not watch.done():
                async with asyncio.timeout(STALL_SECONDS):
                    await socket.send_str(encoder.encode(sampler.sample()).decode())
                await asyncio.wait([watch], timeout=LIVE_SECONDS)
        except (ConnectionError, TimeoutError):
            transport.abort()  # the page was closed, or takes nothing
        finally:
            watch.cancel()
            self._sockets.pop(socket, None)
        return socket

    async def _serve_sound(self, request: web.Request) -> web.StreamResponse:
        if self.sound is None:
            raise web.HTTPNotFound(text="no sound is to be heard\n")
        if self._listeners >= MAX_LISTENERS:
            raise web.HTTPServiceUnavailable(text=f"{MAX_LISTENERS} listen already\n")
        socket = await self._open(request)
        self._listeners += 1
        try:
            await play(socket, self._sockets[socket], self.sound)
        finally:
            self._listeners -= 1
            self._sockets.pop(socket, None)
        return socket

    async def _serve_metrics(self, request: web.Request) -> web.Response:
        if self._metrics is None:
            raise web.HTTPNotFound(text="no metrics are collected\n")
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme.lower() != "bearer" or not self._knows(token):
            raise web.HTTPUnauthorized(
                text="send the token of the page's address: Authorization: Bearer TOKEN\n",
                headers={hdrs.WWW_AUTHENTICATE: "Bearer"},
            )
        _connection_of(_transport_of(request)).renew()
        return web.Response(body=self._metrics(), content_type="text/plain", charset="utf-8")

    async def _open(self, request: web.Request) -> web.WebSocketResponse:
        """Check who asks, and open the WebSocket."""
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and _place_of(origin) != request.host:
            raise web.HTTPForbidden(text="another web page may not connect here\n")
        offered = request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, "")
        names = [protocol.strip().partition(".") for protocol in offered.split(",")]
        if not any(name == PROTOCOL and self._knows(token) for name, _, token in names):
            raise web.HTTPForbidden(text="wrong token: use the address that Hesper printed\n")
        if len(self._sockets) >= MAX_SOCKETS:
            raise web.HTTPServiceUnavailable(text=f"{MAX_SOCKETS} WebSockets are open already\n")
        transport = _transport_of(request)
        socket = web.WebSocketResponse(
            protocols=[PROTOCOL],
            max_msg_size=MAX_MESSAGE,
            compress=False,
            heartbeat=HEARTBEAT_SECONDS,
        )
        self._sockets[socket] = transport
        try:
            await socket.prepare(request)
        except BaseException as error:
            del self._sockets[socket]
            if isinstance(error, ValueError):  # a key that is not even ASCII
                raise web.HTTPBadRequest(text="no key of a WebSocket\n") from None
            raise
        _connection_of(transport).admit()
        return socket

    def _knows(self, token: str) -> bool:
        # Bytes of a header that are not UTF-8 come as lone surrogates.
        given = token.encode("utf-8", "surrogateescape")
        return hmac.compare_digest(given, self.token.encode())

    async def _close_sockets(self, _app: web.Application) -> None:
        goodbye = (
            close(socket, transport, WSCloseCode.GOING_AWAY, "Hesper has stopped")
            for socket, transport in list(self._sockets.items())
        )
        await asyncio.gather(*goodbye, return_exceptions=True)


def _transport_of(request: web.Request) -> asyncio.Transport:
    if request.transport is None:
        raise ConnectionResetError("the browser has gone")
    # aiohttp says less than it knows.
    if not isinstance(request.transport, asyncio.Transport):
        raise TypeError(f"{request.transport} is no stream")
    return request.transport


def _connection_of(transport: asyncio.Transport) -> Connection:
    connection = transport.get_protocol()
    if not isinstance(connection, Connection):
        raise TypeError(f"{connection} was not made by a listener")
    return connection


def _place_of(origin: str) -> str | None:
    """Host and port of an origin; None for what is none."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None


def _without_expectations(
    handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """Refuse `Expect`, for requests with a body: aiohttp fails at one that is not UTF-8."""

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        if hdrs.EXPECT in request.headers:
            return web.Response(status=417, text="nothing here takes a body\n", headers=HEADERS)
        return await handle(request)

    return serve


def _file_handler(path: Path) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def serve(_request: web.Request) -> web.StreamResponse:
        return web.FileResponse(path)

    return serve


@web.middleware
async def _secure(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        if len(request.path) > MAX_PATH:
            raise web.HTTPNotFound()
        response = await handler(request)
    except web.HTTPException as error:
        error.headers.update(HEADERS)
        raise
    except (ConnectionError, TimeoutError):
        raise  # the browser has gone
    except Exception as error:
        # Whoever asked is told nothing of it.
        log.of(request.remote or "local").error(
            "the web page has failed", path=request.path, reason=repr(error)
        )
        raise web.HTTPInternalServerError(
            text="Hesper's log says more\n", headers=HEADERS
        ) from None
    if not response.prepared:
        response.headers.update(HEADERS)
    return response


class _ToLog(logging.Handler):
    """Takes what aiohttp says of requests that are none: nobody has to know, unless he asks."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        reason = record.exc_info[1] if record.exc_info else None
        log.debug("bad request", reason=f"{record.getMessage()}: {reason!r}")


def _quiet_logger() -> logging.Logger:
    logger = logging.Logger(__name__)
    logger.addHandler(_ToLog())
    return logger
