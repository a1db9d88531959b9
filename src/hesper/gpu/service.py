"""What a worker process serves a device by: opens the driver ahead, then runs one context."""

from __future__ import annotations

import socket
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec

from hesper.gpu import context_wire as wire
from hesper.gpu.worker import ContextWorker
from hesper.guest import Context
from hesper.isolation import driver
from hesper.isolation.driver import DriverOptions, OpenDriver, open_driver
from hesper.portable import recv_message

if TYPE_CHECKING:
    from hesper.isolation.service import Hearer
    from hesper.trace.recorder import Recorder

preload = driver.preload

RECORDER = "hesper.trace.recorder"
"""Wants packages that a plain installation lacks."""


def prepare(options: dict[str, Any]) -> ContextService:
    """Choose and open the driver.  Raises `StartError`."""
    wanted = msgspec.convert(options, DriverOptions)
    if wanted.recording is not None:
        import_module(RECORDER).prepare(wanted.recording)  # before the sandbox closes
    return ContextService(wanted, open_driver(wanted))


class ContextService:
    """Serves one context (an `isolation.service.Service`)."""

    refusal = True
    """A refusal needs nothing."""

    def __init__(self, options: DriverOptions, host: OpenDriver) -> None:
        """Be ready to serve with `host`."""
        self.options: dict[str, Any] = msgspec.to_builtins(options)
        self.about = host.about
        self._host = host
        self._socket: socket.socket | None = None
        self._stopped = False

    def warm_up(self) -> None:
        """Use the time until the device comes."""
        self._host.warm_up()

    def limit(self, limits: dict[str, int]) -> None:
        """Serve the client within these, see `isolation.service.Service`."""
        self._host = self._host.within(limits)

    def serve(self, sock: socket.socket, hear: Hearer) -> None:
        """Serve the device at `sock`, see `isolation.service.Service`."""
        self._socket = sock
        if self._stopped:
            sock.close()
            return
        with sock:
            message = recv_message(sock)
            if message is None:
                return
            name = message[0][wire.KIND.size :].decode(errors="replace")
            hear.named(name)
            worker = ContextWorker(sock, hear.ended)
            recorder: Recorder | None = None
            if hear.files:
                recorder = import_module(RECORDER).begin(hear.files, name, self._host, "virtio-gpu")
            context = Context(
                self._host.driver,
                name=name,
                on_fatal=worker.fatal,
                limits=self._host.limits,
                profile=self._host.profile,
                patience=self._host.patience,
                cache_key=self._host.cache_key,
                emulates=self._host.emulates,
                window=self._host.window,
                tape=recorder.tape if recorder is not None else None,
            )
            hear.lend(context.engine.ledger)
            hear.share(context.engine.shares)
            try:
                worker.run(context)
            finally:
                context.close()
                if recorder is not None:
                    recorder.close()
                worker.close()

    def stop(self) -> None:
        """Make `serve` return soon."""
        self._stopped = True
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it is over already
