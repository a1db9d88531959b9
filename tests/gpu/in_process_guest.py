"""A guest whose VMM runs in this process: no vhost-user, no virtqueues, no socket.

It stands for a VMM that hands over queue elements, the configuration space and a place to map
descriptors at by function calls, as Apple's Virtualization.framework does for custom devices.
"""

from __future__ import annotations

import collections
import contextlib
import mmap
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from gpu_guest import PATIENCE, Guest, Posted
from gpu_requests import GUEST_BASE

from hesper.event_loop import EventLoop
from hesper.gpu.device import GpuDevice
from hesper.gpu.transport import Done, GuestRegion, Known
from hesper.gpu.wire import CONFIG, CONTROL_QUEUE, QUEUE_COUNT

SEAM = 0x0015_5000
"""Offset at which one region of guest memory ends and the next begins."""
REGIONS = (SEAM, (4 << 20) - SEAM)


@dataclass(eq=False)
class Element:
    """A queue element: buffers in guest memory (a `gpu.transport.QueueElement`)."""

    readable: memoryview
    writable: memoryview
    returned: Callable[[Element, bytes], None]

    def read(self) -> bytes:
        return bytes(self.readable)

    def respond(self, data: bytes) -> None:
        self.returned(self, data)


class InProcessVmm:
    """All that another front door has to do: the transport of its guest, and the device's calls.

    A `gpu.transport.Transport`.  Life: made, `attach`ed on the loop of the device, `close`d there.
    """

    def __init__(self, memory: memoryview) -> None:
        """`memory` is the guest's."""
        self.memory = memory
        self.maps: dict[int, tuple[int, int]] = {}
        self.mapped_fds: dict[int, int] = {}
        self.config_changes = 0
        self.news = threading.Condition()
        self.delayed: list[Callable[[], None]] | None = None
        self.done = [collections.deque[tuple[int, int]]() for _ in range(QUEUE_COUNT)]
        """Of each queue: which elements have come back, with how many bytes."""
        self.late_answers = 0
        """Answers to a driver that had gone by then, which a device must not give."""
        self._device: GpuDevice | None = None
        self._driver = 0

    @property
    def device(self) -> GpuDevice:
        """What it is attached to."""
        assert self._device is not None
        return self._device

    def attach(self, device: GpuDevice, _loop: EventLoop) -> InProcessVmm:
        """Bring the guest to `device`."""
        self._device = device
        device.attach(self)
        return self

    def close(self) -> None:
        """Go away."""
        self._driver += 1
        self.device.detach()
        self.drop_maps()

    # For the device.

    def guest_memory(self) -> list[GuestRegion]:
        regions = (self.memory[:SEAM], self.memory[SEAM:])
        return [
            GuestRegion(GUEST_BASE + at, view) for at, view in zip((0, SEAM), regions, strict=True)
        ]

    def queue_addresses(self) -> list[int]:
        return []

    def map(self, offset: int, fd: int, size: int, done: Done) -> None:
        copy = os.dup(fd)
        if self.delayed is None:
            self._map(offset, copy, size, done)
        else:
            with self.news:
                self.delayed.append(lambda: self._map(offset, copy, size, done))
                self.news.notify_all()

    def _map(self, offset: int, fd: int, size: int, done: Done) -> None:
        """Map `fd`, which is ours."""
        with self.news:
            is_free = not any(
                start < offset + size and offset < start + length
                for start, (length, _) in self.maps.items()
            )
            if is_free:
                self.maps[offset] = (size, os.fstat(fd).st_ino)
                self.mapped_fds[offset] = fd
            else:
                os.close(fd)
            self.news.notify_all()
        done(is_free)

    def unmap(self, offset: int, size: int, done: Done) -> None:
        with self.news:
            is_there = self.maps.get(offset, (0, 0))[0] == size
            if is_there:
                del self.maps[offset]
                os.close(self.mapped_fds.pop(offset))
            self.news.notify_all()
        done(is_there)

    def config_changed(self) -> None:
        with self.news:
            self.config_changes += 1
            self.news.notify_all()

    def ask_sizes(self, known: Known) -> None:
        known()

    # For the guest.

    def drop_maps(self) -> None:
        """Take all maps away."""
        with self.news:
            self.maps.clear()
            while self.mapped_fds:
                os.close(self.mapped_fds.popitem()[1])
            self.news.notify_all()

    def load_driver(self) -> None:
        """A driver starts over: nothing that is left from before may reach it."""
        self._driver += 1
        for done in self.done:
            done.clear()
        self.drop_maps()
        self.device.reset()
        self.device.negotiated(self.device.features)

    def request(self, number: int, queue: int, readable: memoryview, writable: memoryview) -> None:
        """Hand an element to the device."""
        driver = self._driver

        def returned(element: Element, data: bytes) -> None:
            if driver != self._driver:
                self.late_answers += 1
                return
            written = data[: len(element.writable)]
            element.writable[: len(written)] = written
            with self.news:
                self.done[queue].append((number, len(written)))
                self.news.notify_all()

        self.device.request(Element(readable, writable, returned))


