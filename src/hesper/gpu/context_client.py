"""The device's side of one guest context, which lives in a worker process.

Nothing here waits for the worker, which may be slow, stuck, dead or hostile.  Nothing that it says
is believed: it may say what was asked for, once, and everything else ends it.
"""

from __future__ import annotations

import collections
import errno
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from hesper import ancillary
from hesper.figures import Figures, no_less
from hesper.gpu import context_wire as wire
from hesper.gpu.context_wire import MAX_UP, Down, Up
from hesper.portable import FRAME, close_apart, hang_up
from hesper.protocol.virtgpu import MAP_CACHES

if TYPE_CHECKING:
    from hesper.event_loop import EventLoop
    from hesper.gpu.descriptors import Descriptor

_MAX_FDS = 1
_CHUNK = 2048
"""Bytes that are read before other workers have a turn: a hundred fences, 0.2 ms."""
MOST_WAITING = 4096
"""Messages that may wait for a worker which does not listen, besides what its socket holds.

A driver waits for an answer to most, and has 256 places in its queue; those that it need not wait
for are about resources.
"""
MOST_WAITING_BYTES = 16 << 20


class NewBlob(NamedTuple):
    """A worker's answer to `create_blob`."""

    response: int
    """`Response` of virtio-gpu."""
    map_info: int
    fd: int
    """Belongs to whoever is told; -1 when there is none."""


class _Outgoing(NamedTuple):
    data: memoryview
    passed: Descriptor | None
    """Held until it is sent."""
    sent: Callable[[], None] | None


