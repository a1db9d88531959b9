"""What another driver calls otherwise: types and sizes of memory, families, addresses."""

from __future__ import annotations

import io
from typing import Any

import pytest
from recordings import command, file_of, read

from hesper.protocol.codec import Codec
from hesper.protocol.codec import Reader as WireReader
from hesper.trace.decoded import Decoded, decode
from hesper.trace.plan import Plan
from hesper.trace.records import BLOB_BODY, Kind, Reader, put
from hesper.trace.translate import Translation, Wants
from hesper.vk.enumerants import (
    VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT as LOCAL,
)
from hesper.vk.enumerants import (
    VK_MEMORY_PROPERTY_HOST_CACHED_BIT as CACHED,
)
from hesper.vk.enumerants import (
    VK_MEMORY_PROPERTY_HOST_COHERENT_BIT as COHERENT,
)
from hesper.vk.enumerants import (
    VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT as VISIBLE,
)

CODEC = Codec()
ALL = (1 << 32) - 1
EVERYTHING = LOCAL | VISIBLE | COHERENT | CACHED
DISCRETE = [LOCAL, VISIBLE | COHERENT, VISIBLE | COHERENT | CACHED]


def decoded(name: str, **parameters: Any) -> Decoded:
    """A command of a recording."""
    _, records = read(file_of(command(CODEC.encode(name, parameters))))
    return decode(0, records[0])


def again(data: bytes | None) -> dict[str, Any]:
    """The parameters in a command's bytes."""
    assert data is not None
    return CODEC.decode(WireReader(data))[2]


def allocation(size: int = 4096) -> Decoded:
    info = {"allocationSize": size, "memoryTypeIndex": 0}
    return decoded("vkAllocateMemory", device=3, pAllocateInfo=info, pMemory=9)


@pytest.mark.parametrize(
    ("wants", "index", "size"),
    [
        (Wants(True, ALL, 0), 2, 4096),
        (Wants(False, ALL, 0), 0, 4096),
        (Wants(True, 0b011, 0), 1, 4096),
        (Wants(False, 0b100, 0), 2, 4096),
        (Wants(False, ALL, 5000), 0, 5000),
        # Nothing fits: it stays, and the driver says so.
        (Wants(True, 0b001, 0), 0, 4096),
    ],
)
def test_memory_is_of_a_type_that_there_is(wants: Wants, index: int, size: int) -> None:
    translation = Translation()
    translation.types_then, translation.types_now = [EVERYTHING], DISCRETE
    info = again(translation.apply(allocation(), wants))["pAllocateInfo"]
    assert (info["memoryTypeIndex"], info["allocationSize"]) == (index, size)


@pytest.mark.parametrize(
    ("chain", "is_mapped", "size"),
    [
        ([("VkMemoryDedicatedAllocateInfo", {"image": 20})], False, 3000),
        ([("VkMemoryDedicatedAllocateInfo", {"buffer": 20})], False, 3000),
        ([("VkMemoryDedicatedAllocateInfo", {})], False, 4096),
        ([], False, 4096),
        # The guest has made a resource of all of it.
        ([("VkMemoryDedicatedAllocateInfo", {"image": 20})], True, 4096),
    ],
)
def test_memory_for_one_thing_alone_has_its_size(
    chain: list[Any], size: int, *, is_mapped: bool
) -> None:
    translation = Translation()
    translation.types_then, translation.types_now = [EVERYTHING], DISCRETE
    info = {"pNext": chain, "allocationSize": 4096, "memoryTypeIndex": 0}
    then = decoded("vkAllocateMemory", device=3, pAllocateInfo=info, pMemory=9)
    found = again(translation.apply(then, Wants(is_mapped, ALL, 3000)))["pAllocateInfo"]
    assert found["allocationSize"] == size
    assert len(found["pNext"]) == len(chain)


def test_the_same_driver_gets_the_same_bytes() -> None:
    then = allocation()
    assert Translation().apply(then) == then.data


def test_families_are_others_wherever_they_stand() -> None:
    translation = Translation()
    translation.queues.families = {0: 2}
    pool = decoded(
        "vkCreateCommandPool", device=3, pCreateInfo={"queueFamilyIndex": 0}, pCommandPool=9
    )
    assert again(translation.apply(pool))["pCreateInfo"]["queueFamilyIndex"] == 2
    barrier = decoded(
        "vkCmdPipelineBarrier",
        commandBuffer=4,
        bufferMemoryBarrierCount=1,
        pBufferMemoryBarriers=[
            {"srcQueueFamilyIndex": 0, "dstQueueFamilyIndex": 0xFFFFFFFE, "buffer": 5}
        ],
    )
    (found,) = again(translation.apply(barrier))["pBufferMemoryBarriers"]
    assert (found["srcQueueFamilyIndex"], found["dstQueueFamilyIndex"]) == (2, 0xFFFFFFFE)


def test_addresses_are_found_by_the_buffer_they_lie_in() -> None:
    translation = Translation()
    translation.sizes[17] = 0x100
    asked = {"device": 3, "pInfo": {"buffer": 17}}
    data = CODEC.encode("vkGetBufferDeviceAddress", asked, reply=True)
    number = data[:4]
    then = number + (0x7000).to_bytes(8, "little")
    now = number + (0x9000).to_bytes(8, "little")
    _, records = read(file_of(command(data, then)))
    translation.learn(decode(0, records[0]), now)
    assert translation.address(0x7000) == 0x9000
    assert translation.address(0x70FF) == 0x90FF
    assert translation.address(0x7100) == 0x7100
    assert translation.address(0x6FFF) == 0x6FFF


def test_what_becomes_of_memory_is_read_ahead() -> None:
    image = CODEC.encode("vkCreateImage", {"device": 3, "pCreateInfo": {}, "pImage": 20})
    buffer = CODEC.encode("vkCreateBuffer", {"device": 3, "pCreateInfo": {}, "pBuffer": 21})
    info = {"allocationSize": 64}
    memory = [
        CODEC.encode("vkAllocateMemory", {"device": 3, "pAllocateInfo": info, "pMemory": id_})
        for id_ in (9, 10)
    ]
    bind = CODEC.encode(
        "vkBindImageMemory2",
        {"device": 3, "bindInfoCount": 1, "pBindInfos": [{"image": 20, "memory": 9}]},
    )
    late = CODEC.encode(
        "vkBindBufferMemory", {"device": 3, "buffer": 21, "memory": 10, "memoryOffset": 16}
    )
    records = b"".join(map(command, (image, *memory, bind, buffer, late)))
    records += put(Kind.BLOB, BLOB_BODY.pack(5, 1, 10, 64))
    plan = Plan(Reader(io.BytesIO(file_of(records))))
    # By the numbers of their commands, of which a replay may leave some out.
    assert [*plan.allocations] == [1, 2]
    first, second = plan.allocations.values()
    assert [(each.id, each.is_image) for each in first.bound] == [(20, True)]
    assert (first.starts, second.starts) == ({0}, {16})
    assert not first.is_mapped
    assert second.is_mapped
    # It was made after its memory, and cannot be asked about.
    assert second.bound == []
