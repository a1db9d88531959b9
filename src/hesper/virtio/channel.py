"""The back-end's own channel to the VMM: maps into shared memory regions, config changes.

The VMM answers every request in order, but only while its main loop runs; it may be waiting for
this device at that moment.  So nothing here waits: an answer is a callback of the event loop.
"""

from __future__ import annotations

import collections
import contextlib
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from hesper.log import get_logger
from hesper.virtio.stream import MessageStream
from hesper.virtio.vhost_wire import MMAP, SHMEM_MAP_WRITABLE, U64, BackendRequest, Flag

if TYPE_CHECKING:
    from hesper.virtio.loop import EventLoop

_log = get_logger(__name__)

MAX_UNANSWERED = 64
"""More requests wait here, so that sending never fills the socket."""

Answered = Callable[[bool], None]
"""Told whether the VMM has done it."""


class BackendChannel:
    """Requests to the VMM.  For the loop's thread."""

    def __init__(self, sock: socket.socket, loop: EventLoop) -> None:
        """Take over the socket of `SET_BACKEND_REQ_FD`."""
        self.closed = False
        self._stream = MessageStream(sock)
        self._loop = loop
        self._waiting: collections.deque[tuple[BackendRequest, bytes, int, Answered]] = (
            collections.deque()
        )
        self._unanswered: collections.deque[Answered] = collections.deque()
        loop.add_reader(self._stream.fileno(), self._receive)

    def config_changed(self) -> None:
        """Make the guest read its config space again."""
        if not self.closed:
            with contextlib.suppress(OSError):
                self._stream.send(BackendRequest.CONFIG_CHANGE_MSG, 0, b"")

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
        self, request: BackendRequest, payload: bytes, fd: int, answered: Answered
    ) -> None:
        self._waiting.append((request, payload, fd, answered))
        self._send()

    def _send(self) -> None:
        while not self.closed and self._waiting and len(self._unanswered) < MAX_UNANSWERED:
            request, payload, fd, answered = self._waiting.popleft()
            self._unanswered.append(answered)
            try:
                self._stream.send(request, Flag.NEED_REPLY, payload, () if fd < 0 else (fd,))
            except OSError as error:
                self._fail(error)

    def _receive(self) -> None:
        try:
            while not self.closed and (message := self._stream.receive()) is not None:
                message.close()
                if len(message.payload) != U64.size or not self._unanswered:
                    raise ConnectionError(f"unexpected answer to request {message.request}")
                self._unanswered.popleft()(U64.unpack(message.payload)[0] == 0)
        except OSError as error:
            self._fail(error)
        self._send()

    def _fail(self, error: OSError) -> None:
        """Give up.  As a rule the VMM has ended, and the main socket will say so."""
        _log.info("the VMM takes no more requests", reason=str(error))
        self.close()

    def close(self) -> None:
        """Close it; whatever waits for an answer is told no."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove(self._stream.fileno())
        self._stream.close()
        orphans = [*self._unanswered, *(answered for _, _, _, answered in self._waiting)]
        self._unanswered.clear()
        self._waiting.clear()
        for answered in orphans:
            answered(False)