class ContextClient:
    """Sends a context's commands to its worker, and hears what becomes of them.

    Life: made with a connected socket, used, `close`d by the owner or by the loss of the worker,
    of which `lost` tells.  For the loop's thread.
    """

    def __init__(
        self, sock: socket.socket, loop: EventLoop, name: str, lost: Callable[[str], None]
    ) -> None:
        """`lost` is called once with the reason when the worker is gone, not after `close`."""
        self._socket = sock
        self._loop = loop
        self._lost = lost
        self._open = True
        self.submitted = False
        """Whether there were any commands; the first makes a ring."""
        self.ended_here = False
        """Whether it was ended because of what the worker, or the guest, did."""
        self._outgoing: collections.deque[_Outgoing] = collections.deque()
        self._waiting_bytes = 0
        self._incoming = bytearray()
        self._fds: list[int] = []
        self._serial = 0
        self._blobs: dict[int, Callable[[NewBlob | None], None]] = {}
        self._fences: dict[int, Callable[[], None]] = {}
        self._figures_asked = False
        self.figures = Figures()
        """As the worker last said."""
        self._handlers: dict[int, Callable[[bytes, int], bool]] = {
            Up.RETIRED: self._retired,
            Up.BLOB: self._blob,
            Up.FIGURES: self._take_figures,
            Up.FATAL: self._fatal,
        }
        """Each returns whether it has taken the descriptor."""
        loop.add_reader(sock.fileno(), self._receive)
        self._send(Down.NAME, name.encode())

    def submit(self, commands: bytes | memoryview, sent: Callable[[], None] | None) -> None:
        """Run `commands`, at most `MAX_SUBMIT` bytes; `sent` is called when the worker has room."""
        self.submitted = True
        self._send(Down.SUBMIT, commands, sent=sent)

    def create_blob(
        self,
        resource_id: int,
        flags: int,
        blob_id: int,
        size: int,
        done: Callable[[NewBlob | None], None],
    ) -> None:
        """Make a blob and call `done`; with None when the context is lost."""
        self._serial += 1
        self._blobs[self._serial & 0xFFFFFFFF] = done
        self._send(
            Down.CREATE_BLOB,
            wire.CREATE_BLOB.pack(self._serial & 0xFFFFFFFF, resource_id, flags, blob_id, size),
        )

    def import_resource(self, resource_id: int, descriptor: Descriptor, size: int) -> None:
        """Make a resource known to the context."""
        self._send(Down.IMPORT, wire.IMPORT.pack(resource_id, size), descriptor)

    def destroy_resource(self, resource_id: int) -> None:
        """Make the context forget a resource."""
        self._send(Down.DESTROY, wire.DESTROY.pack(resource_id))

    def fence(self, ring_idx: int, retired: Callable[[], None]) -> None:
        """Call `retired` when timeline `ring_idx` has done what it has, or the context is lost."""
        self._serial += 1
        self._fences[self._serial] = retired
        self._send(Down.FENCE, wire.FENCE.pack(ring_idx, self._serial))

    def ask_figures(self, seconds: float) -> None:
        """Have `figures` brought up to date; soon.  seconds: see `wire.FIGURES`."""
        if not self._figures_asked:
            self._figures_asked = True
            self._send(Down.FIGURES, wire.FIGURES.pack(seconds))

    def trace(self, memory: Descriptor, seconds: float) -> None:
        """Have what happens for so long noted in shared memory."""
        self._send(Down.TRACE, wire.TRACE.pack(seconds), memory)

    def close(self, reason: str = "") -> None:
        """End the context.  What waits for it is told; `lost` too, if there is a reason."""
        if not self._open:
            return
        self._open = False
        self._loop.remove(self._socket.fileno())
        hang_up(self._socket)
        while self._fds:
            close_apart(self._fds.pop())
        if reason:
            self._lost(reason)
        outgoing, self._outgoing = self._outgoing, collections.deque()
        for message in outgoing:
            _done_with(message)
        blobs, self._blobs = self._blobs, {}
        for done in blobs.values():
            done(None)
        fences, self._fences = self._fences, {}
        for retired in fences.values():
            retired()

    def end(self, reason: str) -> None:
        """End a context whose worker, or whose guest, does what it may not."""
        self.ended_here = True
        self.close(reason)

    # Sending.

    def _send(
        self,
        kind: Down,
        payload: bytes | memoryview,
        passed: Descriptor | None = None,
        sent: Callable[[], None] | None = None,
    ) -> None:
        if not self._open:
            if sent is not None:
                sent()
            return
        frame = FRAME.pack(wire.KIND.size + len(payload), passed is not None) + wire.KIND.pack(kind)
        data = memoryview(frame + bytes(payload))
        held = passed.hold() if passed is not None else None
        self._outgoing.append(_Outgoing(data, held, sent))
        self._waiting_bytes += len(data)
        if len(self._outgoing) == 1:
            self._flush()
        elif len(self._outgoing) > MOST_WAITING or self._waiting_bytes > MOST_WAITING_BYTES:
            self.end(
                f"its worker does not listen: {len(self._outgoing)} messages,"
                f" {self._waiting_bytes} bytes wait for it"
            )

    def _flush(self) -> None:
        """Send what there is room for."""
        while self._open and self._outgoing:
            message = self._outgoing[0]
            fds = () if message.passed is None else (message.passed.fd,)
            try:
                count = ancillary.send(self._socket, message.data, fds, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._loop.set_writer(self._socket.fileno(), self._flush)
                return
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:
                    self.end("too many descriptors are on their way to its worker")
                    return
                # The worker is gone: what it said before is still to be read.
                self._loop.set_writer(self._socket.fileno(), None)
                return
            self._waiting_bytes -= count
            if count < len(message.data):
                if message.passed is not None:
                    message.passed.release()
                self._outgoing[0] = _Outgoing(message.data[count:], None, message.sent)
                continue
            self._outgoing.popleft()
            _done_with(message)
        if self._open:
            self._loop.set_writer(self._socket.fileno(), None)

    # Receiving.

    def _receive(self) -> None:
        try:
            data = ancillary.receive(self._socket, _CHUNK, self._fds, _MAX_FDS)
        except BlockingIOError:
            return
        except OSError as error:
            self.close(f"worker: {error}")
            return
        self._incoming += data
        if not data:
            self.close("the worker is gone")
        else:
            self._parse()

    def _parse(self) -> None:
        """Handle the messages that are complete."""
        try:
            while self._open and len(self._incoming) >= FRAME.size:
                length, count = FRAME.unpack_from(self._incoming)
                if length > MAX_UP or count > _MAX_FDS:
                    raise ValueError(f"message of {length} bytes and {count} descriptors")
                end = FRAME.size + length
                if len(self._incoming) < end:
                    return
                message = bytes(self._incoming[FRAME.size : end])
                del self._incoming[:end]
                if len(self._fds) < count:
                    raise ValueError("descriptors are missing")
                self._handle(message, self._fds.pop(0) if count else -1)
        except (ValueError, struct.error) as error:
            # Only a worker that a guest has taken over would do that.
            self.end(f"the worker sends nonsense: {error}")

    def _handle(self, message: bytes, fd: int) -> None:
        """Handle a message; `fd` is ours.  Raises `ValueError` and `struct.error` for nonsense."""
        taken = False
        try:
            (kind,) = wire.KIND.unpack_from(message)
            handler = self._handlers.get(kind, self._refuse_kind)
            taken = handler(message[wire.KIND.size :], fd)
        finally:
            if fd >= 0 and not taken:
                close_apart(fd)

    def _refuse_kind(self, _body: bytes, _fd: int) -> bool:
        raise ValueError("a message of no known kind")

    def _retired(self, body: bytes, _fd: int) -> bool:
        (serial,) = wire.RETIRED.unpack(body)
        retired = self._fences.pop(serial, None)
        if retired is None:
            raise ValueError("a fence that nobody waits for")
        retired()
        return False

    def _blob(self, body: bytes, fd: int) -> bool:
        serial, response, map_info = wire.BLOB.unpack(body)
        done = self._blobs.pop(serial, None)
        if done is None:
            raise ValueError("a blob that nobody waits for")
        if fd >= 0 and map_info not in MAP_CACHES:
            done(None)
            raise ValueError(f"a blob that is mapped by {map_info:#x}")
        done(NewBlob(response, map_info, fd))
        return True

    def _take_figures(self, body: bytes, _fd: int) -> bool:
        if not self._figures_asked:
            raise ValueError("figures that nobody has asked for")
        try:
            figures = msgspec.json.decode(body, type=Figures)
        except msgspec.DecodeError as error:
            raise ValueError(f"figures: {error}") from None
        self._figures_asked = False
        self.figures = no_less(figures, self.figures)
        return False

    def _fatal(self, body: bytes, _fd: int) -> bool:
        self.close(body.decode(errors="replace")[:500] or "the worker gives no reason")
        return False


def _done_with(message: _Outgoing) -> None:
    """Let go of what a message holds, and tell who waits."""
    if message.passed is not None:
        message.passed.release()
    if message.sent is not None:
        message.sent()
