"""A device that has nothing to do with graphics: the transport serves any.

A letter box.  The first byte of a request says what is wanted: `E` echo what follows, `K` keep it
and answer later, `M` map the box's memory at an offset (u64) of its shared memory region, `U` take
it away from there.  The config space is two numbers: a flag that is up when there is mail, which
the driver may take down, and how many requests there were.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable

from frontend import Frontend
from vring import PATIENCE

from hesper.event_loop import EventLoop
from hesper.portable import SharedMemory, page_size
from hesper.vhost.backend import Backend
from hesper.vhost.device import Vmm
from hesper.vhost.virtqueue import Chain

UPPER = 1 << 0
"""Feature: echo in capital letters."""
STAMPS = 1 << 23
"""Feature: of no use."""
REGION = 5
REGION_SIZE = 1 << 30
CONFIG = struct.Struct("<II")
YES, NO = b"\1", b"\0"


class ToyDevice:
    """A `vhost.device.Device`."""

    features = UPPER | STAMPS

    def __init__(self, queues: int) -> None:
        self.queue_count = queues
        self.shared_memory: dict[int, int] = {REGION: REGION_SIZE}
        self.memory = SharedMemory.create(page_size(), "toy")
        self.chosen = 0
        self.flag = 0
        self.requests = 0
        self.resets = 0
        self.starvings = 0
        self.written: list[tuple[int, bytes]] = []
        self.kept: list[Chain] = []
        self.queues: list[int] = []
        self.shown: list[socket.socket] = []
        self._vmm: Vmm | None = None

    @property
    def vmm(self) -> Vmm:
        """The front-end that is there."""
        assert self._vmm is not None
        return self._vmm

    def connected(self, vmm: Vmm) -> None:
        self._vmm = vmm

    def disconnected(self) -> None:
        self._vmm = None
        self.kept.clear()

    def read_config(self) -> bytes:
        return CONFIG.pack(self.flag, self.requests)

    def write_config(self, offset: int, data: bytes) -> None:
        self.written.append((offset, data))
        if offset == 0 and data[:4] == bytes(4):
            self.flag = 0

    def negotiated(self, features: int) -> None:
        self.chosen = features

    def reset(self) -> None:
        self.resets += 1
        self.requests = 0

    def show(self, sock: socket.socket) -> None:
        self.shown.append(sock)

    def starved(self) -> None:
        self.starvings += 1
        if self.kept:
            self.kept.pop(0).respond(YES)

    def handle(self, queue: int, chain: Chain) -> None:
        self.requests += 1
        self.queues.append(queue)
        request = chain.read()
        word, rest = request[:1], request[1:]
        if chain.cut:
            chain.respond(NO)
        elif word == b"E":
            chain.respond(rest.upper() if self.chosen & UPPER else rest)
        elif word == b"K":
            self.kept.append(chain)
        elif word == b"M":
            self.vmm.map(REGION, self.memory.fd, _offset(rest), page_size(), _answer_to(chain))
        elif word == b"U":
            self.vmm.unmap(REGION, _offset(rest), page_size(), _answer_to(chain))
        else:
            chain.respond(NO)

    def raise_flag(self) -> None:
        """Mail has come."""
        self.flag = 1
        self.vmm.config_changed()


def _offset(data: bytes) -> int:
    return int.from_bytes(data[:8], "little")


def _answer_to(chain: Chain) -> Callable[[bool], None]:
    return lambda accepted: chain.respond(YES if accepted else NO)


class CountingLoop(EventLoop):
    """Knows how often it was called: one that is idle calls itself no more."""

    calls = 0

    def call(self, callback: Callable[[], object]) -> None:
        self.calls += 1
        super().call(callback)


class ToyVm:
    """The toy on its loop's thread, with a front-end connected to it."""

    def __init__(self, *, queues: int = 1) -> None:
        """Connect; the driver is not loaded."""
        self.loop = CountingLoop()
        self.device = ToyDevice(queues)
        self.disconnected = threading.Event()
        self._thread = threading.Thread(target=self.loop.run, daemon=True)
        self._thread.start()
        self.frontend = self.connect()

    def connect(self) -> Frontend:
        """Connect a new front-end."""
        ours, theirs = socket.socketpair()
        self.disconnected.clear()
        self.loop.call(lambda: Backend(theirs, self.device, self.loop, self.disconnected.set))
        frontend = Frontend(ours, queues=self.device.queue_count, config_size=CONFIG.size)
        frontend.realize()
        return frontend

    def echo(self, text: bytes) -> bytes:
        """Have something echoed."""
        return self.frontend.call(b"E" + text)

    def settle(self) -> None:
        """Wait until the loop has done what was asked of it before, by descriptors as well."""
        # The first may come in a round that has looked at those already.
        for _ in range(2):
            done = threading.Event()
            self.loop.call(done.set)
            assert done.wait(PATIENCE)

    def on_loop(self, callback: Callable[[], object]) -> None:
        """Have `callback` called on the loop's thread, and wait for it."""
        self.loop.call(callback)
        self.settle()

    def close(self) -> None:
        """Stop it all."""
        self.frontend.close()
        assert self.disconnected.wait(PATIENCE)
        self.loop.stop()
        self._thread.join(PATIENCE)
        self.loop.close()
        self.device.memory.close()


def map_request(offset: int) -> bytes:
    """Ask for the box's memory at `offset`."""
    return b"M" + offset.to_bytes(8, "little")


def unmap_request(offset: int) -> bytes:
    """Ask for it to be taken away."""
    return b"U" + offset.to_bytes(8, "little")
