"""The device's side of one guest context, which lives in a worker process.

Nothing here waits for the worker, which may be slow, stuck, dead or hostile.
"""

from __future__ import annotations

import collections
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from hesper import ancillary
from hesper.gpu import context_wire as wire
from hesper.gpu.context_wire import Down, Up
from hesper.portable import FRAME, MAX_MESSAGE

if TYPE_CHECKING:
    from hesper.event_loop import EventLoop

_MAX_FDS = 1
_CHUNK = 64 << 10


class NewBlob(NamedTuple):
    """A worker's answer to `create_blob`."""

    response: int
    """`Response` of virtio-gpu."""
    map_info: int
    fd: int
    """Belongs to whoever is told; -1 when there is none."""


class Figures(NamedTuple):
    """What a context has done and holds."""

    commands: int
    """Vulkan commands since its start."""
    stream_bytes: int
    """Bytes of command stream since its start."""
    memory: int
    """Bytes of device and shared memory."""


class _Outgoing(NamedTuple):
    data: memoryview
    fds: tuple[int, ...]
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
        self._outgoing: collections.deque[_Outgoing] = collections.deque()
        self._incoming = bytearray()
        self._fds: list[int] = []
        self._serial = 0
        self._blobs: dict[int, Callable[[NewBlob | None], None]] = {}
        self._fences: dict[int, Callable[[], None]] = {}
        self.figures = Figures(0, 0, 0)
        """As the worker last said."""
        loop.add_reader(sock.fileno(), self._receive)
        self._send(Down.NAME, name.encode())

    def submit(self, commands: bytes | memoryview, sent: Callable[[], None]) -> None:
        """Run `commands`, at most `MAX_SUBMIT` bytes; `sent` is called when the worker has room.

        A guest whose context does not keep up waits for `sent`, so that nothing piles up here.
        """
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

    def import_resource(self, resource_id: int, fd: int, size: int) -> None:
        """Make a resource known to the context; `fd` stays the caller's."""
        copy = os.dup(fd)
        self._send(
            Down.IMPORT, wire.IMPORT.pack(resource_id, size), (copy,), lambda: os.close(copy)
        )

    def destroy_resource(self, resource_id: int) -> None:
        """Make the context forget a resource."""
        self._send(Down.DESTROY, wire.DESTROY.pack(resource_id))

    def fence(self, ring_idx: int, retired: Callable[[], None]) -> None:
        """Call `retired` when timeline `ring_idx` has done what it has, or the context is lost."""
        self._serial += 1
        self._fences[self._serial] = retired
        self._send(Down.FENCE, wire.FENCE.pack(ring_idx, self._serial))

    def ask_figures(self) -> None:
        """Have `figures` brought up to date; soon."""
        self._send(Down.FIGURES, b"")

    def close(self, reason: str = "") -> None:
        """End the context.  What waits for it is told; `lost` too, if there is a reason."""
        if not self._open:
            return
        self._open = False
        self._loop.remove(self._socket.fileno())
        self._socket.close()
        while self._fds:
            os.close(self._fds.pop())
        if reason:
            self._lost(reason)
        outgoing, self._outgoing = self._outgoing, collections.deque()
        for message in outgoing:
            if message.sent is not None:
                message.sent()
        blobs, self._blobs = self._blobs, {}
        for done in blobs.values():
            done(None)
        fences, self._fences = self._fences, {}
        for retired in fences.values():
            retired()

    # Sending.

    def _send(
        self,
        kind: Down,
        payload: bytes | memoryview,
        fds: Sequence[int] = (),
        sent: Callable[[], None] | None = None,
    ) -> None:
        if not self._open:
            if sent is not None:
                sent()
            return
        frame = FRAME.pack(wire.KIND.size + len(payload), len(fds)) + wire.KIND.pack(kind)
        self._outgoing.append(_Outgoing(memoryview(frame + bytes(payload)), tuple(fds), sent))
        if len(self._outgoing) == 1:
            self._flush()

    def _flush(self) -> None:
        """Send what there is room for."""
        while self._open and self._outgoing:
            data, fds, sent = self._outgoing[0]
            try:
                count = ancillary.send(self._socket, data, fds, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._loop.set_writer(self._socket.fileno(), self._flush)
                return
            except OSError:
                # The worker is gone: what it said before is still to be read.
                self._loop.set_writer(self._socket.fileno(), None)
                return
            if count < len(data):
                self._outgoing[0] = _Outgoing(data[count:], (), sent)
                continue
            self._outgoing.popleft()
            if sent is not None:
                sent()
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
                if length > MAX_MESSAGE or count > _MAX_FDS:
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
            self.close(f"the worker sends nonsense: {error}")

    def _handle(self, message: bytes, fd: int) -> None:
        (kind,) = wire.KIND.unpack_from(message)
        if kind == Up.RETIRED:
            (serial,) = wire.RETIRED.unpack_from(message, wire.KIND.size)
            retired = self._fences.pop(serial, None)
            if retired is not None:
                retired()
        elif kind == Up.BLOB:
            serial, response, map_info = wire.BLOB.unpack_from(message, wire.KIND.size)
            done = self._blobs.pop(serial, None)
            if done is not None:
                done(NewBlob(response, map_info, fd))
                return
        elif kind == Up.FIGURES:
            self.figures = Figures(*wire.FIGURES.unpack_from(message, wire.KIND.size))
        elif kind == Up.FATAL:
            self.close(message[wire.KIND.size :].decode(errors="replace")[:500])
        if fd >= 0:
            os.close(fd)
