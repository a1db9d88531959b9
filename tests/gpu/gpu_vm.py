"""A device under test: its loop on a thread, scripted workers, and a guest by either transport."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import Protocol

from gpu_guest import PATIENCE, Guest
from gpu_requests import create_context
from in_process_guest import InProcessGuest, InProcessVmm
from vhost_user_guest import VhostUserGuest

from hesper.display.scanout import Display, Size
from hesper.event_loop import EventLoop
from hesper.gpu import context_wire as wire
from hesper.gpu.context_wire import Down, Up
from hesper.gpu.device import GpuDevice
from hesper.gpu.limits import Limits
from hesper.gpu.wire import Response
from hesper.portable import SharedMemory, recv_message, send_message
from hesper.vhost.backend import Backend
from hesper.vhost_user_gpu import VhostUserDevice

TRANSPORTS = ("vhost-user", "in-process")
WINDOW = 1 << 30
CAPSET = bytes(range(160))


class Worker:
    """The other side of a context: notes what it is told, answers as the test wants.

    Life: made, `start`ed, used; or made and told what to `handle`, without a thread.
    """

    def __init__(self, sock: socket.socket) -> None:
        """Serve `sock`."""
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

    def start(self) -> None:
        """Handle what comes, on a thread."""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        try:
            while (message := recv_message(self.socket)) is not None:
                self.paused.wait(PATIENCE)
                self.handle(*message)
        except OSError:
            pass
        self.ended.set()

    def handle(self, message: bytes, fds: list[int]) -> None:
        """Do what a message asks for."""
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

    def wait(self, condition: Callable[[], object]) -> None:
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
    """A device with a guest."""

    def __init__(
        self, transport: str = "vhost-user", *, scanouts: int = 2, limits: Limits | None = None
    ) -> None:
        """Connect a guest by one of `TRANSPORTS`; its driver is not loaded."""
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
        self.transport = transport
        self.disconnected = threading.Event()
        self._thread = threading.Thread(target=self.loop.run, daemon=True)
        self._thread.start()
        self.guest = self.connect()

    def _resized(self, _scanout: object) -> None:
        self.device.post_display_event()

    def _connect(self, _name: str) -> socket.socket:
        ours, theirs = socket.socketpair()
        worker = Worker(theirs)
        worker.start()
        with self._fresh:
            self.workers.append(worker)
            self._fresh.notify_all()
        return ours

    def worker(self, index: int = 0) -> Worker:
        """Return the worker of the context that was made `index`th."""
        with self._fresh:
            assert self._fresh.wait_for(lambda: len(self.workers) > index, PATIENCE)
        return self.workers[index]

    def open_context(self, ctx_id: int) -> Worker:
        """Make a context and return its worker."""
        before = len(self.workers)
        assert self.guest.send(create_context(ctx_id)).type == Response.OK_NODATA
        return self.worker(before)

    def connect(self) -> Guest:
        """Bring another guest to the device, which has none."""
        self.disconnected.clear()
        if self.transport == "vhost-user":
            ours, theirs = socket.socketpair()
            device = VhostUserDevice(self.device, self.loop)
            ended = self.disconnected.set
            self.loop.call(lambda: Backend(theirs, device, self.loop, ended))
            return VhostUserGuest(ours)
        guest = InProcessGuest(InProcessVmm(InProcessGuest.make_memory()), self.loop)
        guest.on_loop(lambda: guest.vmm.attach(self.device, self.loop))
        return guest

    def disconnect(self) -> None:
        """End the guest's VMM."""
        self.guest.close()
        if self.transport == "vhost-user":
            assert self.disconnected.wait(PATIENCE)

    def settle(self) -> None:
        """Wait until the loop has done what was asked of it before, by descriptors as well."""
        # The first may come in a round that has looked at those already.
        for _ in range(2):
            done = threading.Event()
            self.loop.call(done.set)
            assert done.wait(PATIENCE)

    def close(self) -> None:
        """Stop it all."""
        self.disconnect()
        self.loop.stop()
        self._thread.join(PATIENCE)
        self.device.close()
        self.loop.close()
        for worker in self.workers:
            worker.socket.close()


class MakeVm(Protocol):
    """Makes a device with a guest whose driver is loaded."""

    def __call__(self, *, scanouts: int = 2, limits: Limits | None = None) -> Vm: ...
