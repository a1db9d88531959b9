"""Serving metrics by HTTP, for Prometheus: on a thread of its own, at an address of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Self

from aiohttp import hdrs, web

from hesper.display.access.listener import Bounds, Listener
from hesper.display.access.places import (
    Address,
    Place,
    UnixPath,
    is_asked_here,
    is_local,
    listen_on,
    parse_place,
)
from hesper.errors import HesperError
from hesper.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from hesper.display.access.listener import Connection

DEFAULT = Address("127.0.0.1", 9464)
"""Where metrics are served if only a part of the address is said."""
PATH = "/metrics"
BOUNDS = Bounds(waiting=16, waiting_each=16, seconds=30.0, received=1 << 16)
"""Whoever asks is a stranger: it gets so long, and asks anew."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus's text format."""

_log = get_logger(__name__)


class ExporterError(HesperError):
    """Metrics cannot be served; the text says why and what to do."""


def parse_address(text: str) -> Place:
    """Parse `HOST:PORT`, a part of it, or `unix:PATH`.  Raises `ValueError`."""
    return parse_place(text, DEFAULT)


class Exporter:
    """Serves metrics.  A context manager; entering raises `ExporterError`."""

    def __init__(self, where: Place, text: Callable[[], bytes]) -> None:
        """Serve at `where` what `text` returns, which may take a second; on any thread."""
        self.where = where
        """Where they are; with the port that was chosen for 0."""
        self._text = text
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._started = threading.Event()
        self._error: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._is_local = True

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            self._thread.join()
            raise ExporterError(
                f"--metrics {self.where}: {self._error}; choose another place: HOST:PORT or"
                " unix:PATH"
            ) from self._error
        _log.info("metrics are served", at=self.url)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        if self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    @property
    def url(self) -> str:
        """For people."""
        if isinstance(self.where, UnixPath):
            return f"http://localhost{PATH} through {self.where}"
        return f"http://{self.where}{PATH}"

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            self._error = error
            if self._started.is_set():
                _log.exception("metrics are served no more")
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._is_local = local = is_local(self.where)
        runner = web.ServerRunner(
            web.Server(
                self._handle,
                access_log=None,
                keepalive_timeout=15.0,
                lingering_time=1.0,
                logger=_quiet_logger(),
            ),
            handle_signals=False,
        )
        await runner.setup()
        server = runner.server
        if server is None:
            raise RuntimeError("the server has not been set up")

        def accept(_: Connection) -> asyncio.Protocol:
            return server()

        sockets = listen_on(self.where, local=local)
        listener = Listener(sockets, accept, name=f"metrics at {self.where}", bounds=BOUNDS)
        listener.start()
        if isinstance(self.where, Address):
            self.where = Address(self.where.host, listener.port)
        if not local:
            _log.warning(
                "metrics name programs, and whoever reaches this address reads them",
                at=str(self.where),
            )
        self._started.set()
        await self._stopping.wait()
        listener.close()
        await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if not self._is_asked_here(request.headers.get(hdrs.HOST)):
            return web.Response(status=403, text=f"ask for {self.where}, or for localhost\n")
        if request.path != PATH:
            return web.Response(status=404, text=f"metrics are at {PATH}\n")
        if request.method not in {hdrs.METH_GET, hdrs.METH_HEAD}:
            return web.Response(status=405, text="only GET\n")
        try:
            text = await asyncio.to_thread(self._text)
        except Exception:
            _log.exception("no metrics")
            return web.Response(status=500, text="Hesper's log says more\n")
        return web.Response(body=text, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE})

    def _is_asked_here(self, host: str | None) -> bool:
        """Whether a request of that `Host` is no other web page's; every browser says it."""
        if host is None or not self._is_local or not isinstance(self.where, Address):
            return True
        return is_asked_here(self.where, host)


class _ToLog(logging.Handler):
    """Takes what aiohttp says of requests that are none."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        _log.debug("bad request", reason=record.getMessage())


def _quiet_logger() -> logging.Logger:
    logger = logging.Logger(__name__)
    logger.addHandler(_ToLog())
    return logger
