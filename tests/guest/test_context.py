"""A context from the frontend's side: blobs, fences, the end."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial

import pytest
from guest_client import DEVICE, FIRST_FREE_ID, RING_IDX, WAIT_SECONDS, Guest

from hesper.guest import (
    InvalidParameterError,
    InvalidResourceError,
    Limits,
    OutOfMemoryError,
)
from hesper.guest.backing import REGION_GRANULE
from hesper.portable import SharedMemory, page_size
from open_files import assert_closed_since, open_files

MakeGuest = Callable[..., Guest]
MIB = 1 << 20
OBJECTS = 128 << 10
"""More bytes than the few objects of these tests are charged."""
VK_ERROR_OUT_OF_DEVICE_MEMORY = -2


def test_a_plain_blob_is_zeroed_memory_in_whole_pages(make_guest: MakeGuest) -> None:
    guest = make_guest()
    _, blob = guest.blob(0, 131268)
    assert blob.size == -(-131268 // page_size()) * page_size()
    assert os.fstat(blob.fd).st_size >= blob.size
    with SharedMemory.from_fd(blob.fd, blob.size) as memory:
        assert not any(memory.view)


@pytest.mark.parametrize(("size", "flags"), [(0, 1), (-1, 1), (1 << 63, 1), (4096, 8)])
def test_a_blob_that_makes_no_sense_is_refused(
    make_guest: MakeGuest, size: int, flags: int
) -> None:
    with pytest.raises(InvalidParameterError):
        make_guest().context.create_blob(7, 0, size, flags)


@pytest.mark.parametrize("resource_id", [0, 1, -1, 1 << 32])
def test_an_id_out_of_range_or_taken_is_refused(make_guest: MakeGuest, resource_id: int) -> None:
    with pytest.raises(InvalidResourceError):
        make_guest().context.create_blob(resource_id, 0, 4096, 1)


def test_memory_of_the_guest_is_the_blobs_memory(guest: Guest) -> None:
    size = 5000  # no multiple of a page
    result, memory = guest.allocate(size)
    assert result == 0
    _, blob = guest.blob(memory, size)
    usage = 0x3  # transfer source and destination
    buffer = guest.create("Buffer", {"size": 4096, "usage": usage})
    bind = {"device": DEVICE, "buffer": buffer, "memory": memory}
    guest.ask("vkBindBufferMemory", **bind, memoryOffset=0)
    fill_and_wait(guest, buffer, 0x01020304)
    with SharedMemory.from_fd(blob.fd, blob.size) as seen:
        assert bytes(seen.view[:4096]) == b"\4\3\2\1" * 1024
        assert not any(seen.view[4096:])


def fill_and_wait(guest: Guest, buffer: int, value: int) -> None:
    """Have the driver fill a buffer of 4096 bytes."""
    pool = guest.create("CommandPool", {})
    commands = guest.new_id()
    info = {"commandPool": pool, "commandBufferCount": 1}
    guest.ask(
        "vkAllocateCommandBuffers", device=DEVICE, pAllocateInfo=info, pCommandBuffers=[commands]
    )
    guest.ask("vkBeginCommandBuffer", commandBuffer=commands, pBeginInfo={})
    guest.send(
        "vkCmdFillBuffer",
        commandBuffer=commands,
        dstBuffer=buffer,
        dstOffset=0,
        size=4096,
        data=value,
    )
    guest.ask("vkEndCommandBuffer", commandBuffer=commands)
    batch = {"commandBufferCount": 1, "pCommandBuffers": [commands]}
    guest.ask("vkQueueSubmit", queue=4, submitCount=1, pSubmits=[batch], fence=0)
    guest.wait_for_queue()


def test_a_blob_may_be_as_large_as_a_guests_larger_page_makes_it(guest: Guest) -> None:
    _, memory = guest.allocate(100)
    _, blob = guest.blob(memory, 65536)
    assert blob.size >= 65536
    with pytest.raises(InvalidParameterError, match="asked for"):
        guest.blob(memory, blob.size + 1)


def test_a_blob_outlives_its_memory(guest: Guest) -> None:
    _, memory = guest.allocate(4096)
    resource_id, blob = guest.blob(memory, 4096)
    guest.send("vkFreeMemory", device=DEVICE, memory=memory)
    with SharedMemory.from_fd(blob.fd, 4096) as seen:
        seen.view[0] = 1
    # The reply stream is one, too; the guest can map what the memory was rounded up to.
    assert guest.context.pool.used == MIB + REGION_GRANULE
    guest.context.destroy_resource(resource_id)
    assert guest.context.pool.used == MIB


@pytest.mark.parametrize("blob_id", [1, 3, FIRST_FREE_ID - 1, 1 << 63])
def test_only_mappable_memory_makes_a_blob(guest: Guest, blob_id: int) -> None:
    with pytest.raises(InvalidParameterError, match="no host-visible"):
        guest.blob(blob_id, 4096)


def test_unknown_resources_are_reported(make_guest: MakeGuest) -> None:
    with pytest.raises(InvalidResourceError, match="no resource 99"):
        make_guest().context.destroy_resource(99)


def test_imported_memory_is_checked_for_its_size(make_guest: MakeGuest) -> None:
    guest = make_guest()
    with SharedMemory.create(page_size(), "test") as memory:
        guest.context.import_resource(50, memory.fd, page_size())
        with pytest.raises(InvalidParameterError):
            guest.context.import_resource(51, memory.fd, page_size() + 1)
        with pytest.raises(InvalidResourceError):
            guest.context.import_resource(50, memory.fd, page_size())
    guest.context.destroy_resource(50)


def test_the_memory_limit_holds_for_blobs_and_allocations(make_guest: MakeGuest) -> None:
    guest = make_guest(Limits(memory=3 * MIB + OBJECTS)).start()
    result, memory = guest.allocate(MIB)
    assert result == 0
    assert guest.allocate(MIB + OBJECTS)[0] == VK_ERROR_OUT_OF_DEVICE_MEMORY
    with pytest.raises(OutOfMemoryError):
        guest.blob(0, MIB + OBJECTS)
    guest.send("vkFreeMemory", device=DEVICE, memory=memory)
    assert guest.allocate(2 * MIB)[0] == 0
    assert not guest.fatal


def test_the_resource_limit_holds(make_guest: MakeGuest) -> None:
    guest = make_guest(Limits(resources=2))
    guest.blob(0, 4096)
    with pytest.raises(OutOfMemoryError, match="more than 2"):
        guest.blob(0, 4096)


def test_fences_retire_in_order(guest: Guest) -> None:
    retired: list[int] = []
    last = threading.Event()
    for number in range(200):
        guest.context.fence(RING_IDX, partial(retired.append, number))
    guest.context.fence(RING_IDX, last.set)
    assert last.wait(WAIT_SECONDS)
    assert retired == list(range(200))


def test_the_cpus_timeline_retires_at_once(make_guest: MakeGuest) -> None:
    retired = threading.Event()
    make_guest().context.fence(0, retired.set)
    assert retired.is_set()


@pytest.mark.parametrize("ring_idx", [2, 63, 64, -1])
def test_a_timeline_without_a_queue_is_refused(guest: Guest, ring_idx: int) -> None:
    with pytest.raises(InvalidParameterError, match="no queue"):
        guest.context.fence(ring_idx, lambda: None)


def test_a_failing_callback_does_not_stop_the_timeline(guest: Guest) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    guest.context.fence(RING_IDX, fail)
    guest.wait_for_queue()


def test_close_retires_what_is_pending_and_frees_what_is_left(guest: Guest) -> None:
    retired = threading.Event()
    leave_everything(guest)
    guest.context.fence(RING_IDX, retired.set)
    guest.context.close()
    assert retired.is_set()
    assert guest.context.pool.used == 0
    guest.context.close()


def leave_everything(guest: Guest) -> None:
    """Make one of each kind of object that depends on others, and do not destroy it."""
    _, memory = guest.allocate(MIB)
    guest.blob(memory, MIB)
    buffer = guest.create("Buffer", {"size": 4096, "usage": 0x3})
    guest.ask("vkBindBufferMemory", device=DEVICE, buffer=buffer, memory=memory, memoryOffset=0)
    texels = guest.create("Buffer", {"size": 4096, "usage": 0x4})
    guest.ask("vkBindBufferMemory", device=DEVICE, buffer=texels, memory=memory, memoryOffset=8192)
    guest.create("BufferView", {"buffer": texels, "format": 37, "range": 4096})
    image = guest.create(
        "Image",
        {
            "imageType": 1,
            "format": 37,
            "extent": {"width": 16, "height": 16, "depth": 1},
            "mipLevels": 1,
            "arrayLayers": 1,
            "samples": 1,
            "usage": 0x4,
        },
    )
    guest.ask("vkBindImageMemory", device=DEVICE, image=image, memory=memory, memoryOffset=65536)
    whole = {"aspectMask": 1, "levelCount": 1, "layerCount": 1}
    guest.create(
        "ImageView", {"image": image, "viewType": 1, "format": 37, "subresourceRange": whole}
    )
    sets = guest.create("DescriptorSetLayout", {})
    layout = guest.create("PipelineLayout", {"setLayoutCount": 1, "pSetLayouts": [sets]})
    assert layout
    size = {"type": 6, "descriptorCount": 1}
    pool = guest.create("DescriptorPool", {"maxSets": 1, "poolSizeCount": 1, "pPoolSizes": [size]})
    info = {"descriptorPool": pool, "descriptorSetCount": 1, "pSetLayouts": [sets]}
    guest.ask(
        "vkAllocateDescriptorSets",
        device=DEVICE,
        pAllocateInfo=info,
        pDescriptorSets=[guest.new_id()],
    )
    commands = guest.create("CommandPool", {})
    info = {"commandPool": commands, "commandBufferCount": 1}
    guest.ask(
        "vkAllocateCommandBuffers",
        device=DEVICE,
        pAllocateInfo=info,
        pCommandBuffers=[guest.new_id()],
    )
    for type_ in ("Fence", "Semaphore", "Event", "PipelineCache"):
        guest.create(type_, {})
    guest.create("QueryPool", {"queryType": 2, "queryCount": 4})
    guest.create("Sampler", {"maxLod": 1.0})


def test_a_context_without_an_instance_closes_too(make_guest: MakeGuest) -> None:
    guest = make_guest()
    guest.blob(0, MIB)


def test_a_hundred_clients_leave_nothing(make_guest: MakeGuest) -> None:
    for _ in range(20):
        before = open_files()
        guest = make_guest().start()
        leave_everything(guest)
        guest.close()
        assert_closed_since(before)
