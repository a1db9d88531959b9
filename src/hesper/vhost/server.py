"""Lets front-ends in, one after the other: a device belongs to one VM at a time."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING

from hesper.log import get_logger
from hesper.portable import accept, hang_up
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
        self._turned_away = 0
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        """A descriptor to do without where there are no others; -1: not even that one."""
        listener.setblocking(False)
        loop.add_reader(listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            sock = accept(self._listener)
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE}:
                # Left in the queue, it would be news again at once, and for ever.
                self._drop_one()
                self._turn_away("there are too many descriptors")
            return
        if self.backend is not None:
            hang_up(sock)
            self._turn_away("the device serves one VM at a time")
            return
        _log.info("front-end connected")
        self.backend = Backend(sock, self._device, self._loop, self._closed)

    def _turn_away(self, reason: str) -> None:
        """Log the 1st, 2nd, 4th, 8th, ... that is turned away: anybody can connect often."""
        self._turned_away += 1
        times = self._turned_away
        if times & (times - 1) == 0:
            _log.error("a front-end is turned away", reason=reason, times=times)

    def _drop_one(self) -> None:
        """Let one in with the spare descriptor, and close it."""
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        with contextlib.suppress(OSError):
            hang_up(accept(self._listener))
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _closed(self) -> None:
        self.backend = None

    def close(self) -> None:
        """Stop listening and end the connection."""
        self._loop.remove(self._listener.fileno())
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        if self.backend is not None:
            self.backend.close()
