"""Memory and small objects: made, mapped, written, copied, destroyed."""

from __future__ import annotations

import ctypes
import time

from hesper.bench.client.device import (
    HOST_MEMORY,
    USAGE,
    Device,
)
from hesper.bench.client.loops import copy_bytes
from hesper.bench.client.scene import Workplace
from hesper.bench.client.statistics import latencies, median
from hesper.vk.enumerants import VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT

SMALL = 65536
LARGE = 64 << 20
REPEATS = 5


def measure(device: Device, *, quick: bool) -> dict[str, float]:
    """Microseconds, bytes a second and objects a second."""
    place = Workplace(device)
    figures = _allocations(device, 100 if quick else 1000)
    figures |= _objects(device, place, quick=quick)
    figures |= _mapped(device)
    figures["copy_host"] = _copied(device, place, HOST_MEMORY)
    figures["copy_device"] = _copied(device, place, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT)
    return figures


def _allocations(device: Device, count: int) -> dict[str, float]:
    kind = device.memory_type(0xFFFFFFFF, HOST_MEMORY)
    device.loops.allocations(count // 10, SMALL, kind, True)
    return {
        **latencies("allocate", device.loops.allocations(count, SMALL, kind, False)),
        **latencies("allocate_map", device.loops.allocations(count, SMALL, kind, True)),
    }


def _objects(device: Device, place: Workplace, *, quick: bool) -> dict[str, float]:
    loops, cache = device.loops, device.cache
    info = device.memory.new("VkBufferCreateInfo", size=SMALL, usage=USAGE)
    place.buffer_info[0].range = 4096
    buffers, updates = (2_000, 10_000) if quick else (20_000, 100_000)
    addresses = place.write.address_, place.buffer_info.address_
    made = [loops.buffers(buffers, info.address_, cache) for _ in range(REPEATS)]
    updated = [loops.descriptors(updates, *addresses, cache) for _ in range(REPEATS)]
    return {
        "buffers": buffers / median(made) * 1e9,
        "descriptors": updates / median(updated) * 1e9,
    }


def _mapped(device: Device) -> dict[str, float]:
    """Bytes a second to and from mapped memory."""
    ours = ctypes.create_string_buffer(b"\1" * LARGE, LARGE)
    start = time.perf_counter_ns()
    buffer, memory = device.buffer(LARGE, HOST_MEMORY)
    address = device.map(memory, LARGE)
    made = time.perf_counter_ns() - start
    first = copy_bytes(address, ctypes.addressof(ours), LARGE)
    writes = [copy_bytes(address, ctypes.addressof(ours), LARGE) for _ in range(REPEATS)]
    reads = [copy_bytes(ctypes.addressof(ours), address, LARGE) for _ in range(REPEATS)]
    device.free_buffer(buffer, memory)
    return {
        "allocate_large": made / 1e3,
        "first_write": LARGE / first * 1e9,
        "write": LARGE / median(writes) * 1e9,
        "read": LARGE / median(reads) * 1e9,
    }


def _copied(device: Device, place: Workplace, wanted: int) -> float:
    """Bytes a second from one buffer to another, by the device."""
    source, target = device.buffer(LARGE, wanted), device.buffer(LARGE, wanted)
    times = []
    for _ in range(REPEATS + 1):
        place.record_copy(source[0], target[0], LARGE)
        times.append(device.loops.run(place.submit_info))
    device.free_buffer(*source)
    device.free_buffer(*target)
    return LARGE / median(times[1:]) * 1e9
