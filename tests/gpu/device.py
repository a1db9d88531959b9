"""A device under test: its loop on a thread, scripted workers, and a front-end."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable

from frontend import PATIENCE, Frontend

from hesper.display.scanout import Display, Size
from hesper.event_loop import EventLoop
from hesper.gpu import context_wire as wire
from hesper.gpu.context_wire import Down, Up
from hesper.gpu.device import GpuDevice, Limits
from hesper.gpu.wire import Response
from hesper.portable import SharedMemory, recv_message, send_message
from hesper.vhost.backend import Session

WINDOW = 1 << 30
CAPSET = bytes(range(160))


class Worker:
    """The other side of a context: notes what it is told, answers as the test wants."""

    def __init__(self, sock: socket.socket) -> None:
        """Serve `sock` on a thread."""
        self.socket = sock
        self.name = ""
        self.commands: list[bytes] = []
        self.imported: dict[int, int] = {}
        self.destroyed: list[int] = []
        self.fences: list[tuple[int, int]] = []
        """Timeline and serial of the fences that are not retired."""
        self.blob_response = Response.OK_NODATA
        self.ended = threading.Event()
        self.paused = threading.Event()
        self.paused.set()
        self._news = threading.Condition()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        try:
            while (message := recv_message(self.socket)) is not None:
                self.paused.wait(PATIENCE)
                self._handle(*message)
        except OSError:
            pass
        self.ended.set()

    def _handle(self, message: bytes, fds: list[int]) -> None:
        (kind,) = wire.KIND.unpack_from(message)
        body = message[wire.KIND.size :]
        with self._news:
            if kind == Down.NAME:
                self.name = body.decode()
            elif kind == Down.SUBMIT:
                self.commands.append(body)
            elif kind == Down.CREATE_BLOB:
                self._create_blob(*wire.CREATE_BLOB.unpack(body))
            elif kind == Down.IMPORT:
                resource_id, size = wire.IMPORT.unpack(body)
                self.imported[resource_id] = size
            elif kind == Down.DESTROY:
                self.destroyed += wire.DESTROY.unpack(body)
            elif kind == Down.FENCE:
                self.fences.append(wire.FENCE.unpack(body))
            self._news.notify_all()
        for fd in fds:
            os.close(fd)

    def _create_blob(
        self, serial: int, resource_id: int, _flags: int, blob_id: int, size: int
    ) -> None:
        answer = wire.KIND.pack(Up.BLOB) + wire.BLOB.pack(serial, self.blob_response, 1)
        if self.blob_response != Response.OK_NODATA:
            send_message(self.socket, answer)
            return
        with SharedMemory.create(size, "blob") as memory:
            # So that a test sees whose memory it is.
            struct.pack_into("<IQ", memory.view, 0, resource_id, blob_id)
            send_message(self.socket, answer, [memory.fd])

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true of this worker."""
        with self._news:
            assert self._news.wait_for(condition, PATIENCE)

    def retire(self, ring_idx: int) -> None:
        """Retire the oldest fence of a timeline, once it is there."""
        self.wait(lambda: any(ring == ring_idx for ring, _ in self.fences))
        fence = next(fence for fence in self.fences if fence[0] == ring_idx)
        self.fences.remove(fence)
        self.say(Up.RETIRED, wire.RETIRED.pack(fence[1]))

    def say(self, kind: int, body: bytes = b"") -> None:
        """Send a message to the device."""
        send_message(self.socket, wire.KIND.pack(kind) + body)

    def die(self) -> None:
        """End as a process does that is killed."""
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class Vm:
    """A device with a front-end connected to it."""

    def __init__(self, *, scanouts: int = 2, limits: Limits | None = None) -> None:
        """Connect; the driver is not loaded."""
        self.loop = EventLoop()
        self.workers: list[Worker] = []
        self._fresh = threading.Condition()
        self.display = Display(scanouts, Size(1280, 800), self._resized)
        self.device = GpuDevice(
            self.display,
            self.loop,
            connect=self._connect,
            capset=CAPSET,
            window=WINDOW,
            limits=limits,
        )
        self.disconnected = threading.Event()
        self._thread = threading.Thread(target=self.loop.run, daemon=True)
        self._thread.start()
        self.frontend = self.connect()

    def _resized(self, _scanout: object) -> None:
        self.device.post_display_event()

    def _connect(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with self._fresh:
            self.workers.append(Worker(theirs))
            self._fresh.notify_all()
        return ours

    def worker(self, index: int = 0) -> Worker:
        """Return the worker of the context that was made `index`th."""
        with self._fresh:
            assert self._fresh.wait_for(lambda: len(self.workers) > index, PATIENCE)
        return self.workers[index]

    def connect(self) -> Frontend:
        """Connect a new front-end."""
        ours, theirs = socket.socketpair()
        self.disconnected.clear()
        self.loop.call(
            lambda: Session(theirs, self.device, self.loop, self.disconnected.set) and None
        )
        frontend = Frontend(ours)
        frontend.realize()
        return frontend

    def settle(self) -> None:
        """Wait until the loop has done what was asked of it before."""
        done = threading.Event()
        self.loop.call(done.set)
        assert done.wait(PATIENCE)

    def close(self) -> None:
        """Stop it all."""
        self.frontend.close()
        assert self.disconnected.wait(PATIENCE)
        self.loop.stop()
        self._thread.join(PATIENCE)
        self.loop.close()
        for worker in self.workers:
            worker.socket.close()
