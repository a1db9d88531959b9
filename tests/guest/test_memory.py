"""Device memory from spare pieces, which the kernel allocates and frees by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from guest_client import DEVICE, REPLY_SIZE, Guest

from hesper.guest import Limits
from hesper.kernel.errors import ProtocolError
from hesper.portable import SharedMemory

MakeGuest = Callable[..., Guest]

SIZE = 64 << 10
VK_ERROR_OUT_OF_HOST_MEMORY = -1
VK_ERROR_OUT_OF_DEVICE_MEMORY = -2
VK_ERROR_INVALID_OPAQUE_CAPTURE_ADDRESS = -1000257000


def handler_calls(guest: Guest) -> int:
    return guest.context.engine.statistics()["handler_calls"]


def allocate(guest: Guest, size: int = SIZE, **more: Any) -> int:
    result, memory = guest.allocate(size, **more)
    assert result == 0
    return memory


def address(guest: Guest, memory: int) -> int:
    region = guest.context.engine.devices.share_memory(memory)
    return region.address


def free(guest: Guest, memory: int) -> None:
    guest.send("vkFreeMemory", device=DEVICE, memory=memory)


def test_what_was_freed_is_allocated_again_without_python(guest: Guest) -> None:
    memory = allocate(guest)
    where = address(guest, memory)
    free(guest, memory)
    assert guest.context.engine.objects.lookup(memory) is None
    calls = handler_calls(guest)
    again = allocate(guest, SIZE - 100)
    assert address(guest, again) == where
    assert guest.context.engine.objects.lookup(again, "VkDeviceMemory") is not None
    assert guest.context.pool.used == SIZE + REPLY_SIZE
    assert handler_calls(guest) == calls
    _, blob = guest.blob(again, SIZE)
    with SharedMemory.from_fd(blob.fd, SIZE) as seen, SharedMemory.from_fd(blob.fd, SIZE) as other:
        seen.view[5] = 42
        assert other.view[5] == 42


def contents(guest: Guest, memory: int, size: int = SIZE) -> bytes:
    _, blob = guest.blob(memory, size)
    with SharedMemory.from_fd(blob.fd, size) as seen:
        return bytes(seen.view)


@pytest.mark.parametrize("by_handler", [False, True])
def test_what_is_allocated_again_is_zero(guest: Guest, by_handler: bool) -> None:
    # Programs fill a part of what bare drivers give them cleared, and let the GPU read the rest.
    memory = allocate(guest)
    where = address(guest, memory)
    resource, blob = guest.blob(memory, SIZE)
    with SharedMemory.from_fd(blob.fd, SIZE) as seen:
        seen.view[:] = b"\xa5" * SIZE
    guest.context.destroy_resource(resource)
    free(guest, memory)
    opaque = [("VkMemoryOpaqueCaptureAddressAllocateInfo", {"opaqueCaptureAddress": 0})]
    calls = handler_calls(guest)
    again = allocate(guest, SIZE - 100, chain=opaque if by_handler else ())
    assert handler_calls(guest) - calls == by_handler
    assert address(guest, again) == where
    assert contents(guest, again) == bytes(SIZE)


def test_what_the_guest_still_maps_is_not_used_again(guest: Guest) -> None:
    memory = allocate(guest)
    where = address(guest, memory)
    resource, _ = guest.blob(memory, SIZE)
    free(guest, memory)
    assert address(guest, allocate(guest)) != where
    guest.context.destroy_resource(resource)
    assert address(guest, allocate(guest)) == where


def test_what_others_may_map_is_never_used_again(guest: Guest) -> None:
    memory = allocate(guest)
    guest.context.create_blob(900, memory, SIZE, 0x3)
    guest.context.destroy_resource(900)
    free(guest, memory)
    assert guest.context.pool.take(SIZE) is None


@pytest.mark.parametrize(
    ("chain", "by_handler"),
    [
        ([("VkExportMemoryAllocateInfo", {"handleTypes": 0x200})], False),
        ([("VkMemoryAllocateFlagsInfo", {"flags": 0, "deviceMask": 0})], False),
        ([("VkMemoryOpaqueCaptureAddressAllocateInfo", {"opaqueCaptureAddress": 0})], True),
    ],
)
def test_what_needs_a_decision_goes_to_the_handler(
    guest: Guest, chain: Any, by_handler: bool
) -> None:
    free(guest, allocate(guest))
    calls = handler_calls(guest)
    allocate(guest, chain=chain)
    assert handler_calls(guest) - calls == by_handler


@pytest.mark.parametrize("size", [SIZE, SIZE - 100])
def test_shared_memory_is_never_dedicated(guest: Guest, size: int) -> None:
    """So it can be rounded up: tests/drivers holds that against drivers that insist on it."""
    buffer = guest.create("Buffer", {"size": 1000, "usage": 3})
    dedicated = [("VkMemoryDedicatedAllocateInfo", {"buffer": buffer})]
    free(guest, allocate(guest))
    calls = handler_calls(guest)
    allocate(guest, size, chain=dedicated)
    assert handler_calls(guest) == calls
    allocate(guest, size, chain=dedicated)
    assert handler_calls(guest) == calls + 1


def test_a_refused_capture_address_costs_nothing(guest: Guest) -> None:
    free(guest, allocate(guest))
    used = guest.context.pool.used
    chain = [("VkMemoryOpaqueCaptureAddressAllocateInfo", {"opaqueCaptureAddress": 4096})]
    result, _ = guest.allocate(SIZE, chain=chain)
    assert result == VK_ERROR_INVALID_OPAQUE_CAPTURE_ADDRESS
    assert guest.context.pool.used == used


def test_spare_pieces_do_not_outwit_the_memory_limit(make_guest: MakeGuest) -> None:
    guest = make_guest(Limits(memory=REPLY_SIZE + 3 * SIZE // 2)).start()
    memory = allocate(guest)
    free(guest, memory)
    held = allocate(guest)
    assert guest.allocate(SIZE)[0] == VK_ERROR_OUT_OF_DEVICE_MEMORY
    free(guest, held)
    allocate(guest)


def test_the_object_limit_holds_for_spare_pieces(make_guest: MakeGuest) -> None:
    guest = make_guest().start()
    used = guest.context.pool.used
    live = guest.context.engine.statistics()["objects"]
    narrow = make_guest(Limits(objects=live + 1)).start()
    allocate(narrow)
    spare = SharedMemory.create(SIZE, "hesper-test")
    narrow.context.pool.add(spare, SIZE, reusable=True).release()
    calls = handler_calls(narrow)
    assert narrow.allocate(SIZE)[0] == VK_ERROR_OUT_OF_HOST_MEMORY
    assert handler_calls(narrow) == calls
    assert narrow.context.pool.used == used + SIZE
    assert narrow.context.pool.take(SIZE) is not None


def test_an_id_in_use_costs_no_spare_piece(guest: Guest) -> None:
    memory = allocate(guest)
    free(guest, allocate(guest))
    used = guest.context.pool.used
    with pytest.raises(ProtocolError, match="taken"):
        guest.send(
            "vkAllocateMemory",
            device=DEVICE,
            pAllocateInfo={"allocationSize": SIZE},
            pMemory=memory,
        )
    assert guest.context.pool.used == used
    assert guest.context.pool.take(SIZE) is not None


def test_memory_of_a_lost_device_is_released(make_guest: MakeGuest) -> None:
    """The fixture checks what is left when guests leave without freeing anything."""
    guest = make_guest().start()
    for _ in range(3):
        memory = allocate(guest)
        guest.blob(memory, SIZE)
    free(guest, allocate(guest))
    guest.send("vkDestroyDevice", device=DEVICE)
    assert guest.context.pool.used > 0  # resources outlive the device
