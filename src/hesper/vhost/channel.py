"""The back-end's own channel to the VMM: maps into shared memory regions, config changes.

The VMM answers every request in order, but only while its main loop runs; it may be waiting for
this device at that moment.  So nothing here waits: an answer is a callback of the event loop.

QEMU 11.1 crashes when it reads a request while the device is stopped: until the guest's driver is
there, when the guest is reset, and while the machine is paused.  So the channel is suspended then.
And since a stop may overtake a request that is on its way, a request begins with an announcement,
its first bytes.  QEMU reads them and waits for the rest, and as it does so nothing can stop the
device: that is the moment to send the rest.  Has the device been stopped before, the rest makes a
message out of it that QEMU does not know and throws away.  The socket tells of that moment by
becoming writable.  On Linux its buffer is so small that the announcement fills it; elsewhere
(macOS) a socket can be told not to be writable before all of its buffer is free.
"""

from __future__ import annotations

import collections
import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hesper.log import get_logger
from hesper.vhost.stream import MessageStream
from hesper.vhost.wire import (
    HEADER,
    MMAP,
    SHMEM_MAP_WRITABLE,
    U64,
    BackendRequest,
    Flag,
)

if TYPE_CHECKING:
    from hesper.event_loop import EventLoop

_log = get_logger(__name__)

SEND_BUFFER = 2304
"""Bytes; Linux doubles them, and gives no socket less."""
ANNOUNCEMENT = 3
"""Bytes, each sent by itself.  Linux counts some 700 bytes for every one, and calls a socket
writable as long as no more than a quarter of its buffer is taken."""
UNKNOWN = HEADER.pack(0xFF000000, Flag.VERSION, 0)
"""Its end makes an announced message one that no VMM knows; no answer is wanted."""

Answered = Callable[[bool], None]
"""Told whether the VMM has done it."""


@dataclass(slots=True, eq=False)
class _Order:
    """A request on its way."""

    request: BackendRequest
    payload: bytes
    fd: int
    """To go with it; -1 for none."""
    answered: Answered | None
    """None for a request without an answer."""
    announced: int = 0
    """Bytes that have been sent."""
    dropped: bool = False

    @property
    def fds(self) -> tuple[int, ...]:
        """What goes with the first byte."""
        return () if self.fd < 0 or self.announced else (self.fd,)

    @property
    def message(self) -> bytes:
        """All bytes."""
        flags = Flag.VERSION if self.answered is None else Flag.VERSION | Flag.NEED_REPLY
        return HEADER.pack(self.request, flags, len(self.payload)) + self.payload

    def drop(self) -> None:
        """Tell whoever waits that it will not be done."""
        self.dropped = True
        if self.answered is not None:
            self.answered(False)


class BackendChannel:
    """Requests to the VMM, one at a time.  For the loop's thread."""

    def __init__(self, sock: socket.socket, loop: EventLoop) -> None:
        """Take over the socket of `SET_BACKEND_REQ_FD`."""
        self.closed = False
        self._suspended = True
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        with contextlib.suppress(OSError):  # Linux cannot, and need not
            size = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDLOWAT, size)
        self._stream = MessageStream(sock)
        self._loop = loop
        self._waiting: collections.deque[_Order] = collections.deque()
        self._announced: _Order | None = None
        self._unanswered: _Order | None = None
        loop.add_reader(self._stream.fileno(), self._receive)

    def suspend(self) -> None:
        """Send nothing from now on: the device stops."""
        self._suspended = True

    def resume(self) -> None:
        """Send what has waited: the device has started."""
        self._suspended = False
        self._send()

    def discard(self) -> None:
        """Drop what is not sent yet; it is told no."""
        orders = [*self._waiting]
        if self._announced is not None and not self._announced.dropped:
            orders.insert(0, self._announced)
        self._waiting.clear()
        for order in orders:
            order.drop()

    def config_changed(self) -> None:
        """Make the guest read its config space again."""
        if not any(order.answered is None for order in self._waiting):
            self._request(BackendRequest.CONFIG_CHANGE_MSG, b"", -1, None)

    def map(self, region: int, fd: int, offset: int, length: int, answered: Answered) -> None:
        """Show the first `length` bytes of `fd` to the guest at `offset` of a region.

        `fd` stays the caller's, and open until the answer.  The VMM refuses what overlaps another
        map or leaves the region.
        """
        payload = MMAP.pack(region, 0, offset, length, SHMEM_MAP_WRITABLE)
        self._request(BackendRequest.SHMEM_MAP, payload, fd, answered)

    def unmap(self, region: int, offset: int, length: int, answered: Answered) -> None:
        """Take away exactly what a `map` has shown."""
        payload = MMAP.pack(region, 0, offset, length, 0)
        self._request(BackendRequest.SHMEM_UNMAP, payload, -1, answered)

    def _request(
        self, request: BackendRequest, payload: bytes, fd: int, answered: Answered | None
    ) -> None:
        if self.closed:
            if answered is not None:
                answered(False)
            return
        self._waiting.append(_Order(request, payload, fd, answered))
        self._send()

    def _send(self) -> None:
        """Announce the next request, if it is its turn."""
        if self._suspended or self._announced or self._unanswered or not self._waiting:
            return
        order = self._announced = self._waiting.popleft()
        order.announced = 0
        with self._failing():
            for byte in order.message[:ANNOUNCEMENT]:
                if not self._stream.write_byte(bytes([byte]), order.fds):
                    break
                order.announced += 1
            self._loop.set_writer(self._stream.fileno(), self._finish)

    def _finish(self) -> None:
        """Send the rest of what was announced: the VMM is reading it."""
        order, self._announced = self._announced, None
        self._loop.set_writer(self._stream.fileno(), None)
        if order is None:
            return
        with self._failing():
            if self._suspended or order.dropped:
                if order.announced:
                    self._stream.write(UNKNOWN[order.announced :])
                if not order.dropped:
                    self._waiting.appendleft(order)
            else:
                self._stream.write(order.message[order.announced :], order.fds)
                self._unanswered = order if order.answered is not None else None
            self._send()

    def _receive(self) -> None:
        with self._failing():
            while not self.closed and (message := self._stream.receive()) is not None:
                message.close()
                order, self._unanswered = self._unanswered, None
                if len(message.payload) != U64.size or order is None or order.answered is None:
                    raise ConnectionError(f"unexpected answer to request {message.request}")
                order.answered(U64.unpack(message.payload)[0] == 0)
                self._send()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Give up when the VMM does not listen.  It has ended, then; the main socket says so."""
        try:
            yield
        except OSError as error:
            _log.info("the VMM takes no more requests", reason=str(error))
            self.close()

    def close(self) -> None:
        """Close it; whatever waits for an answer is told no."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove(self._stream.fileno())
        self._stream.close()
        unanswered, self._unanswered = self._unanswered, None
        if unanswered is not None:
            unanswered.drop()
        self.discard()
        self._announced = None
