"""How a worker serves a vtest client: opens the host's driver ahead, then runs a `Session`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec

from hesper.guest import Context, ResourceError, capset
from hesper.guest.watching import ContextWatch
from hesper.isolation import driver
from hesper.isolation.driver import DriverOptions, OpenDriver, open_driver
from hesper.kernel.errors import ProtocolError
from hesper.log import get_logger
from hesper.vtest.session import Session

if TYPE_CHECKING:
    from hesper.isolation.service import Hearer
    from hesper.trace.recorder import Recorder

_log = get_logger(__name__)


class Options(DriverOptions):
    """What a worker has to know before it serves."""

    handshake_timeout: float | None = None
    """Seconds."""
    silence_timeout: float | None = None
    """Seconds."""
    sample: int = 0
    """Microseconds between looks at what the client's streams are doing; 0: none."""


preload = driver.preload

RECORDER = "hesper.trace.recorder"
"""Wants packages that a plain installation lacks."""


def prepare(options: dict[str, Any]) -> VtestService:
    """Open the driver.  Raises `StartError`."""
    wanted = msgspec.convert(options, Options)
    if wanted.recording is not None:
        import_module(RECORDER).prepare(wanted.recording)  # before the sandbox closes
    return VtestService(wanted, open_driver(wanted))


class VtestService:
    """Serves one vtest client with one guest context."""

    refusals: tuple[type[Exception], ...] = (ProtocolError, ResourceError)

    def __init__(self, options: Options, host: OpenDriver) -> None:
        """Be ready to serve with `host`."""
        self.options: dict[str, Any] = msgspec.to_builtins(options)
        self.about = host.about
        self.capset = capset()
        self.refusal = self.capset.hex()
        self.handshake_timeout = options.handshake_timeout
        self.silence_timeout = options.silence_timeout
        self._host = host
        self._session: Session | None = None
        self._stopped = False
        self._hear: Hearer | None = None
        self._sample_ns = options.sample * 1000
        self._sampler: threading.Thread | None = None
        self._recorder: Recorder | None = None

    def warm_up(self) -> None:
        """Use the time until a client comes."""
        self._host.warm_up()

    def limit(self, limits: dict[str, int]) -> None:
        """Serve the client within these, see `isolation.service.Service`."""
        self._host = self._host.within(limits)

    def serve(self, sock: socket.socket, hear: Hearer) -> None:
        """Serve the client at `sock`, see `isolation.service.Service`."""
        self._hear = hear
        self._session = Session(sock, self)
        if self._stopped:
            self._session.stop()
        try:
            self._session.run()
        finally:
            if self._sampler is not None:
                self._sampler.join()
            if self._recorder is not None:
                self._recorder.close()

    def stop(self) -> None:
        """Make `serve` return soon."""
        self._stopped = True
        if self._session is not None:
            self._session.stop()

    def create_context(self, name: str, on_fatal: Callable[[str], None]) -> Context:
        """Make the client's context."""
        if self._hear is not None and self._hear.files:
            self._recorder = import_module(RECORDER).begin(
                self._hear.files, name, self._host, "vtest"
            )
        context = Context(
            self._host.driver,
            name=name,
            on_fatal=on_fatal,
            limits=self._host.limits,
            profile=self._host.profile,
            patience=self._host.patience,
            cache_key=self._host.cache_key,
            emulates=self._host.emulates,
            tape=self._recorder.tape if self._recorder is not None else None,
        )
        if self._hear is not None:
            self._hear.lend(context.engine.ledger)
            self._hear.show(ContextWatch(context))
            self._hear.share(context.engine.shares)
        if self._sample_ns:
            self._sampler = threading.Thread(target=self._sample, args=[context], name="sampler")
            self._sampler.start()
        return context

    def _sample(self, context: Context) -> None:
        """Sample until the context is closed, then log what was seen."""
        _log.info("sampled", **context.engine.sample(self._sample_ns))

    def named(self, name: str) -> None:
        """Tell the supervisor what the client calls itself."""
        if self._hear is not None:
            self._hear.named(name)

    def ended(self, reason: str) -> None:
        """Tell the supervisor why the client is to be ended."""
        if self._hear is not None:
            self._hear.ended(reason)

    def no_room(self, size: int, error: Exception) -> None:
        """Log that there is no memory for a resource of so many bytes."""
        _log.warning("no room for a resource", size=size, reason=str(error))
