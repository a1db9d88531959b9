"""What a command names lies within what there is: `facts/bounds.toml`, on a driver of no-ops."""

from __future__ import annotations

from typing import Any

import pytest

from hesper.kernel.errors import ProtocolError
from hesper.protocol.codec import Codec
from kernel.conftest import COMMAND_BUFFER, Host

CODEC = Codec()
A, B, QUERIES, STATISTICS, IMAGE, MEMORY, SET = 60, 61, 62, 63, 64, 65, 66
SIZE = 4096
ALL = (1 << 64) - 1
RGBA8, BC1, D24S8 = 37, 131, 129

CB = {"commandBuffer": COMMAND_BUFFER}


def region(offset: int, extent: tuple[int, int, int] = (16, 16, 1), **more: int) -> dict[str, Any]:
    """A VkBufferImageCopy."""
    place = {"aspectMask": more.get("aspect", 1), "mipLevel": 0, "baseArrayLayer": 0}
    return {
        "bufferOffset": offset,
        "bufferRowLength": more.get("row", 0),
        "bufferImageHeight": more.get("height", 0),
        "imageSubresource": place | {"layerCount": more.get("layers", 1)},
        "imageOffset": {"x": 0, "y": 0, "z": 0},
        "imageExtent": dict(zip(("width", "height", "depth"), extent, strict=True)),
    }


def fill(offset: int, size: int) -> tuple[str, dict[str, Any]]:
    return "vkCmdFillBuffer", CB | {"dstBuffer": A, "dstOffset": offset, "size": size, "data": 0}


def copy(source: int, target: int, size: int, before: int = 0) -> tuple[str, dict[str, Any]]:
    regions = [{"srcOffset": 0, "dstOffset": 0, "size": 4}] * before
    regions += [{"srcOffset": source, "dstOffset": target, "size": size}]
    buffers = {"srcBuffer": A, "dstBuffer": B}
    return "vkCmdCopyBuffer", CB | buffers | {"regionCount": len(regions), "pRegions": regions}


def copy_2(source: int, target: int, size: int) -> tuple[str, dict[str, Any]]:
    regions = [{"srcOffset": source, "dstOffset": target, "size": size}]
    buffers = {"srcBuffer": A, "dstBuffer": B}
    return "vkCmdCopyBuffer2", CB | {
        "pCopyBufferInfo": buffers | {"regionCount": 1, "pRegions": regions}
    }


def texels(one: dict[str, Any], image: int = IMAGE) -> tuple[str, dict[str, Any]]:
    names = {"srcBuffer": A, "dstImage": image, "dstImageLayout": 7}
    return "vkCmdCopyBufferToImage", CB | names | {"regionCount": 1, "pRegions": [one]}


