"""Lets front-ends in, one after the other: a device belongs to one VM at a time."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from hesper.log import get_logger
from hesper.vhost.backend import Backend

if TYPE_CHECKING:
    from hesper.event_loop import EventLoop
    from hesper.vhost.device import Device

_log = get_logger(__name__)


class DeviceServer:
    """Serves a device on a listening socket.  For the loop's thread; `close` ends it."""

    def __init__(self, listener: socket.socket, device: Device, loop: EventLoop) -> None:
        """Listen on `listener`, which stays the caller's."""
        self._listener = listener
        self._device = device
        self._loop = loop
        self.backend: Backend | None = None
        """The front-end that is connected."""
        listener.setblocking(False)
        loop.add_reader(listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            # It has gone again, or there are too many descriptors: both end by themselves.
            _log.warning("front-end not accepted", reason=str(error))
            return
        if self.backend is not None:
            _log.error("a second front-end is turned away: the device serves one VM at a time")
            sock.close()
            return
        _log.info("front-end connected")
        self.backend = Backend(sock, self._device, self._loop, self._closed)

    def _closed(self) -> None:
        self.backend = None

    def close(self) -> None:
        """Stop listening and end the connection."""
        self._loop.remove(self._listener.fileno())
        if self.backend is not None:
            self.backend.close()
