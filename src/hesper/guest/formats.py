"""How many bytes texels take in host memory, by VkFormat and aspect.

Source: the formats of the Vulkan registry; for depth, the specification's "Depth/Stencil Formats".
A format that does not stand here cannot be copied to or from host memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from hesper.vk.enumerants import (
    PLANE_BLOCKS,
    TEXEL_BLOCKS,
    VK_FORMAT_D16_UNORM,
    VK_FORMAT_D16_UNORM_S8_UINT,
    VK_FORMAT_D24_UNORM_S8_UINT,
    VK_FORMAT_D32_SFLOAT,
    VK_FORMAT_D32_SFLOAT_S8_UINT,
    VK_FORMAT_S8_UINT,
    VK_FORMAT_X8_D24_UNORM_PACK32,
    VK_IMAGE_ASPECT_DEPTH_BIT,
    VK_IMAGE_ASPECT_PLANE_0_BIT,
    VK_IMAGE_ASPECT_PLANE_1_BIT,
    VK_IMAGE_ASPECT_PLANE_2_BIT,
    VK_IMAGE_ASPECT_STENCIL_BIT,
)


@dataclass(frozen=True)
class Block:
    """A texel block: the unit in which a format is stored."""

    size: int
    """Bytes."""
    width: int = 1
    """Texels."""
    height: int = 1
    """Texels."""


_DEPTH = {
    VK_FORMAT_D16_UNORM: 2,
    VK_FORMAT_X8_D24_UNORM_PACK32: 4,
    VK_FORMAT_D32_SFLOAT: 4,
    VK_FORMAT_D16_UNORM_S8_UINT: 2,
    VK_FORMAT_D24_UNORM_S8_UINT: 4,
    VK_FORMAT_D32_SFLOAT_S8_UINT: 4,
}
"""Bytes of a depth texel in memory, by format."""

_STENCIL = {
    VK_FORMAT_S8_UINT,
    VK_FORMAT_D16_UNORM_S8_UINT,
    VK_FORMAT_D24_UNORM_S8_UINT,
    VK_FORMAT_D32_SFLOAT_S8_UINT,
}

_PLANES = (VK_IMAGE_ASPECT_PLANE_0_BIT, VK_IMAGE_ASPECT_PLANE_1_BIT, VK_IMAGE_ASPECT_PLANE_2_BIT)


def texel_block(format_: int, aspect: int) -> Block | None:
    """The blocks in which one aspect of a format lies in host memory.

    format_: a VkFormat.  aspect: one VkImageAspectFlagBits.
    None for a format that is unknown, or has no such aspect.
    """
    if aspect == VK_IMAGE_ASPECT_DEPTH_BIT:
        size = _DEPTH.get(format_)
        return Block(size) if size else None
    if aspect == VK_IMAGE_ASPECT_STENCIL_BIT:
        return Block(1) if format_ in _STENCIL else None
    if aspect in _PLANES:
        planes, plane = PLANE_BLOCKS.get(format_, ()), _PLANES.index(aspect)
        return Block(*planes[plane]) if plane < len(planes) else None
    block = TEXEL_BLOCKS.get(format_)
    return Block(*block) if block else None
