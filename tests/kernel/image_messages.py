"""Images, what is seen of them and rendered to, as messages to an engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hesper.kernel.errors import ProtocolError
from hesper.protocol.codec import Codec
from kernel.conftest import COMMAND_BUFFER, Host

Command = tuple[str, dict[str, Any]]

CODEC = Codec()
CB: dict[str, Any] = {"commandBuffer": COMMAND_BUFFER}
FLAT, LIKE, DEEP, CUBE, BC1, RG32, PLANES, DEPTH, ONE, MEMORY, BUFFER, QUEUE = range(60, 72)
VIEW, SMALL, THIN, OTHER = 80, 81, 82, 83
PASS, SPARING, MANY, FRAME, EMPTY, LEVEL = 90, 91, 92, 93, 94, 95
REMAINING = 0xFFFFFFFF
COLOR, DEPTH_ASPECT, STENCIL_ASPECT, PLANE_0, PLANE_1, PLANE_2 = 1, 2, 4, 0x10, 0x20, 0x40
MEMORY_PLANE_0 = 0x80
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


def sliced(of: Command, first: int, count: int) -> Command:
    """A view with some slices only."""
    name, values = of
    chain = [("VkImageViewSlicedCreateInfoEXT", {"sliceOffset": first, "sliceCount": count})]
    return name, values | {"pCreateInfo": values["pCreateInfo"] | {"pNext": chain}}


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


def assert_served(host: Host, command: Command) -> None:
    """Send it; nobody complains."""
    name, parameters = command
    send(host, name, **parameters)
    assert host.fatal == []


def assert_beyond(host: Host, command: Command) -> None:
    """Send it; the context ends, since it reaches further than the image."""
    name, parameters = command
    with pytest.raises(ProtocolError, match=rf"{name} at byte \d+: .*: \d+ from \d+ on, where"):
        send(host, name, **parameters)
    assert host.engine.fatal


def make_images(host: Host) -> None:
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


def names(commands: list[Command]) -> Iterator[str]:
    return (f"{name}-{i}" for i, (name, _) in enumerate(commands))
