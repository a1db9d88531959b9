"""The driver's side of a split virtqueue, and the wake-ups between it and the device."""

from __future__ import annotations

import os
import select
import struct
from dataclasses import dataclass, field

PATIENCE = 120.0
"""Seconds after which a wait fails the test."""

QUEUE_SIZE = 64
QUEUE_BYTES = 0x4000

NEXT, WRITE, INDIRECT = 1, 2, 4


class Wake:
    """A wake-up as QEMU makes it: an eventfd, or a pipe where there is none."""

    def __init__(self) -> None:
        """Open it."""
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.write_fd, False)

    def wait(self) -> None:
        """Wait until somebody has written."""
        ready, _, _ = select.select([self.read_fd], [], [], PATIENCE)
        assert ready, "nobody has signalled"
        os.read(self.read_fd, 4096)

    def wait_briefly(self, seconds: float = 0.01) -> None:
        """Wait a moment for somebody to write; for callers that look again."""
        ready, _, _ = select.select([self.read_fd], [], [], seconds)
        if ready:
            os.read(self.read_fd, 4096)

    def signal(self) -> None:
        """Write to it."""
        os.write(self.write_fd, (1).to_bytes(8, "little"))

    def close(self) -> None:
        """Close both ends."""
        os.close(self.read_fd)
        os.close(self.write_fd)


@dataclass
class Ring:
    """The driver's side of one split virtqueue."""

    index: int
    base: int
    """Offset in guest memory."""
    memory: memoryview
    event_idx: bool = False
    kick: Wake = field(default_factory=Wake)
    call: Wake = field(default_factory=Wake)
    error: Wake = field(default_factory=Wake)
    available: int = 0
    used: int = 0
    free: list[int] = field(default_factory=list)

    @property
    def descriptors(self) -> int:
        """Offset of the descriptor table."""
        return self.base

    @property
    def available_ring(self) -> int:
        """Offset of the available ring."""
        return self.base + 16 * QUEUE_SIZE

    @property
    def used_ring(self) -> int:
        """Offset of the used ring."""
        return self.base + 0x1000

    def clear(self) -> None:
        """Start over with empty rings."""
        self.memory[self.base : self.base + QUEUE_BYTES] = bytes(QUEUE_BYTES)
        self.available = self.used = 0
        self.free = list(range(QUEUE_SIZE))

    def write_descriptor(
        self, index: int, address: int, length: int, flags: int, following: int = 0
    ) -> None:
        """Write one entry of the table; `address` is a guest address."""
        struct.pack_into(
            "<QIHH", self.memory, self.descriptors + 16 * index, address, length, flags, following
        )

    def offer(self, head: int) -> None:
        """Make the chain that begins at `head` available, and kick."""
        slot = self.available_ring + 4 + 2 * (self.available % QUEUE_SIZE)
        struct.pack_into("<H", self.memory, slot, head)
        self.available = (self.available + 1) & 0xFFFF
        struct.pack_into("<H", self.memory, self.available_ring + 2, self.available)
        if self.event_idx:
            # Ask for an interrupt at the very next used element.
            event = self.available_ring + 4 + 2 * QUEUE_SIZE
            struct.pack_into("<H", self.memory, event, self.used)
        self.kick.signal()

    def take_used(self) -> tuple[int, int] | None:
        """Return head and length of the next used chain, if there is one."""
        (there,) = struct.unpack_from("<H", self.memory, self.used_ring + 2)
        if there == self.used:
            return None
        slot = self.used_ring + 4 + 8 * (self.used % QUEUE_SIZE)
        self.used = (self.used + 1) & 0xFFFF
        if self.event_idx:
            event = self.available_ring + 4 + 2 * QUEUE_SIZE
            struct.pack_into("<H", self.memory, event, self.used)
        head, length = struct.unpack_from("<II", self.memory, slot)
        return head, length

    def wait_used(self) -> tuple[int, int]:
        """Wait for the next used chain."""
        while (done := self.take_used()) is None:
            self.call.wait()
        return done

    def close(self) -> None:
        """Close the wake-ups."""
        for wake in (self.kick, self.call, self.error):
            wake.close()
