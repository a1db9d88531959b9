"""One kind of work over and over, for whoever looks at where its time goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hesper.bench.client.device import HOST_MEMORY, USAGE
from hesper.bench.client.loops import BARE, COPY, DISPATCH, DRAW, MIXED, PUSH
from hesper.bench.client.scene import Workplace

if TYPE_CHECKING:
    from hesper.bench.client.device import Device

STREAM: Final = 100_000
CALLS: Final = 1000

STREAMS = {"push": PUSH, "draw": DRAW, "dispatch": DISPATCH, "copy": COPY, "mixed": MIXED}
WORKS = ("round_trip", "submission", "allocate", "buffers", "descriptors", *STREAMS)


def repeat(once: Callable[[], object], *, quick: bool) -> None:
    """Do some work for a while."""
    once()
    end = time.monotonic() + (0.3 if quick else 2.0)
    while time.monotonic() < end:
        once()


def prepare(device: Device, name: str) -> Callable[[], object]:
    """Make what the work called `name` needs; what is returned does it once."""
    place, loops, memory = Workplace(device), device.loops, device.memory
    scene = place.scene()
    if name in STREAMS:
        return lambda: loops.stream(STREAMS[name], STREAM, scene)
    if name == "round_trip":
        return lambda: loops.round_trips(CALLS, device.cache)
    if name == "submission":
        loops.record_only(BARE, 0, scene)
        return lambda: loops.submits(CALLS, scene.submit)
    if name == "allocate":
        kind = device.memory_type(0xFFFFFFFF, HOST_MEMORY)
        return lambda: loops.allocations(CALLS // 10, 65536, kind, True)
    if name == "buffers":
        info = memory.new("VkBufferCreateInfo", size=65536, usage=USAGE)
        return lambda: loops.buffers(CALLS, info.address_, device.cache)
    place.buffer_info[0].range = 4096
    addresses = place.write.address_, place.buffer_info.address_
    return lambda: loops.descriptors(CALLS, *addresses, device.cache)