class InProcessGuest(Guest):
    """Life: made with a VMM that is attached.  Calls reach the device on its loop."""

    def __init__(self, vmm: InProcessVmm, loop: EventLoop) -> None:
        """`loop` is the device's."""
        self.vmm = vmm
        self.memory = vmm.memory
        self.maps = vmm.maps
        self.mapped_fds = vmm.mapped_fds
        self.heap = 0
        self._loop = loop
        self._number = 0

    @staticmethod
    def make_memory() -> memoryview:
        """Return memory for a guest."""
        return memoryview(mmap.mmap(-1, sum(REGIONS)))

    @property
    def config_changes(self) -> int:  # type: ignore[override]
        return self.vmm.config_changes

    def on_loop(self, callback: Callable[[], object]) -> None:
        """Do something on the device's loop, and wait until it is done."""
        done = threading.Event()

        def call() -> None:
            with contextlib.ExitStack() as stack:
                stack.callback(done.set)
                callback()

        self._loop.call(call)
        assert done.wait(PATIENCE)

    def start(self) -> None:
        self.heap = 0x10000
        self.on_loop(self.vmm.load_driver)

    restart = start

    def close(self) -> None:
        self.on_loop(self.vmm.close)
        assert not self.vmm.late_answers

    def delay_maps(self) -> None:
        self.vmm.delayed = []

    def wait_delayed_map(self) -> None:
        with self.vmm.news:
            assert self.vmm.news.wait_for(lambda: self.vmm.delayed, PATIENCE)

    def allow_maps(self) -> None:
        delayed, self.vmm.delayed = self.vmm.delayed, None
        for each in delayed or []:
            self.on_loop(each)

    def wait_maps(self, count: int) -> None:
        with self.vmm.news:
            assert self.vmm.news.wait_for(lambda: len(self.maps) == count, PATIENCE)

    def config(self) -> tuple[int, ...]:
        read: list[bytes] = []
        self.on_loop(lambda: read.append(self.vmm.device.read_config()))
        return CONFIG.unpack(read[0])

    def clear_events(self, events: int) -> None:
        data = events.to_bytes(4, "little")
        self.on_loop(lambda: self.vmm.device.write_config(4, data))

    def wait_config_changes(self, count: int) -> None:
        with self.vmm.news:
            assert self.vmm.news.wait_for(lambda: self.vmm.config_changes >= count, PATIENCE)

    def allocate(self, size: int) -> int:
        offset = self.heap
        self.heap += (size + 4095) & ~4095
        assert self.heap <= len(self.memory), "the test's guest is out of memory"
        return offset

    def post(
        self, request: bytes, *, queue: int = CONTROL_QUEUE, response_size: int = 2048
    ) -> Posted:
        at = self.allocate(len(request) + response_size)
        answer = at + len(request)
        self.memory[at:answer] = request
        self._number += 1
        number = self._number
        readable = self.memory[at:answer]
        writable = self.memory[answer : answer + response_size]
        self._loop.call(lambda: self.vmm.request(number, queue, readable, writable))
        return number, answer

    def take(self, queue: int = CONTROL_QUEUE, *, timeout: float = 0) -> tuple[int, int] | None:
        done = self.vmm.done[queue]
        with self.vmm.news:
            self.vmm.news.wait_for(lambda: done, timeout)
            return done.popleft() if done else None
