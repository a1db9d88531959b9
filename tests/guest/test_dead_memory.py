"""Allocations that fail without the guest hearing of it: what it does next does not end it."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from guest_client import DEVICE, QUEUE, REPLY_SIZE, Guest, MakeGuest

from hesper.guest import Limits
from hesper.guest.errors import OutOfMemoryError
from hesper.portable import page_size
from hesper.vk.enumerants import (
    VK_ERROR_DEVICE_LOST,
    VK_ERROR_OUT_OF_DEVICE_MEMORY,
)

LIMIT = REPLY_SIZE + (8 << 20)


@pytest.fixture
def guest(make_guest: MakeGuest) -> Guest:
    return make_guest(Limits(memory=LIMIT)).start()


def allocate(guest: Guest, size: int) -> int:
    """Allocate as Mesa does: without waiting."""
    guest_id = guest.new_id()
    info = {"allocationSize": size, "memoryTypeIndex": 0}
    guest.send("vkAllocateMemory", device=DEVICE, pAllocateInfo=info, pMemory=guest_id)
    return guest_id


def make_buffer(guest: Guest) -> int:
    return guest.create("Buffer", {"size": 4096, "usage": 3, "sharingMode": 0})


def bind(guest: Guest, buffer: int, memory: int) -> None:
    info = {"buffer": buffer, "memory": memory, "memoryOffset": 0}
    guest.send("vkBindBufferMemory2", device=DEVICE, bindInfoCount=1, pBindInfos=[info])


def is_well(guest: Guest) -> bool:
    return guest.call("vkDeviceWaitIdle", device=DEVICE)[0] == 0 and not guest.fatal


def test_freeing_what_was_not_allocated(guest: Guest) -> None:
    for _ in range(3):
        memory = allocate(guest, 2 * LIMIT)
        assert guest.context.engine.objects.failure(memory) == VK_ERROR_OUT_OF_DEVICE_MEMORY
        guest.send("vkFreeMemory", device=DEVICE, memory=memory)
    assert is_well(guest)


def test_mapping_what_was_not_allocated(guest: Guest) -> None:
    memory = allocate(guest, 2 * LIMIT)
    with pytest.raises(OutOfMemoryError, match=f"allocation of memory {memory} has failed"):
        guest.blob(memory, 4096)
    guest.send("vkFreeMemory", device=DEVICE, memory=memory)
    assert is_well(guest)


def test_memory_that_is_being_given_back_is_waited_for(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest has freed it on a ring, and the frontend has not come to its resource yet."""
    monkeypatch.setattr("hesper.guest.memory.ROOM_SECONDS", 20)
    memory = allocate(guest, 6 << 20)
    resource_id, _ = guest.blob(memory, 6 << 20)
    guest.send("vkFreeMemory", device=DEVICE, memory=memory)
    assert guest.context.engine.resources.unreferenced() == 6 << 20
    frontend = threading.Timer(0.01, guest.context.destroy_resource, [resource_id])
    frontend.start()
    memory = allocate(guest, 6 << 20)
    frontend.join()
    assert guest.context.engine.objects.failure(memory) is None
    assert guest.context.engine.resources.unreferenced() == 0


def test_importing_what_was_not_allocated(guest: Guest) -> None:
    chain = [("VkImportMemoryResourceInfoMESA", {"resourceId": 999})]
    info = {"pNext": chain, "allocationSize": 4096, "memoryTypeIndex": 0}
    memory = guest.new_id()
    guest.send("vkAllocateMemory", device=DEVICE, pAllocateInfo=info, pMemory=memory)
    guest.send("vkFreeMemory", device=DEVICE, memory=memory)
    assert is_well(guest)


def test_using_what_was_not_allocated(guest: Guest) -> None:
    """Lavapipe would write to an address near 0."""
    buffer = make_buffer(guest)
    bind(guest, buffer, allocate(guest, 2 * LIMIT))
    pool = guest.create("CommandPool", {"queueFamilyIndex": 0})
    commands = guest.new_id()
    info = {"commandPool": pool, "commandBufferCount": 1}
    guest.ask(
        "vkAllocateCommandBuffers", device=DEVICE, pAllocateInfo=info, pCommandBuffers=[commands]
    )
    guest.send("vkBeginCommandBuffer", commandBuffer=commands, pBeginInfo={})
    guest.send("vkCmdFillBuffer", commandBuffer=commands, dstBuffer=buffer, size=4096, data=1)
    guest.send("vkEndCommandBuffer", commandBuffer=commands)
    assert is_well(guest)
    batch = {"commandBufferCount": 1, "pCommandBuffers": [commands]}
    guest.send("vkQueueSubmit", queue=QUEUE, submitCount=1, pSubmits=[batch], fence=0)
    assert guest.call("vkDeviceWaitIdle", device=DEVICE)[0] == VK_ERROR_DEVICE_LOST
    guest.wait_for_queue()
    assert not guest.fatal
    # What is left goes with the device, dead or not.


@pytest.fixture
def few_descriptors() -> Iterator[int]:
    """Allow for no more descriptors than there are, and a few; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(int(each) for each in os.listdir("/dev/fd")) + 40
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_running_out_of_descriptors(
    make_guest: MakeGuest, few_descriptors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Any] = []
    log = SimpleNamespace(
        warning=lambda _, **facts: said.append(facts), debug=lambda *_, **__: None
    )
    monkeypatch.setattr("hesper.guest.context.log", log)
    guest = make_guest().start()
    allocated = []
    while guest.context.engine.objects.failure(memory := allocate(guest, page_size())) is None:
        allocated.append(memory)
    assert 10 < len(allocated) < few_descriptors
    with pytest.raises(OutOfMemoryError):
        guest.blob(memory, page_size())
    # Some are left for what has no other answer.
    spare = [os.dup(0) for _ in range(8)]
    for fd in spare:
        os.close(fd)
    assert [each["command"] for each in said] == ["vkAllocateMemory"]
    assert f"the process may have {few_descriptors}" in said[0]["reason"]
    guest.send("vkFreeMemory", device=DEVICE, memory=allocated.pop())
    assert guest.context.engine.objects.failure(allocate(guest, page_size())) is None
    assert is_well(guest)