def from_image(one: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    names = {"srcImage": IMAGE, "dstBuffer": A, "srcImageLayout": 6}
    return "vkCmdCopyImageToBuffer2", CB | {
        "pCopyImageToBufferInfo": names | {"regionCount": 1, "pRegions": [one]}
    }


def draw(name: str, offset: int, count: int, stride: int) -> tuple[str, dict[str, Any]]:
    return name, CB | {"buffer": A, "offset": offset, "drawCount": count, "stride": stride}


def vertices(buffers: list[int], offsets: list[int]) -> tuple[str, dict[str, Any]]:
    arrays = {"bindingCount": len(buffers), "pBuffers": buffers, "pOffsets": offsets}
    return "vkCmdBindVertexBuffers", CB | {"firstBinding": 0} | arrays


def vertices_2(offset: int, size: int) -> tuple[str, dict[str, Any]]:
    arrays = {"bindingCount": 1, "pBuffers": [A], "pOffsets": [offset], "pSizes": [size]}
    return "vkCmdBindVertexBuffers2", CB | {"firstBinding": 0} | arrays


def results(offset: int, count: int, stride: int, flags: int, pool: int = QUERIES) -> Any:
    pools = {"queryPool": pool, "firstQuery": 0, "queryCount": count}
    target = {"dstBuffer": A, "dstOffset": offset, "stride": stride, "flags": flags}
    return "vkCmdCopyQueryPoolResults", CB | pools | target


def describe(offset: int, size: int) -> tuple[str, dict[str, Any]]:
    write = {
        "dstSet": SET,
        "dstBinding": 0,
        "dstArrayElement": 0,
        "descriptorCount": 2,
        "descriptorType": 7,
        "pBufferInfo": [
            {"buffer": B, "offset": 0, "range": ALL},
            {"buffer": A, "offset": offset, "range": size},
        ],
    }
    return "vkUpdateDescriptorSets", {
        "device": 3,
        "descriptorWriteCount": 1,
        "pDescriptorWrites": [write],
    }


def index(offset: int) -> tuple[str, dict[str, Any]]:
    return "vkCmdBindIndexBuffer", CB | {"buffer": A, "offset": offset, "indexType": 0}


def sparse(offset: int, size: int) -> tuple[str, dict[str, Any]]:
    bind = {"resourceOffset": 0, "size": size, "memory": MEMORY, "memoryOffset": offset}
    bind_info = {
        "bufferBinds": [],
        "pBufferBinds": [{"buffer": A, "bindCount": 1, "pBinds": [bind]}],
    }
    return "vkQueueBindSparse", {
        "queue": 70,
        "bindInfoCount": 1,
        "pBindInfo": [bind_info | {"bufferBindCount": 1}],
    }


def view(offset: int, size: int) -> tuple[str, dict[str, Any]]:
    info = {"buffer": A, "format": RGBA8, "offset": offset, "range": size}
    return "vkCreateBufferView", {"device": 3, "pCreateInfo": info, "pView": 900}


def bind(offset: int, buffer: int = A) -> tuple[str, dict[str, Any]]:
    return "vkBindBufferMemory", {
        "device": 3,
        "buffer": buffer,
        "memory": MEMORY,
        "memoryOffset": offset,
    }


def bind_2(command: str, kind: str, objects: list[int], offsets: list[int]) -> Any:
    pairs = zip(objects, offsets, strict=True)
    infos = [{kind: one, "memory": MEMORY, "memoryOffset": offset} for one, offset in pairs]
    return command, {"device": 3, "bindInfoCount": len(infos), "pBindInfos": infos}


def bind_image(offset: int) -> tuple[str, dict[str, Any]]:
    return "vkBindImageMemory", {
        "device": 3,
        "image": IMAGE,
        "memory": MEMORY,
        "memoryOffset": offset,
    }


@pytest.fixture
def bounded(host: Host) -> Host:
    """Objects with sizes, as the commands that make them leave them behind."""
    send(host, "vkCreateBuffer", device=3, pCreateInfo={"size": SIZE, "usage": 3}, pBuffer=A)
    send(host, "vkCreateBuffer", device=3, pCreateInfo={"size": 2 * SIZE, "usage": 3}, pBuffer=B)
    for pool, kind, statistics in ((QUERIES, 0, 0), (STATISTICS, 1, 0x7)):
        info: dict[str, Any] = {
            "queryType": kind,
            "queryCount": 8,
            "pipelineStatistics": statistics,
        }
        send(host, "vkCreateQueryPool", device=3, pCreateInfo=info, pQueryPool=pool)
    extent = {"width": 64, "height": 64, "depth": 1}
    for image, format_ in ((IMAGE, RGBA8), (IMAGE + 100, BC1), (IMAGE + 200, D24S8)):
        info = {"imageType": 1, "format": format_, "extent": extent, "mipLevels": 1}
        info |= {"arrayLayers": 4, "samples": 1, "tiling": 0, "usage": 3, "initialLayout": 0}
        send(host, "vkCreateImage", device=3, pCreateInfo=info, pImage=image)
    info = {"allocationSize": 2 * SIZE, "memoryTypeIndex": 0}
    send(host, "vkAllocateMemory", device=3, pAllocateInfo=info, pMemory=MEMORY)
    host.engine.objects.add(SET, "VkDescriptorSet", 7, device=3)
    host.engine.objects.add(70, "VkQueue", 7, device=3, parent=3)
    return host


def send(host: Host, name: str, **parameters: Any) -> None:
    host.engine.submit(CODEC.encode(name, parameters))


WITHIN = [
    fill(0, SIZE),
    fill(SIZE, 0),
    fill(SIZE - 4, 4),
    fill(8, ALL),
    fill(SIZE, ALL),
    copy(0, SIZE, SIZE),
    copy(SIZE - 4, 2 * SIZE - 4, 4, before=2),
    copy_2(0, SIZE, SIZE),
    texels(region(SIZE - 1024)),
    texels(region(0, layers=4)),
    texels(region(0, row=64)),
    texels(region(SIZE - 128), IMAGE + 100),
    texels(region(SIZE - 256, aspect=4), IMAGE + 200),
    from_image(region(SIZE - 1024)),
    texels(region(0, layers=0xFFFFFFFF)),
    draw("vkCmdDrawIndirect", 0, 256, 16),
    draw("vkCmdDrawIndirect", SIZE - 16, 1, 1 << 30),
    draw("vkCmdDrawIndexedIndirect", SIZE - 20, 1, 0),
    draw("vkCmdDrawIndirect", SIZE, 0, 0),
    vertices([A, B, 0], [SIZE, 2 * SIZE, ALL]),
    vertices_2(8, SIZE - 8),
    vertices_2(8, ALL),
    results(SIZE - 64, 8, 8, 1),
    results(SIZE - 24, 1, 0, 1, STATISTICS),
    describe(0, SIZE),
    describe(SIZE - 4, ALL),
    index(SIZE),
    sparse(0, 2 * SIZE),
    sparse(SIZE, SIZE),
    view(0, SIZE),
    view(16, ALL),
    bind(0),
    bind(SIZE),
    bind(0, B),
    bind_image(0),
    bind_2("vkBindBufferMemory2", "buffer", [B, A], [0, SIZE]),
    bind_2("vkBindImageMemory2", "image", [IMAGE], [0]),
    ("vkCmdDispatchIndirect", CB | {"buffer": A, "offset": SIZE - 12}),
    (
        "vkCmdUpdateBuffer",
        CB | {"dstBuffer": A, "dstOffset": SIZE - 4, "dataSize": 4, "pData": bytes(4)},
    ),
    ("vkCmdResetQueryPool", CB | {"queryPool": QUERIES, "firstQuery": 4, "queryCount": 4}),
    ("vkCmdBeginQuery", CB | {"queryPool": QUERIES, "query": 7, "flags": 0}),
]

BEYOND = [
    fill(0, SIZE + 4),
    fill(SIZE + 4, 0),
    fill(SIZE + 4, ALL),
    fill(ALL - 3, 8),
    fill(8, ALL - 3),
    copy(4, 0, SIZE),
    copy(0, SIZE + 4, SIZE),
    copy(ALL - 3, 0, 8),
    copy(0, 0, ALL),
    copy_2(4, 0, SIZE),
    copy_2(0, SIZE + 4, SIZE),
    copy(SIZE, 0, 4, before=3),
    texels(region(SIZE - 1020)),
    texels(region(4, layers=4)),
    texels(region(256, row=64)),
    texels(region(SIZE - 124), IMAGE + 100),
    texels(region(SIZE - 255, aspect=4), IMAGE + 200),
    from_image(region(SIZE - 1020)),
    texels(region(4, layers=0xFFFFFFFF)),
    texels(region(0, (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF), layers=4)),
    texels(region(0, (1, 2, 1), row=0xFFFFFFFF)),
    texels(region(0, (1, 1, 2), height=0xFFFFFFFF)),
    draw("vkCmdDrawIndirect", 4, 256, 16),
    draw("vkCmdDrawIndirect", 0, 2, SIZE),
    draw("vkCmdDrawIndexedIndirect", SIZE - 16, 1, 0),
    draw("vkCmdDrawIndirect", 0, 0xFFFFFFFF, 0xFFFFFFFC),
    vertices([B, A], [0, SIZE + 4]),
    vertices_2(8, SIZE),
    results(SIZE - 64, 8, 16, 1),
    results(SIZE - 4, 1, 0, 1),
    results(0, 2, ALL, 1),
    results(SIZE - 16, 1, 0, 1, STATISTICS),
    results(SIZE - 16, 1, 0, 1 | 4 | 16),  # with availability and status, which Vulkan forbids
    results(0, 9, 8, 1),
    describe(4, SIZE),
    describe(SIZE + 4, ALL),
    index(SIZE + 1),
    sparse(SIZE + 4, SIZE),
    sparse(ALL - 3, 8),
    sparse(0, 2 * SIZE + 4),
    view(4, SIZE),
    bind(SIZE + 256),
    bind(ALL - 255),
    bind(256, B),
    bind_image(256),
    bind_image(ALL - 255),
    bind_2("vkBindBufferMemory2", "buffer", [A, B], [0, SIZE]),
    bind_2("vkBindImageMemory2", "image", [IMAGE, IMAGE], [0, 256]),
    ("vkCmdDispatchIndirect", CB | {"buffer": A, "offset": SIZE - 8}),
    (
        "vkCmdUpdateBuffer",
        CB | {"dstBuffer": A, "dstOffset": SIZE, "dataSize": 4, "pData": bytes(4)},
    ),
    ("vkCmdResetQueryPool", CB | {"queryPool": QUERIES, "firstQuery": 5, "queryCount": 4}),
    ("vkCmdResetQueryPool", CB | {"queryPool": QUERIES, "firstQuery": 0xFFFFFFFF, "queryCount": 1}),
    ("vkCmdBeginQuery", CB | {"queryPool": QUERIES, "query": 8, "flags": 0}),
]


@pytest.mark.parametrize("command", WITHIN, ids=lambda command: command[0])
def test_what_lies_within_is_served(bounded: Host, command: tuple[str, dict[str, Any]]) -> None:
    name, parameters = command
    send(bounded, name, **parameters)
    assert bounded.fatal == []


@pytest.mark.parametrize("command", BEYOND, ids=lambda command: command[0])
def test_what_lies_beyond_ends_the_context(
    bounded: Host, command: tuple[str, dict[str, Any]]
) -> None:
    name, parameters = command
    with pytest.raises(
        ProtocolError, match=rf"{name} at byte \d+: .*: \d+ from \d+ on, where there"
    ):
        send(bounded, name, **parameters)
    assert bounded.engine.fatal


def test_the_message_names_the_place_and_the_numbers(bounded: Host) -> None:
    name, parameters = fill(4092, 8)
    with pytest.raises(ProtocolError, match="dstOffset: 8 from 4092 on, where there are 4096"):
        send(bounded, name, **parameters)


def test_an_object_whose_size_nobody_knows_bounds_nothing(host: Host) -> None:
    host.engine.objects.add(A, "VkBuffer", 7, device=3)
    name, parameters = fill(ALL - 3, 8)
    send(host, name, **parameters)


def test_the_next_object_of_that_id_has_its_own_size(bounded: Host) -> None:
    send(bounded, "vkDestroyBuffer", device=3, buffer=A)
    send(bounded, "vkCreateBuffer", device=3, pCreateInfo={"size": 16, "usage": 3}, pBuffer=A)
    name, parameters = fill(0, 20)
    with pytest.raises(ProtocolError, match="where there are 16"):
        send(bounded, name, **parameters)


def test_an_offset_that_the_driver_does_not_take(bounded: Host) -> None:
    name, parameters = bind(128)
    with pytest.raises(ProtocolError, match="offset 128, which must be a multiple of 256"):
        send(bounded, name, **parameters)
