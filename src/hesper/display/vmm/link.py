"""Messages on the socket of a VMM's display, without waiting for the VMM.

QEMU reads a message that has begun to its end, and does nothing else meanwhile.  So whatever is
sent is there in full before its first byte goes.
"""

from __future__ import annotations

import collections
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from hesper.display.vmm.wire import HEADER, REPLY

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from hesper.event_loop import EventLoop

Answered: TypeAlias = Callable[[bytes], None]
"""Takes an answer's payload."""


class LinkError(Exception):
    """The VMM does not keep to the protocol."""


class LinkClosedError(LinkError):
    """The VMM has closed its display, as it does when the guest stops or starts over."""


class Link:
    """Sends messages and takes their answers, which come in order.  For its loop's thread."""

    def __init__(
        self, sock: socket.socket, loop: EventLoop, gone: Callable[[LinkError], None]
    ) -> None:
        """Take over `sock`.  `gone` is called once, when nothing can be sent any more."""
        sock.setblocking(False)
        self._socket = sock
        self._loop = loop
        self._gone = gone
        self._open = True
        self._waiting: collections.deque[Iterator[ReadableBuffer]] = collections.deque()
        self._unsent = memoryview(b"")
        self._answers: collections.deque[tuple[int, int, Answered]] = collections.deque()
        """Answers that are to come: to which request, of what size, for whom."""
        self._data = bytearray()
        loop.add_reader(sock.fileno(), self._receive)

    def send(self, pieces: Iterable[ReadableBuffer]) -> None:
        """Send messages in pieces, each of which is asked for when those before it have gone."""
        if self._open:
            self._waiting.append(iter(pieces))
            self._send()

    def ask(self, request: int, size: int, answered: Answered) -> None:
        """Send a request without a payload; its answer has `size` bytes of it."""
        if self._open:
            self._answers.append((request, size, answered))
            self.send([HEADER.pack(request, 0, 0)])

    def _send(self) -> None:
        try:
            while self._next():
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(_from_system(error))
            return
        is_left = bool(self._unsent) or bool(self._waiting)
        self._loop.set_writer(self._socket.fileno(), self._send if is_left else None)

    def _next(self) -> bool:
        """Whether there is something to send now."""
        while not self._unsent and self._waiting:
            piece = next(self._waiting[0], None)
            if piece is None:
                self._waiting.popleft()
            else:
                self._unsent = memoryview(piece).cast("B")
        return bool(self._unsent)

    def _receive(self) -> None:
        try:
            while self._open and self._fill(HEADER.size):
                request, flags, size = HEADER.unpack_from(self._data)
                if not self._answers or (request, flags, size) != (
                    self._answers[0][0],
                    REPLY,
                    self._answers[0][1],
                ):
                    raise LinkError(
                        f"not an answer that was asked for: request {request}, flags {flags:#x},"
                        f" size {size}"
                    )
                if not self._fill(HEADER.size + size):
                    return
                payload = bytes(self._data[HEADER.size :])
                self._data.clear()
                self._answers.popleft()[2](payload)
        except LinkError as error:
            self._fail(error)
        except OSError as error:
            self._fail(_from_system(error))

    def _fill(self, size: int) -> bool:
        """Read until `size` bytes of the answer are there; False when they are not yet."""
        while len(self._data) < size:
            try:
                chunk = self._socket.recv(size - len(self._data))
            except BlockingIOError:
                return False
            if not chunk:
                raise LinkClosedError("closed")
            self._data += chunk
        return True

    def _fail(self, error: LinkError) -> None:
        if self._open:
            self.close()
            self._gone(error)

    def close(self) -> None:
        """Close the socket."""
        if self._open:
            self._open = False
            self._waiting.clear()
            self._loop.remove(self._socket.fileno())
            self._socket.close()


def _from_system(error: OSError) -> LinkError:
    if isinstance(error, ConnectionError):
        return LinkClosedError("closed")
    return LinkError(error.strerror)
