"""Memory that buffers and images are bound to, on lavapipe, where every offset is an address."""

from __future__ import annotations

import pytest
from guest_client import DEVICE, QUEUE, Guest

from hesper.kernel.errors import ProtocolError

SIZE = 1 << 16
IMAGE = {
    "imageType": 1, "format": 37, "extent": {"width": 64, "height": 64, "depth": 1}, "mipLevels": 1,
    "arrayLayers": 1, "samples": 1, "tiling": 0, "usage": 3, "initialLayout": 0,
}  # fmt: skip


def memory(guest: Guest) -> int:
    result, made = guest.allocate(SIZE)
    assert result == 0
    return made


def buffer(guest: Guest, size: int = 4096) -> int:
    return guest.create("Buffer", {"size": size, "usage": 3})


def test_a_buffer_fits_at_the_end_of_its_memory(guest: Guest) -> None:
    at = {"memory": memory(guest), "memoryOffset": SIZE - 4096}
    guest.ask("vkBindBufferMemory", device=DEVICE, buffer=buffer(guest), **at)


@pytest.mark.parametrize("offset", [SIZE - 2048, SIZE, 1 << 20, (1 << 64) - 4096, (1 << 64) - 64])
@pytest.mark.parametrize("command", ["vkBindBufferMemory", "vkBindBufferMemory2"])
def test_a_buffer_is_not_bound_past_its_memory(guest: Guest, command: str, offset: int) -> None:
    info = {"buffer": buffer(guest), "memory": memory(guest), "memoryOffset": offset}
    many = {"bindInfoCount": 1, "pBindInfos": [info]}
    with pytest.raises(ProtocolError, match=f"4096 from {offset} on, where there are {SIZE}"):
        guest.send(command, device=DEVICE, **(many if command.endswith("2") else info))


@pytest.mark.parametrize("offset", [SIZE - 4096, SIZE, (1 << 64) - 4096])
@pytest.mark.parametrize("command", ["vkBindImageMemory", "vkBindImageMemory2"])
def test_an_image_is_not_bound_past_its_memory(guest: Guest, command: str, offset: int) -> None:
    info = {"image": guest.create("Image", IMAGE), "memory": memory(guest), "memoryOffset": offset}
    many = {"bindInfoCount": 1, "pBindInfos": [info]}
    with pytest.raises(ProtocolError, match=rf"\d+ from {offset} on, where there are {SIZE}"):
        guest.send(command, device=DEVICE, **(many if command.endswith("2") else info))


def test_memory_that_was_used_before_counts_as_it_is_asked_for_now(guest: Guest) -> None:
    first = memory(guest)
    guest.send("vkFreeMemory", device=DEVICE, memory=first)
    result, again = guest.allocate(SIZE // 2)
    assert result == 0
    at = {"memory": again, "memoryOffset": SIZE // 2}
    with pytest.raises(ProtocolError, match=f"where there are {SIZE // 2}"):
        guest.send("vkBindBufferMemory", device=DEVICE, buffer=buffer(guest), **at)


def test_sparse_memory_stays_within_what_there_is(guest: Guest) -> None:
    bind = {"resourceOffset": 0, "size": SIZE, "memory": memory(guest), "memoryOffset": SIZE}
    binds = {"buffer": buffer(guest), "bindCount": 1, "pBinds": [bind]}
    info = {"bufferBindCount": 1, "pBufferBinds": [binds]}
    with pytest.raises(ProtocolError, match=f"{SIZE} from {SIZE} on, where there are {SIZE}"):
        guest.send("vkQueueBindSparse", queue=QUEUE, bindInfoCount=1, pBindInfo=[info])
