"""The web server: a page with noVNC in it, its WebSockets, and Prometheus metrics.

Other pages in the same browser must not reach the guest.  Whatever shows or does something wants a
token, which the page gets in its address behind `#`, where browsers send it to nobody; and a
browser that says where a WebSocket comes from has to name this server.  The page itself is public
and holds nothing.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import msgspec
from aiohttp import WSCloseCode, hdrs, web

from hesper.display.web.live import LiveSampler
from hesper.display.web.socket import WebSocketChannel

if TYPE_CHECKING:
    from types import TracebackType

    from hesper.display.rfb.service import RfbService
    from hesper.display.web.live import GpuSource

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 6080
TOKEN_BYTES = 18
PROTOCOL = "hesper"
"""The WebSocket subprotocol; the token is offered as another one, `hesper.TOKEN`."""
MAX_MESSAGE = 1 << 16
LIVE_SECONDS = 1.0

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
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
        token: str | None = None,
        gpu: GpuSource | None = None,
        metrics: Callable[[], bytes] | None = None,
    ) -> None:
        """Serve the screens of `service`; port 0 picks a free one.

        `token` is what a viewer has to know; None makes one up.  `gpu` gives the figures that the
        display does not have, `metrics` the text for `/metrics`.  Raises `FileNotFoundError` when
        noVNC was left out of this build, `ValueError` for a token that no address can carry.
        """
        self.token = secrets.token_urlsafe(TOKEN_BYTES) if token is None else token
        if re.fullmatch(r"[A-Za-z0-9_-]+", self.token) is None:
            message = "web token: use letters, digits, '-' and '_'"
            raise ValueError(message)
        self._service = service
        self._host = host
        self._port = port
        self._gpu = gpu
        self._metrics = metrics
        self._sockets: set[web.WebSocketResponse] = set()
        self._runner = web.AppRunner(self._make_app(), access_log=None, shutdown_timeout=2.0)

    @property
    def url(self) -> str:
        """The page's address, with the token."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/#token={self.token}"

    async def __aenter__(self) -> Self:
        """Listen.  Raises `OSError` when the port is taken."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop listening and drop every viewer."""
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
        app.router.add_get(r"/vnc/{index:\d{1,2}}", self._serve_vnc)
        app.router.add_get("/metrics", self._serve_metrics)
        app.on_shutdown.append(self._close_sockets)
        return app

    async def _serve_vnc(self, request: web.Request) -> web.StreamResponse:
        index = int(request.match_info["index"])
        if index >= len(self._service.feeds):
            raise web.HTTPNotFound(text=f"there is no screen {index + 1}\n")
        socket = await self._open(request)
        try:
            name = f"web {request.remote}"
            await self._service.serve(index, WebSocketChannel(socket, name), None)
        finally:
            self._sockets.discard(socket)
        return socket

    async def _serve_live(self, request: web.Request) -> web.StreamResponse:
        socket = await self._open(request)
        watch = asyncio.create_task(_drain(socket))
        sampler = LiveSampler(self._service, self._gpu)
        encoder = msgspec.json.Encoder()
        try:
            while not watch.done():
                await socket.send_str(encoder.encode(sampler.sample()).decode())
                await asyncio.wait([watch], timeout=LIVE_SECONDS)
        except ConnectionError:
            pass  # the page was closed
        finally:
            watch.cancel()
            self._sockets.discard(socket)
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
        return web.Response(body=self._metrics(), content_type="text/plain", charset="utf-8")

    async def _open(self, request: web.Request) -> web.WebSocketResponse:
        """Check who asks, and open the WebSocket."""
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise web.HTTPForbidden(text="another web page may not connect here\n")
        offered = request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, "")
        names = [protocol.strip().partition(".") for protocol in offered.split(",")]
        if not any(name == PROTOCOL and self._knows(token) for name, _, token in names):
            raise web.HTTPForbidden(text="wrong token: use the address that Hesper printed\n")
        socket = web.WebSocketResponse(
            protocols=[PROTOCOL], max_msg_size=MAX_MESSAGE, compress=False, heartbeat=30.0
        )
        await socket.prepare(request)
        self._sockets.add(socket)
        return socket

    def _knows(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.token.encode())

    async def _close_sockets(self, _app: web.Application) -> None:
        for socket in list(self._sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY, message=b"Hesper has stopped")


async def _drain(socket: web.WebSocketResponse) -> None:
    async for _ in socket:
        pass  # the page has nothing to say; this notices that it has gone


def _file_handler(path: Path) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def serve(_request: web.Request) -> web.StreamResponse:
        return web.FileResponse(path)

    return serve


@web.middleware
async def _secure(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        response = await handler(request)
    except web.HTTPException as error:
        error.headers.update(HEADERS)
        raise
    if not response.prepared:
        response.headers.update(HEADERS)
    return response
