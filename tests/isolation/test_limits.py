"""A guest that takes all it can: what its worker grows by stays within `--limit`."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from typing import Any

from hostile_guest import CODEC, DEVICE, MIB, Hostile
from supervised import Supervised, until

from hesper.vk.enumerants import (
    VK_ERROR_OUT_OF_HOST_MEMORY,
    VK_ERROR_TOO_MANY_OBJECTS,
    VK_SUCCESS,
)

Serve = Callable[..., Supervised]

LIMIT = 64 * MIB
DRIVER_SHARE = 48 * MIB
"""What lavapipe takes besides, of which the ledger knows nothing: its first device and caches."""

BUFFER, MEMORY, POOL, COMMANDS, FENCE = 10, 11, 12, 13, 14
RING_SIZE = 4096


def executed(resource: int, size: int) -> dict[str, Any]:
    return {
        "streamCount": 1,
        "pStreams": [{"resourceId": resource, "offset": 0, "size": size}],
        "pReplyPositions": None,
        "dependencyCount": 0,
        "pDependencies": None,
        "flags": 0,
    }


def reached(server: Supervised, limit: str) -> None:
    """Wait for the line that says so, and names the option."""
    entry = server.logged("limit reached")
    assert (entry["limit"], entry["option"]) == (limit, f"--limit {limit}")


def test_a_command_buffer_that_is_recorded_without_end(serve: Serve) -> None:
    server = serve("--limit", "memory=64M")
    server.ready()
    guest = Hostile(server)
    guest.call(
        "vkCreateBuffer", device=DEVICE, pCreateInfo={"size": 65536, "usage": 3}, pBuffer=BUFFER
    )
    guest.call(
        "vkAllocateMemory",
        device=DEVICE,
        pAllocateInfo={"allocationSize": 65536},
        pMemory=MEMORY,
    )
    guest.call("vkBindBufferMemory", device=DEVICE, buffer=BUFFER, memory=MEMORY, memoryOffset=0)
    guest.call("vkCreateCommandPool", device=DEVICE, pCreateInfo={}, pCommandPool=POOL)
    guest.call(
        "vkAllocateCommandBuffers",
        device=DEVICE,
        pAllocateInfo={"commandPool": POOL, "commandBufferCount": 1},
        pCommandBuffers=[COMMANDS],
    )
    begin = {"commandBuffer": COMMANDS, "pBeginInfo": {}}
    assert guest.call("vkBeginCommandBuffer", **begin) == VK_SUCCESS
    update = {"commandBuffer": COMMANDS, "dstBuffer": BUFFER, "dstOffset": 0}
    one = CODEC.encode("vkCmdUpdateBuffer", {**update, "dataSize": 65536, "pData": bytes(65536)})
    stream, memory = guest.stream(one * 256)
    before = guest.resident()
    for _ in range(40):
        guest.send("vkExecuteCommandStreamsMESA", **executed(stream, len(memory)))
    guest.client.flush()
    assert guest.resident() - before < LIMIT + DRIVER_SHARE
    reached(server, "memory")
    assert guest.call("vkEndCommandBuffer", commandBuffer=COMMANDS) == VK_ERROR_OUT_OF_HOST_MEMORY
    assert guest.call("vkBeginCommandBuffer", **begin) == VK_SUCCESS
    guest.send("vkCmdUpdateBuffer", **update, dataSize=64, pData=bytes(64))
    assert guest.call("vkEndCommandBuffer", commandBuffer=COMMANDS) == VK_SUCCESS
    guest.client.sock.close()


def test_devices_without_end(serve: Serve) -> None:
    server = serve("--limit", "devices=4")
    server.ready()
    guest = Hostile(server)
    results = [guest.make_device(number) for number in range(100, 110)]
    assert results == [VK_SUCCESS] * 3 + [VK_ERROR_TOO_MANY_OBJECTS] * 7
    reached(server, "devices")
    guest.send("vkDestroyDevice", device=100)
    assert guest.make_device(200) == VK_SUCCESS
    guest.client.sock.close()


def test_rings_whose_commands_decode_to_much(serve: Serve) -> None:
    """Those for which there is no room wait for the others."""
    server = serve("--limit", "memory=96M")
    server.ready()
    guest = Hostile(server)
    guest.call("vkCreateFence", device=DEVICE, pCreateInfo={}, pFence=FENCE)
    count = 4_000_000
    few = CODEC.encode(
        "vkWaitForFences",
        {
            "device": DEVICE,
            "fenceCount": 1,
            "pFences": [FENCE],
            "waitAll": 1,
            "timeout": (1 << 64) - 1,
        },
    )
    # The count stands twice: before the list, and at its head.
    at = few.index(struct.pack("<QQ", 1, FENCE))
    head = bytearray(few[:at])
    struct.pack_into("<I", head, at - 4, count)
    fences = struct.pack("<Q", count) + struct.pack("<Q", FENCE) * count
    many = bytes(head) + fences + few[at + 16 :]
    stream, memory = guest.stream(many)
    before = guest.resident()
    execute = CODEC.encode("vkExecuteCommandStreamsMESA", executed(stream, len(memory)))
    rings = []
    for number in range(6):
        size = 4096 + RING_SIZE + 4096
        resource, fd = guest.client.create_blob(size)
        ring = mmap.mmap(fd, size)
        rings.append(ring)
        info = {
            "resourceId": resource, "offset": 0, "size": size, "idleTimeout": 1_000_000,
            "headOffset": 0, "tailOffset": 64, "statusOffset": 128, "bufferOffset": 4096,
            "bufferSize": RING_SIZE, "extraOffset": 4096 + RING_SIZE, "extraSize": 64,
        }  # fmt: skip
        guest.send("vkCreateRingMESA", ring=1 + number, pCreateInfo=info)
        guest.client.flush()
        ring[4096 : 4096 + len(execute)] = execute
        struct.pack_into("<I", ring, 64, len(execute))
    until(lambda: guest.resident() - before > 30 * MIB, "a ring that decodes")
    guest.client.flush()
    # There is room for the fences of three; for each the driver makes a list of its own, 24 bytes a
    # fence, of which the ledger knows nothing.
    assert guest.resident() - before < 96 * MIB + 3 * 24 * count + DRIVER_SHARE
    assert guest.call("vkGetFenceStatus", device=DEVICE, fence=FENCE) >= VK_SUCCESS
    guest.client.sock.close()
