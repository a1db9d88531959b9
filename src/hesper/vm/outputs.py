"""Where a machine's screens are shown: VNC and web servers on a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from hesper.display.rfb import server as vnc
from hesper.display.rfb.service import RfbService
from hesper.display.web import server as web
from hesper.errors import HesperError
from hesper.log import get_logger
from hesper.observe.contexts import ContextLedger
from hesper.observe.metrics import Metrics

if TYPE_CHECKING:
    from types import TracebackType

    from hesper.display.scanout import Display
    from hesper.observe.contexts import ContextSource

_log = get_logger(__name__)


class OutputError(HesperError):
    """An output that was asked for cannot be; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, default: Address) -> Address:
        """Parse `HOST:PORT`, `HOST` or `PORT`.  Raises `ValueError`."""
        host, separator, port = text.rpartition(":")
        if not separator:
            host, port = (default.host, text) if text.isdecimal() else (text, str(default.port))
        if not host or not port.isdecimal() or int(port) > 0xFFFF:
            raise ValueError(f"{text!r} is no address: say HOST:PORT, HOST or PORT")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        """As in an URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


VNC_DEFAULT = Address(vnc.DEFAULT_HOST, vnc.DEFAULT_PORT)
WEB_DEFAULT = Address(web.DEFAULT_HOST, web.DEFAULT_PORT)


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Which outputs there are."""

    vnc: Address | None = VNC_DEFAULT
    vnc_password: str | None = None
    web: Address | None = WEB_DEFAULT
    frames_per_second: float = 60.0


@dataclass
class Outputs:
    """The servers.  A context manager; leaving it drops every viewer."""

    display: Display
    options: OutputOptions
    contexts: ContextSource
    places: list[str] = field(default_factory=list)
    """Where the screens can be seen, for people."""

    def __post_init__(self) -> None:
        """Prepare the thread."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()
        self._stopping: asyncio.Event | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="outputs")

    def __enter__(self) -> Self:
        """Listen.  Raises `OutputError`."""
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            self._thread.join()
            raise OutputError(str(self._error)) from self._error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        if self._stopping is not None:
            self.call(self._stopping.set)
        self._thread.join()

    def call(self, callback: Callable[[], object]) -> None:
        """Run `callback` on the outputs' event loop, soon; not at all if they have ended.

        From any thread, between entering and leaving.
        """
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(callback)

    def spawn(self, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine on the outputs' event loop until it ends or they do."""
        self.call(lambda: self._tasks.add(asyncio.create_task(make())))

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            _log.exception("the outputs have failed")
            self._error = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        async with contextlib.AsyncExitStack() as stack:
            try:
                if len(self.display):
                    await self._open(stack)
            except (OSError, ValueError) as error:
                # Not to be raised through here: a task group on the way out would wrap it.
                self._error = error
                self._stopping.set()
            self._started.set()
            await self._stopping.wait()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _open(self, stack: contextlib.AsyncExitStack) -> None:
        """Start the servers."""
        service = RfbService(self.display, self.options.frames_per_second)
        await stack.enter_async_context(service)
        where = self.options.vnc
        if where is not None:
            viewer = vnc.VncServer(service, where.host, where.port, self.options.vnc_password)
            try:
                await stack.enter_async_context(viewer)
            except OSError as error:
                raise OSError(
                    f"VNC cannot listen on {where}: {error.strerror}; choose another place with"
                    " --vnc HOST:PORT, or --vnc off"
                ) from error
            for index, port in enumerate(viewer.ports):
                self.places.append(f"screen {index + 1}: VNC on {Address(where.host, port)}")
        where = self.options.web
        if where is not None:
            ledger = ContextLedger(self.contexts)
            metrics = Metrics()
            metrics.add_display(service)
            metrics.add_contexts(ledger)
            page = web.WebServer(
                service,
                host=where.host,
                port=where.port,
                gpu=ledger.gpu_figures,
                metrics=metrics.text,
            )
            try:
                await stack.enter_async_context(page)
            except OSError as error:
                raise OSError(
                    f"the web page cannot listen on {where}: {error.strerror}; choose another"
                    " place with --web HOST:PORT, or --web off"
                ) from error
            self.places.append(f"web page: {page.url}")
