"""Where a machine's screens are shown: VNC and web servers on a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import socket
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hesper.display.access.places import ANY_HOST, Address, Place, UnixPath, is_local, parse_place
from hesper.display.access.tls import Certificate, load_certificate
from hesper.display.rfb import server as vnc
from hesper.display.rfb.service import RfbService
from hesper.display.web import server as web
from hesper.errors import HesperError
from hesper.log import get_logger
from hesper.observe.contexts import ContextLedger
from hesper.observe.metrics import Metrics

if TYPE_CHECKING:
    from types import TracebackType

    from hesper.display.clipboard import Clipboard
    from hesper.display.scanout import Display
    from hesper.display.sound import SoundSource
    from hesper.observe.contexts import ContextSource

_log = get_logger(__name__)


__all__ = ["Address", "OutputError", "OutputOptions", "Outputs", "UnixPath", "parse_place"]


class OutputError(HesperError):
    """An output that was asked for cannot be; the text says why and what to do."""


VNC_DEFAULT = Address(vnc.DEFAULT_HOST, vnc.DEFAULT_PORT)
WEB_DEFAULT = Address(web.DEFAULT_HOST, web.DEFAULT_PORT)


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Which outputs there are."""

    vnc: Place | None = VNC_DEFAULT
    """None: no VNC.  On a `UnixPath` it wants no password unless one is given."""
    vnc_password: str | None = None
    """None: one is made up."""
    vnc_open: bool = False
    """Let every user of this machine connect by VNC, without a password."""
    web: Place | None = WEB_DEFAULT
    """None: no web page."""
    certificate: tuple[Path, Path | None] | None = None
    """PEM files with a certificate and its private key (None: in the first), for places that
    others can reach, which have TLS always.  None: one is made, and kept."""
    clipboard: bool = True
    """Whether viewers share theirs."""
    frames_per_second: float = 60.0


@dataclass
class Outputs:
    """The servers.  A context manager; leaving it drops every viewer."""

    display: Display
    options: OutputOptions
    contexts: ContextSource
    sound: SoundSource | None = None
    """What the guest plays, for the web page."""
    places: list[str] = field(default_factory=list)
    """Where the screens can be seen, for people."""

    def __post_init__(self) -> None:
        """Prepare the thread."""
        self.vnc_password: str | None = None
        """What VNC asks for; None while it asks for nothing."""
        self.clipboard: Clipboard | None = None
        """What viewers and guest copy, for use on the outputs' event loop; None without screens."""
        self._certificate: Certificate | None = None
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
        self.call(lambda: self._keep(asyncio.create_task(make())))

    def _keep(self, task: asyncio.Task[None]) -> None:
        """Keep a task until it ends; a guest can have one begun each time that it starts over."""
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("what goes with the screens has failed", reason=repr(error))

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
        self._loop.set_exception_handler(_complain)
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        async with contextlib.AsyncExitStack() as stack:
            try:
                if len(self.display):
                    await self._open(stack)
            except (OSError, ValueError, HesperError) as error:
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
        self.clipboard = service.clipboard
        self.clipboard.is_on = self.options.clipboard
        if self.options.vnc is not None:
            await self._open_vnc(stack, service, self.options.vnc)
        if self.options.web is not None:
            await self._open_web(stack, service, self.options.web)

    async def _open_vnc(
        self, stack: contextlib.AsyncExitStack, service: RfbService, where: Place
    ) -> None:
        certificate = self._certificate_for(where)
        viewer = vnc.VncServer(
            service,
            **_keywords(where),
            password=self.options.vnc_password,
            is_open=self.options.vnc_open,
            certificate=certificate,
        )
        try:
            await stack.enter_async_context(viewer)
        except OSError as error:
            raise OSError(
                f"VNC cannot listen on {where}: {error.strerror}; choose another place with"
                " --vnc HOST:PORT, or --vnc off"
            ) from error
        self.vnc_password = viewer.password
        _log.info("VNC is served", at=str(where), password=viewer.password is not None)
        for index, place in enumerate(viewer.places):
            text = f"screen {index + 1}: VNC on {place}"
            # One that was given is not repeated.
            made_up = viewer.password if self.options.vnc_password is None else None
            if made_up is not None:
                text += f", password {made_up}"
            line = _viewer_line(place, made_up, is_secret=certificate is not None)
            self.places.append(f"{text}: {line}")

    async def _open_web(
        self, stack: contextlib.AsyncExitStack, service: RfbService, where: Place
    ) -> None:
        ledger = ContextLedger(self.contexts)
        metrics = Metrics()
        metrics.add_display(service)
        metrics.add_contexts(ledger)
        page = web.WebServer(
            service,
            **_keywords(where),
            certificate=self._certificate_for(where),
            gpu=ledger.gpu_figures,
            metrics=metrics.text,
        )
        page.sound = self.sound
        try:
            await stack.enter_async_context(page)
        except OSError as error:
            raise OSError(
                f"the web page cannot listen on {where}: {error.strerror}; choose another"
                " place with --web HOST:PORT, or --web off"
            ) from error
        _log.info("the web page is served", at=str(where))
        through = f" through {where}" if isinstance(where, UnixPath) else ""
        self.places.append(f"web page: {page.url}{through}")

    def _certificate_for(self, where: Place) -> Certificate | None:
        """What a server at `where` needs.  Raises `OSError`, `ValueError` and `HesperError`."""
        if is_local(where):
            return None
        if self._certificate is None:
            if self.options.certificate is not None:
                self._certificate = load_certificate(*self.options.certificate)
            else:
                from hesper.display.access.self_signed import own_certificate

                self._certificate = own_certificate()
            _log.info(
                "viewers on other machines will be shown this certificate",
                sha256=self._certificate.fingerprint,
                pin_sha256=self._certificate.pin,
                path=str(self._certificate.path),
            )
        return self._certificate


def _complain(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log in one line what asyncio has nobody else to tell."""
    reason = repr(context["exception"]) if "exception" in context else ""
    _log.error("screens: something went wrong", what=context["message"], reason=reason)


def _keywords(where: Place) -> dict[str, Any]:
    """`where`, as servers take it."""
    if isinstance(where, UnixPath):
        return {"path": where.path}
    return {"host": where.host, "port": where.port}


def _viewer_line(place: Place, password: str | None, *, is_secret: bool) -> str:
    """What one types to see a screen, with TigerVNC's viewer."""
    if isinstance(place, UnixPath):
        words = ["vncviewer", str(place.path)]
    else:
        host = socket.gethostname() if place.host in ANY_HOST else place.host
        host = f"[{host}]" if ":" in host else host
        # Were viewers to take anything else, somebody in between could offer it to them.
        words = ["vncviewer", *(["-SecurityTypes=X509Vnc"] if is_secret else [])]
        words.append(f"{host}::{place.port}")
    line = shlex.join(words)
    return line if password is None else f"VNC_PASSWORD={password} {line}"
