"""The guest's side of a ring, in memory of the test's."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from hesper.kernel.views import Scratch
from hesper.protocol.codec import Codec
from kernel.conftest import Host, wait_for

IDLE, FATAL, ALIVE = 1, 2, 4
HEAD, TAIL, STATUS, BUFFER, SIZE = 0, 64, 128, 192, 4096
EXTRA = BUFFER + SIZE
RESOURCE, RING = 7, 11

CODEC = Codec()


class Guest:
    """The guest's side of a ring."""

    def __init__(
        self,
        host: Host,
        submit: Callable[[bytes], object] | None = None,
        alive_interval_us: int = 3_000_000,
        **changes: int,
    ) -> None:
        """submit: sends commands outside of the ring."""
        self.submit = submit or host.engine.submit
        self.memory = ctypes.create_string_buffer(EXTRA + 4 + 8)
        host.lent.append(self.memory)
        self.base = (ctypes.addressof(self.memory) + 7) & ~7
        host.engine.resources.add(RESOURCE, self.base, EXTRA + 4)
        self.tail = 0
        layout = {
            "resourceId": RESOURCE, "offset": 0, "size": EXTRA + 4, "idleTimeout": 1_000_000,
            "headOffset": HEAD, "tailOffset": TAIL, "statusOffset": STATUS,
            "bufferOffset": BUFFER, "bufferSize": SIZE, "extraOffset": EXTRA, "extraSize": 4,
        }  # fmt: skip
        info = Scratch().new("VkRingCreateInfoMESA", **{**layout, **changes})
        self.ring = host.engine.rings.create(RING, info, alive_interval_us=alive_interval_us)

    def word(self, offset: int) -> int:
        return ctypes.c_uint32.from_address(self.base + offset).value

    def clear(self, bit: int) -> None:
        """Take a bit out of the status, as Mesa does with ALIVE; the host sets none meanwhile."""
        word = ctypes.c_uint32.from_address(self.base + STATUS)
        word.value &= ~bit

    def put(self, data: bytes) -> None:
        """Write commands without telling."""
        for byte in data:
            ctypes.c_uint8.from_address(self.base + BUFFER + self.tail % SIZE).value = byte
            self.tail += 1

    def publish(self) -> None:
        """Pool the tail and notify as Mesa does."""
        ctypes.c_uint32.from_address(self.base + TAIL).value = self.tail & 0xFFFFFFFF
        if self.word(STATUS) & IDLE:
            self.notify()

    def notify(self) -> None:
        self.submit(CODEC.encode("vkNotifyRingMESA", {"ring": RING}))

    def send(self, data: bytes) -> None:
        self.put(data)
        self.publish()

    def wait(self) -> None:
        wait_for(lambda: self.word(HEAD) == self.tail & 0xFFFFFFFF, "the head to reach the tail")


class FilledRing:
    """A ring that holds commands from the beginning, one of several of a context."""

    def __init__(self, host: Host, number: int, data: bytes) -> None:
        """number: of its resource, and its id.  data: the commands."""
        self.host = host
        size = max(SIZE, 1 << len(data).bit_length())
        extra = BUFFER + size
        memory = ctypes.create_string_buffer(extra + 12)
        host.lent.append(memory)
        self.base = (ctypes.addressof(memory) + 7) & ~7
        host.engine.resources.add(number, self.base, extra + 4)
        layout = {
            "resourceId": number, "offset": 0, "size": extra + 4, "idleTimeout": 1_000_000,
            "headOffset": HEAD, "tailOffset": TAIL, "statusOffset": STATUS,
            "bufferOffset": BUFFER, "bufferSize": size, "extraOffset": extra, "extraSize": 4,
        }  # fmt: skip
        ctypes.memmove(self.base + BUFFER, data, len(data))
        self.word(TAIL).value = len(data)
        host.engine.rings.create(number, Scratch().new("VkRingCreateInfoMESA", **layout))

    def word(self, offset: int) -> ctypes.c_uint32:
        return ctypes.c_uint32.from_address(self.base + offset)

    def is_over(self) -> bool:
        return self.word(HEAD).value == self.word(TAIL).value or bool(
            self.word(STATUS).value & FATAL or self.host.fatal
        )


def are_over(rings: list[FilledRing]) -> bool:
    return all(ring.is_over() for ring in rings)
