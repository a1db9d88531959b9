"""Parts of images lie within them, and what is rendered to is large enough: `facts/bounds.toml`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hesper.kernel.errors import ProtocolError
from hesper.protocol.codec import Codec
from kernel.conftest import COMMAND_BUFFER, LAYOUT, Host

Command = tuple[str, dict[str, Any]]

CODEC = Codec()
CB: dict[str, Any] = {"commandBuffer": COMMAND_BUFFER}
FLAT, LIKE, DEEP, CUBE, BC1, RG32, PLANES, DEPTH, ONE, MEMORY, BUFFER, QUEUE = range(60, 72)
VIEW, SMALL, THIN, OTHER = 80, 81, 82, 83
PASS, SPARING, MANY, FRAME, EMPTY, LEVEL = 90, 91, 92, 93, 94, 95
REMAINING = 0xFFFFFFFF
COLOR, DEPTH_ASPECT, PLANE_0, PLANE_1, PLANE_2 = 1, 2, 0x10, 0x20, 0x40
UNKNOWN = 999
RGBA8 = 37


def image(format_: int, width: int, height: int, depth: int = 1, **more: int) -> dict[str, Any]:
    """A VkImageCreateInfo."""
    info: dict[str, Any] = {"imageType": 2 if depth > 1 else 1, "format": format_, "mipLevels": 1}
    info |= {"extent": {"width": width, "height": height, "depth": depth}, "arrayLayers": 1}
    return info | {"samples": 1, "tiling": 0, "usage": 3, "initialLayout": 0} | more


IMAGES = {
    FLAT: image(RGBA8, 64, 40, mipLevels=3, arrayLayers=4),
    LIKE: image(RGBA8, 64, 40, mipLevels=3, arrayLayers=4),
    DEEP: image(RGBA8, 64, 40, 16, mipLevels=3, flags=0x20),
    CUBE: image(RGBA8, 16, 16, arrayLayers=13, flags=0x10),
    BC1: image(131, 62, 40, mipLevels=6, flags=0x88),
    RG32: image(103, 16, 10),
    PLANES: image(1000156002, 64, 40),
    DEPTH: image(129, 64, 40),
    ONE: image(RGBA8, 64, 1, imageType=0),
}
"""R8G8B8A8; three-dimensional; cubes; BC1, seen in blocks; R32G32; three planes; D24S8."""


def layers(level: int = 0, base: int = 0, count: int = 1, aspect: int = COLOR) -> dict[str, int]:
    """A VkImageSubresourceLayers."""
    return {"aspectMask": aspect, "mipLevel": level, "baseArrayLayer": base, "layerCount": count}


def offset(x: int = 0, y: int = 0, z: int = 0) -> dict[str, int]:
    return {"x": x, "y": y, "z": z}


def size(width: int, height: int, depth: int = 1) -> dict[str, int]:
    return {"width": width, "height": height, "depth": depth}


def copy(
    source: int,
    target: int,
    extent: dict[str, int],
    *,
    start: tuple[dict[str, int], dict[str, int]] | None = None,
    at: tuple[dict[str, int], dict[str, int]] | None = None,
    command: str = "vkCmdCopyImage",
) -> Command:
    """A copy: its extent; the layers of both sides, and where it begins there."""
    from_, to = start or (layers(), layers())
    begin, end = at or (offset(), offset())
    region: dict[str, Any] = {"srcSubresource": from_, "srcOffset": begin, "dstSubresource": to}
    region |= {"dstOffset": end, "extent": extent}
    info: dict[str, Any] = {
        "srcImage": source,
        "srcImageLayout": 6,
        "dstImage": target,
        "dstImageLayout": 7,
    }
    info |= {"regionCount": 1, "pRegions": [region]}
    if command == "vkCopyImageToImage":
        return command, {"device": 3, "pCopyImageToImageInfo": info}
    if command.endswith("2"):
        kind = "Resolve" if "Resolve" in command else "Copy"
        return command, CB | {f"p{kind}ImageInfo": info}
    return command, CB | info


def blit(
    source: tuple[dict[str, int], ...],
    target: tuple[dict[str, int], ...],
    *,
    images: tuple[int, int] = (FLAT, LIKE),
    parts: tuple[dict[str, int], dict[str, int]] | None = None,
    again: bool = False,
) -> Command:
    """A blit between two corners each."""
    from_, to = parts or (layers(), layers())
    region: dict[str, Any] = {"srcSubresource": from_, "srcOffsets": list(source)}
    region |= {"dstSubresource": to, "dstOffsets": list(target)}
    info: dict[str, Any] = {"srcImage": images[0], "srcImageLayout": 6, "dstImage": images[1]}
    info |= {"dstImageLayout": 7, "regionCount": 1, "pRegions": [region], "filter": 0}
    if again:
        return "vkCmdBlitImage2", CB | {"pBlitImageInfo": info}
    return "vkCmdBlitImage", CB | info


def texels(
    of: int, part: dict[str, int], begin: dict[str, int], extent: dict[str, int], way: int = 0
) -> Command:
    """A copy from a buffer, or to one (1), or of the other commands for that (2, 3)."""
    region: dict[str, Any] = {"bufferOffset": 0, "bufferRowLength": 0, "bufferImageHeight": 0}
    region |= {"imageSubresource": part, "imageOffset": begin, "imageExtent": extent}
    info: dict[str, Any] = {"regionCount": 1, "pRegions": [region]}
    target = info | {"srcBuffer": BUFFER, "dstImage": of, "dstImageLayout": 7}
    source = info | {"dstBuffer": BUFFER, "srcImage": of, "srcImageLayout": 6}
    return (
        ("vkCmdCopyBufferToImage", CB | target),
        ("vkCmdCopyImageToBuffer", CB | source),
        ("vkCmdCopyBufferToImage2", CB | {"pCopyBufferToImageInfo": target}),
        ("vkCmdCopyImageToBuffer2", CB | {"pCopyImageToBufferInfo": source}),
    )[way]


def host_copy(part: dict[str, int], begin: dict[str, int], extent: dict[str, int]) -> Command:
    region: dict[str, Any] = {
        "dataSize": 0,
        "pData": b"",
        "memoryRowLength": 0,
        "memoryImageHeight": 0,
    }
    region |= {"imageSubresource": part, "imageOffset": begin, "imageExtent": extent}
    info: dict[str, Any] = {"flags": 0, "dstImage": FLAT, "dstImageLayout": 7, "regionCount": 1}
    return "vkCopyMemoryToImageMESA", {
        "device": 3,
        "pCopyMemoryToImageInfo": info | {"pRegions": [region]},
    }


def tile(level: int, layer: int, begin: dict[str, int], extent: dict[str, int], **more: int) -> Any:
    bind: dict[str, Any] = {
        "subresource": {"aspectMask": 1, "mipLevel": level, "arrayLayer": layer}
    }
    bind |= {"offset": begin, "extent": extent, "memory": 0, "memoryOffset": 0} | more
    info: dict[str, Any] = {
        "imageBindCount": 1,
        "pImageBinds": [{"image": FLAT, "bindCount": 1, "pBinds": [bind]}],
    }
    return "vkQueueBindSparse", {"queue": QUEUE, "bindInfoCount": 1, "pBindInfo": [info]}


def view(of: int, kind: int, format_: int = RGBA8, **more: int) -> Command:
    """A view: 1D, 2D, 3D, cube, and arrays of them."""
    part = {"aspectMask": COLOR, "baseMipLevel": 0, "levelCount": 1, "baseArrayLayer": 0}
    info: dict[str, Any] = {"image": of, "viewType": kind, "format": format_}
    info |= {"components": dict.fromkeys("rgba", 0)}
    info |= {"subresourceRange": part | {"layerCount": 1} | more}
    return "vkCreateImageView", {"device": 3, "pCreateInfo": info, "pView": UNKNOWN}


def clear(of: int, base: int, count: int) -> Command:
    part = {"aspectMask": COLOR, "baseMipLevel": 0, "levelCount": 1}
    part |= {"baseArrayLayer": base, "layerCount": count}
    color = (0, [0.0] * 4)
    return "vkCmdClearColorImage", CB | {
        "image": of,
        "imageLayout": 7,
        "pColor": color,
        "rangeCount": 1,
        "pRanges": [part],
    }


def framebuffer(views: list[int], width: int, height: int, deep: int = 1, of: int = 90) -> Command:
    info: dict[str, Any] = {
        "flags": 0,
        "renderPass": of,
        "attachmentCount": len(views),
        "pAttachments": views,
    }
    info |= {"width": width, "height": height, "layers": deep}
    return "vkCreateFramebuffer", {"device": 3, "pCreateInfo": info, "pFramebuffer": UNKNOWN}


def area(x: int, y: int, width: int, height: int) -> dict[str, Any]:
    return {"offset": {"x": x, "y": y}, "extent": {"width": width, "height": height}}


def begin(
    where: dict[str, Any], of: int = PASS, frame: int = FRAME, chain: list[Any] | None = None
) -> Command:
    info: dict[str, Any] = {
        "renderPass": of,
        "framebuffer": frame,
        "renderArea": where,
        "pNext": chain or [],
    }
    return "vkCmdBeginRenderPass", CB | {
        "pRenderPassBegin": info | {"clearValueCount": 0, "pClearValues": []},
        "contents": 0,
    }


def group(*areas: dict[str, Any]) -> list[Any]:
    values = {"deviceMask": 1, "deviceRenderAreaCount": len(areas), "pDeviceRenderAreas": [*areas]}
    return [("VkDeviceGroupRenderPassBeginInfo", values)]


def attachments(*views: int) -> list[Any]:
    values = {"attachmentCount": len(views), "pAttachments": [*views]}
    return [("VkRenderPassAttachmentBeginInfo", values)]


def attachment(of: int, resolved: int = 0, mode: int = 0) -> dict[str, Any]:
    """A VkRenderingAttachmentInfo."""
    info: dict[str, Any] = {
        "imageView": of,
        "imageLayout": 2,
        "resolveMode": mode,
        "resolveImageView": resolved,
    }
    info |= {"resolveImageLayout": 2, "loadOp": 0, "storeOp": 0}
    return info | {"clearValue": (0, (0, [0.0] * 4))}


def rendering(
    where: dict[str, Any], *colors: dict[str, Any], deep: int = 1, views: int = 0, **more: Any
) -> Command:
    info: dict[str, Any] = {"flags": 0, "renderArea": where, "layerCount": deep, "viewMask": views}
    info |= {"colorAttachmentCount": len(colors), "pColorAttachments": [*colors]}
    return "vkCmdBeginRendering", CB | {"pRenderingInfo": info | more}


def send(host: Host, name: str, **parameters: Any) -> None:
    host.engine.submit(CODEC.encode(name, parameters))


def render_pass(used: list[int], count: int = 2, views: int = 0) -> dict[str, Any]:
    """A VkRenderPassCreateInfo2 with one subpass."""
    one = {"format": RGBA8, "samples": 1, "loadOp": 0, "storeOp": 0, "stencilLoadOp": 0}
    one |= {"flags": 0, "stencilStoreOp": 0, "initialLayout": 1, "finalLayout": 1}
    colors = [{"attachment": each, "layout": 2, "aspectMask": COLOR} for each in used]
    subpass: dict[str, Any] = {
        "flags": 0,
        "pipelineBindPoint": 0,
        "viewMask": views,
        "inputAttachmentCount": 0,
    }
    subpass |= {"colorAttachmentCount": len(colors), "pColorAttachments": colors}
    subpass |= {"preserveAttachmentCount": 0}
    info: dict[str, Any] = {"flags": 0, "attachmentCount": count, "pAttachments": [one] * count}
    info |= {"subpassCount": 1, "pSubpasses": [subpass], "dependencyCount": 0}
    return info | {"correlatedViewMaskCount": 0}


@pytest.fixture
def drawn(host: Host) -> Host:
    """Images, and what is made of them to render to."""
    for id_, described in IMAGES.items():
        send(host, "vkCreateImage", device=3, pCreateInfo=described, pImage=id_)
    send(
        host, "vkCreateBuffer", device=3, pCreateInfo={"size": 1 << 20, "usage": 3}, pBuffer=BUFFER
    )
    info: dict[str, Any] = {"allocationSize": 4 << 16, "memoryTypeIndex": 0}
    send(host, "vkAllocateMemory", device=3, pAllocateInfo=info, pMemory=MEMORY)
    host.engine.objects.add(QUEUE, "VkQueue", 7, device=3, parent=3)
    views = ((VIEW, 0, 4), (SMALL, 1, 1), (THIN, 0, 1), (OTHER, 0, 4))
    for id_, level, count in views:
        name, values = view(FLAT, 5, baseMipLevel=level, layerCount=count)
        send(host, name, **values | {"pView": id_})
    passes = ((PASS, [0, 1], 0), (SPARING, [0], 0), (MANY, [0, 1], 0x7))
    for id_, used, mask in passes:
        info = render_pass(used, views=mask)
        send(host, "vkCreateRenderPass2", device=3, pCreateInfo=info, pRenderPass=id_)
    for id_, of, second in ((FRAME, PASS, OTHER), (LEVEL, SPARING, SMALL)):
        name, values = framebuffer([VIEW, second], 64, 40, of=of)
        send(host, name, **values | {"pFramebuffer": id_})
    name, values = framebuffer([], 48, 20)
    values["pCreateInfo"] |= {"flags": 1, "attachmentCount": 2, "pAttachments": None}
    send(host, name, **values | {"pFramebuffer": EMPTY})
    return host


TO_DEEP = (layers(count=4), layers())
TO_FLAT = (layers(), layers(count=4))
HALF = (layers(1), layers(1))
CORNER = offset(64, 40, 1)

WITHIN = [
    copy(FLAT, LIKE, size(64, 40)),
    copy(FLAT, LIKE, size(1, 1), at=(offset(63, 39), offset(63, 39))),
    copy(FLAT, LIKE, size(32, 20), start=HALF),
    copy(FLAT, LIKE, size(16, 10), start=(layers(2), layers())),
    copy(FLAT, LIKE, size(64, 40), start=(layers(0, 1, 3), layers(0, 0, 3))),
    copy(FLAT, LIKE, size(64, 40), start=(layers(0, 1, REMAINING), layers(0, 0, 3))),
    copy(FLAT, DEEP, size(64, 40, 4), start=TO_DEEP, at=(offset(), offset(0, 0, 12))),
    copy(DEEP, FLAT, size(64, 40, 4), start=TO_FLAT, at=(offset(0, 0, 12), offset())),
    copy(DEEP, DEEP, size(64, 40, 16)),
    copy(DEEP, DEEP, size(16, 10, 4), start=(layers(2), layers(2))),
    # All of a level whose width, or height, is no multiple of a block's.
    copy(BC1, BC1, size(62, 40)),
    copy(BC1, BC1, size(2, 1), start=(layers(5), layers(5)), at=(offset(), offset())),
    copy(BC1, BC1, size(4, 4), start=(layers(5), layers(5))),
    copy(BC1, RG32, size(62, 40)),
    copy(RG32, BC1, size(16, 10)),
    copy(RG32, BC1, size(1, 1), at=(offset(), offset(60, 36))),
    copy(PLANES, PLANES, size(32, 20), start=(layers(aspect=PLANE_1), layers(aspect=PLANE_2))),
    copy(PLANES, PLANES, size(64, 40), start=(layers(aspect=PLANE_0), layers(aspect=PLANE_0))),
    copy(DEPTH, FLAT, size(64, 40), start=(layers(aspect=DEPTH_ASPECT), layers())),
    copy(ONE, ONE, size(64, 1)),
    copy(FLAT, LIKE, size(64, 40), command="vkCmdCopyImage2"),
    copy(FLAT, LIKE, size(64, 40), command="vkCopyImageToImage"),
    copy(FLAT, LIKE, size(64, 40), command="vkCmdResolveImage"),
    copy(FLAT, LIKE, size(64, 40), command="vkCmdResolveImage2"),
    blit((offset(), CORNER), (offset(64, 40), offset(0, 0, 1))),
    blit((CORNER, offset()), (offset(), offset(1, 1, 1)), again=True),
    blit((offset(), offset(16, 10, 1)), (offset(), CORNER), parts=(layers(2), layers())),
    blit((offset(0, 0, 16), offset(64, 40)), (offset(), offset(64, 40, 1)), images=(DEEP, DEEP)),
    blit((offset(0, 0, 12), offset(64, 40, 16)), (offset(), CORNER), images=(DEEP, FLAT),
         parts=TO_FLAT),
    texels(FLAT, layers(1, 0, 4), offset(), size(32, 20)),
    texels(DEEP, layers(1), offset(0, 0, 7), size(32, 20, 1), 1),
    texels(BC1, layers(5), offset(), size(1, 1), 2),
    texels(BC1, layers(), offset(60, 36), size(2, 4), 3),
    texels(PLANES, layers(aspect=PLANE_1), offset(31, 19), size(1, 1)),
    tile(0, 3, offset(), size(64, 40)),
    tile(1, 0, offset(16, 0), size(16, 20)),
    tile(0, 0, offset(), size(64, 40), memory=MEMORY, memoryOffset=3 << 16),
    view(FLAT, 5, levelCount=REMAINING, layerCount=REMAINING),
    view(FLAT, 5, baseMipLevel=2, baseArrayLayer=3),
    view(FLAT, 1, format_=50),
    view(DEEP, 2, levelCount=3),
    view(DEEP, 5, baseMipLevel=1, layerCount=8),
    view(DEEP, 5, baseMipLevel=1, baseArrayLayer=7, layerCount=REMAINING),
    view(CUBE, 3, layerCount=6, baseArrayLayer=7),
    view(CUBE, 6, layerCount=12),
    view(CUBE, 6, baseArrayLayer=1, layerCount=REMAINING),
    view(BC1, 1, format_=103),
    view(BC1, 1, format_=132),
    view(PLANES, 1, format_=9, aspectMask=PLANE_1),
    view(PLANES, 1, format_=1000156002),
    view(DEPTH, 1, format_=129, aspectMask=DEPTH_ASPECT),
    clear(FLAT, 0, REMAINING),
    clear(FLAT, 3, 1),
    clear(DEEP, 0, 1),
    framebuffer([VIEW, OTHER], 64, 40, 4),
    framebuffer([VIEW, SMALL], 64, 40, of=SPARING),
    framebuffer([VIEW, SMALL], 32, 20),
    framebuffer([VIEW, OTHER], 64, 40, of=MANY),
    begin(area(0, 0, 64, 40)),
    begin(area(63, 39, 1, 1)),
    begin(area(0, 0, 64, 40), SPARING, LEVEL),
    begin(area(0, 0, 999, 999), chain=group(area(0, 0, 64, 40))),
    begin(area(0, 0, 48, 20), PASS, EMPTY, attachments(VIEW, OTHER)),
    begin(area(0, 0, 48, 20), SPARING, EMPTY, attachments(VIEW, SMALL)),
    rendering(area(0, 0, 64, 40), attachment(VIEW), attachment(OTHER), deep=4),
    rendering(area(0, 0, 64, 40), attachment(VIEW, SMALL, 0)),
    rendering(area(0, 0, 64, 40), attachment(VIEW), views=0xF),
    rendering(area(32, 0, 32, 40), attachment(0), attachment(VIEW)),
    rendering(area(0, 0, 9999, 9999), attachment(0), deep=99),
    rendering(area(0, 0, 999, 40), attachment(VIEW), pNext=group(area(0, 0, 64, 40))),
]  # fmt: skip

BEYOND = [
    copy(FLAT, LIKE, size(65, 40)),
    copy(FLAT, LIKE, size(64, 41)),
    copy(FLAT, LIKE, size(1, 1), at=(offset(64), offset())),
    copy(FLAT, LIKE, size(1, 1), at=(offset(), offset(0, 40))),
    copy(FLAT, LIKE, size(1, 1), at=(offset(-1), offset())),
    copy(FLAT, LIKE, size(8, 8), at=(offset(), offset(0, -8))),
    copy(FLAT, LIKE, size(0xFFFFFFFF, 1), at=(offset(1), offset())),
    copy(FLAT, LIKE, size(33, 20), start=HALF),
    copy(FLAT, LIKE, size(64, 40), start=(layers(), layers(2))),
    copy(FLAT, LIKE, size(1, 1, 5)),
    copy(FLAT, LIKE, size(1, 1), at=(offset(), offset(0, 0, 4))),
    copy(FLAT, LIKE, size(1, 1), start=(layers(0, 0, 3), layers(0, 2, 1))),
    copy(FLAT, LIKE, size(1, 1), start=(layers(0, 0, REMAINING), layers(0, 2, REMAINING))),
    copy(FLAT, DEEP, size(1, 1, 4), start=TO_DEEP, at=(offset(), offset(0, 0, 13))),
    copy(FLAT, DEEP, size(1, 1, 5), start=TO_DEEP),
    copy(DEEP, FLAT, size(1, 1, 5), start=TO_FLAT),
    copy(DEEP, DEEP, size(1, 1, 5), start=(layers(2), layers(2))),
    copy(DEEP, DEEP, size(1, 1, 1), at=(offset(0, 0, -1), offset())),
    copy(BC1, BC1, size(68, 4)),
    copy(BC1, BC1, size(5, 4), start=(layers(5), layers(5))),
    copy(BC1, BC1, size(4, 4), at=(offset(62), offset())),
    copy(RG32, BC1, size(1, 1), at=(offset(), offset(0, 40))),
    copy(RG32, BC1, size(16, 10), at=(offset(), offset(4))),
    copy(BC1, RG32, size(8, 8), at=(offset(), offset(15))),
    copy(PLANES, PLANES, size(33, 20), start=(layers(aspect=PLANE_1), layers(aspect=PLANE_1))),
    copy(PLANES, PLANES, size(64, 40), start=(layers(aspect=PLANE_0), layers(aspect=PLANE_2))),
    copy(ONE, ONE, size(1, 1), at=(offset(0, 1), offset())),
    copy(FLAT, LIKE, size(65, 40), command="vkCmdCopyImage2"),
    copy(FLAT, LIKE, size(65, 40), command="vkCopyImageToImage"),
    copy(FLAT, LIKE, size(65, 40), command="vkCmdResolveImage"),
    copy(FLAT, LIKE, size(64, 41), command="vkCmdResolveImage2"),
    blit((offset(), offset(65, 40, 1)), (offset(), CORNER)),
    blit((offset(), CORNER), (offset(64, 41), offset(0, 0, 1))),
    blit((offset(-1), CORNER), (offset(), CORNER)),
    blit((offset(), CORNER), (offset(), offset(64, -40, 1)), again=True),
    blit((offset(), offset(64, 40, 2)), (offset(), CORNER)),
    blit((offset(), CORNER), (offset(), CORNER), parts=(layers(1), layers())),
    blit((offset(), CORNER), (offset(), CORNER), parts=(layers(0, 0, 4), layers(0, 1, 1))),
    blit((offset(), offset(64, 40, 17)), (offset(), CORNER), images=(DEEP, DEEP)),
    texels(FLAT, layers(1), offset(1), size(32, 20)),
    texels(FLAT, layers(), offset(), size(1, 1, 5)),
    texels(FLAT, layers(), offset(0, 0, 4), size(1, 1)),
    texels(DEEP, layers(1), offset(0, 0, 8), size(1, 1), 1),
    texels(BC1, layers(5), offset(), size(5, 1), 2),
    texels(BC1, layers(), offset(0, 40), size(1, 1), 3),
    texels(PLANES, layers(aspect=PLANE_1), offset(), size(33, 1)),
    host_copy(layers(1), offset(), size(33, 20)),
    host_copy(layers(), offset(0, 40), size(1, 1)),
    tile(0, 0, offset(64), size(1, 1)),
    tile(1, 0, offset(), size(64, 40)),
    tile(0, 3, offset(0, 0, 1), size(1, 1)),
    tile(0, 0, offset(), size(1, 1), memory=MEMORY, memoryOffset=(3 << 16) + 4),
    view(DEEP, 5, baseMipLevel=1, layerCount=9),
    view(DEEP, 5, baseMipLevel=2, baseArrayLayer=4, layerCount=REMAINING),
    view(FLAT, 2),
    view(FLAT, 3, layerCount=4),
    view(CUBE, 3, layerCount=6, baseArrayLayer=8),
    view(CUBE, 6, baseArrayLayer=8, layerCount=REMAINING),
    view(CUBE, 6, layerCount=13),
    view(FLAT, 1, format_=103),
    view(FLAT, 1, format_=131),
    view(BC1, 1, format_=37),
    view(RG32, 1, format_=131),
    view(PLANES, 1, format_=16, aspectMask=PLANE_1),
    view(DEPTH, 1, format_=37),
    framebuffer([VIEW, SMALL], 64, 40),
    framebuffer([VIEW, OTHER], 65, 40),
    framebuffer([VIEW, OTHER], 64, 41),
    framebuffer([VIEW, OTHER], 64, 40, 5),
    framebuffer([VIEW, THIN], 64, 40, of=MANY),
    begin(area(0, 0, 65, 40)),
    begin(area(1, 0, 64, 40)),
    begin(area(-1, 0, 4, 4)),
    begin(area(0, 0, 4, 0xFFFFFFFF)),
    begin(area(0, 0, 1, 1), chain=group(area(0, 0, 1, 1), area(0, 0, 65, 1))),
    begin(area(0, 0, 1, 1), PASS, LEVEL),
    begin(area(0, 0, 1, 1), MANY, FRAME),
    begin(area(0, 0, 1, 1), PASS, EMPTY, attachments(VIEW, SMALL)),
    rendering(area(0, 0, 65, 40), attachment(VIEW)),
    rendering(area(0, 0, 33, 1), attachment(VIEW), attachment(SMALL)),
    rendering(area(0, 0, 33, 1), attachment(VIEW), pStencilAttachment=attachment(SMALL)),
    rendering(area(0, 0, 33, 1), attachment(VIEW, SMALL, 1)),
    rendering(area(0, 0, 1, 1), attachment(VIEW), deep=5),
    rendering(area(0, 0, 1, 1), attachment(THIN), views=0x2),
    rendering(area(0, -1, 1, 1), attachment(VIEW)),
    rendering(area(0, 0, 1, 1), attachment(VIEW), pNext=group(area(0, 0, 64, 41))),
]


def names(commands: list[Command]) -> Iterator[str]:
    return (f"{name}-{i}" for i, (name, _) in enumerate(commands))


@pytest.mark.parametrize("command", WITHIN, ids=names(WITHIN))
def test_what_lies_within_is_served(drawn: Host, command: Command) -> None:
    name, parameters = command
    send(drawn, name, **parameters)
    assert drawn.fatal == []


@pytest.mark.parametrize("command", BEYOND, ids=names(BEYOND))
def test_what_lies_beyond_ends_the_context(drawn: Host, command: Command) -> None:
    name, parameters = command
    with pytest.raises(ProtocolError, match=rf"{name} at byte \d+: .*: \d+ from \d+ on, where"):
        send(drawn, name, **parameters)
    assert drawn.engine.fatal


def test_the_smallest_of_one_rendering_is_not_that_of_the_next(drawn: Host) -> None:
    for of, width in ((SMALL, 32), (VIEW, 64)):
        name, parameters = rendering(area(0, 0, width, 20), attachment(of))
        send(drawn, name, **parameters)


def stage(of: int) -> dict[str, Any]:
    return {"flags": 0, "stage": of, "module": 0, "pName": b"main"}


def compute(host: Host, id_: int) -> None:
    info: dict[str, Any] = {
        "flags": 0,
        "stage": stage(0x20),
        "layout": LAYOUT,
        "basePipelineIndex": -1,
    }
    send(host, "vkCreateComputePipelines", device=3, pipelineCache=0, createInfoCount=1,
         pCreateInfos=[info], pPipelines=[id_])  # fmt: skip


def ray_tracing(host: Host, ids: list[int], groups: int, library: int = 0) -> None:
    """Pipelines of the same groups, and those of a library."""
    group_ = {"type": 0, "generalShader": 0, "closestHitShader": 0, "anyHitShader": 0}
    group_ |= {"intersectionShader": 0}
    info: dict[str, Any] = {
        "flags": 0,
        "stageCount": 1,
        "pStages": [stage(0x100)],
        "groupCount": groups,
    }
    info |= {"pGroups": [group_] * groups, "maxPipelineRayRecursionDepth": 1, "layout": LAYOUT}
    info |= {"basePipelineHandle": 0, "basePipelineIndex": -1}
    if library:
        info["pLibraryInfo"] = {"libraryCount": 1, "pLibraries": [library]}
    send(host, "vkCreateRayTracingPipelinesKHR", device=3, deferredOperation=0, pipelineCache=0,
         createInfoCount=len(ids), pCreateInfos=[info] * len(ids), pPipelines=ids)  # fmt: skip


def bind(of: int, point: int) -> Command:
    return "vkCmdBindPipeline", CB | {"pipelineBindPoint": point, "pipeline": of}


def stack(of: int, group_: int) -> Command:
    values = {"device": 3, "pipeline": of, "group": group_, "groupShader": 0}
    return "vkGetRayTracingShaderGroupStackSizeKHR", values


@pytest.fixture
def bound(object_driver: Path) -> Iterator[Host]:
    """Pipelines: of compute, of two groups of shaders, and of one more with those in a library."""
    host = Host(object_driver)
    compute(host, 200)
    ray_tracing(host, [201, 202], 2)
    ray_tracing(host, [203], 1, 202)
    yield host
    host.engine.stop()


@pytest.mark.parametrize(
    "command", [bind(200, 1), bind(201, 1000165000), stack(202, 1), stack(203, 2)], ids=str
)
def test_what_a_pipeline_is_made_for(bound: Host, command: Command) -> None:
    name, parameters = command
    send(bound, name, **parameters)
    assert bound.fatal == []


@pytest.mark.parametrize(
    "command", [bind(200, 0), bind(200, 1000165000), bind(203, 1), bind(201, 9),
                stack(200, 0), stack(202, 2), stack(203, 3)], ids=str
)  # fmt: skip
def test_what_a_pipeline_is_not_made_for(bound: Host, command: Command) -> None:
    name, parameters = command
    with pytest.raises(ProtocolError, match=rf"{name} at byte \d+: .*: \d+ from \d+ on, where"):
        send(bound, name, **parameters)


def test_a_copy_from_host_memory_within_is_for_python(fake_driver: Path) -> None:
    seen = []
    host = Host(fake_driver, vkCopyMemoryToImageMESA=lambda call: seen.append(call.name))
    send(host, "vkCreateImage", device=3, pCreateInfo=IMAGES[FLAT], pImage=FLAT)
    name, parameters = host_copy(layers(1), offset(), size(32, 20))
    send(host, name, **parameters)
    assert seen == [name]
    host.engine.stop()


def test_an_image_that_nobody_knows_bounds_nothing(host: Host) -> None:
    for id_ in (FLAT, LIKE):
        host.engine.objects.add(id_, "VkImage", 7, device=3)
    name, parameters = copy(FLAT, LIKE, size(9999, 9999), start=(layers(30), layers(30)))
    send(host, name, **parameters)
