"""How many bytes texels take in host memory, by VkFormat and aspect.

Source: the formats of the Vulkan registry.  A format that does not stand here cannot be copied
to or from host memory.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from hesper.vk.enumerants import (
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


_ASTC = (
    *((5, 4), (5, 5), (6, 5), (6, 6), (8, 5), (8, 6), (8, 8)),
    *((10, 5), (10, 6), (10, 8), (10, 10), (12, 10), (12, 12)),
)
"""Block sizes of ASTC after 4x4."""

_RANGES: tuple[tuple[int, int, Block], ...] = (
    (1, 1, Block(1)),
    (2, 8, Block(2)),
    (9, 15, Block(1)),
    (16, 22, Block(2)),
    (23, 36, Block(3)),
    (37, 69, Block(4)),
    (70, 76, Block(2)),
    (77, 83, Block(4)),
    (84, 90, Block(6)),
    (91, 97, Block(8)),
    (98, 100, Block(4)),
    (101, 103, Block(8)),
    (104, 106, Block(12)),
    (107, 109, Block(16)),
    (110, 112, Block(8)),
    (113, 115, Block(16)),
    (116, 118, Block(24)),
    (119, 121, Block(32)),
    (122, 123, Block(4)),
    (131, 134, Block(8, 4, 4)),
    (135, 138, Block(16, 4, 4)),
    (139, 140, Block(8, 4, 4)),
    (141, 146, Block(16, 4, 4)),
    (147, 150, Block(8, 4, 4)),
    (151, 152, Block(16, 4, 4)),
    (153, 154, Block(8, 4, 4)),
    (155, 158, Block(16, 4, 4)),
    *((159 + 2 * i, 160 + 2 * i, Block(16, w, h)) for i, (w, h) in enumerate(_ASTC)),
    (1000066000, 1000066000, Block(16, 4, 4)),
    *((1000066001 + i, 1000066001 + i, Block(16, w, h)) for i, (w, h) in enumerate(_ASTC)),
    (1000156000, 1000156001, Block(4, 2, 1)),
    (1000156007, 1000156007, Block(2)),
    (1000156008, 1000156008, Block(4)),
    (1000156009, 1000156009, Block(8)),
    (1000156010, 1000156011, Block(8, 2, 1)),
    (1000156017, 1000156017, Block(2)),
    (1000156018, 1000156018, Block(4)),
    (1000156019, 1000156019, Block(8)),
    (1000156020, 1000156021, Block(8, 2, 1)),
    (1000156027, 1000156028, Block(8, 2, 1)),
    (1000340000, 1000340001, Block(2)),
    (1000470000, 1000470000, Block(2)),
    (1000470001, 1000470001, Block(1)),
)

_FIRSTS = [first for first, _, _ in _RANGES]

_DEPTH = {124: 2, 125: 4, 126: 4, 128: 2, 129: 4, 130: 4}
"""Bytes of a depth texel in memory, by format."""

_STENCIL = {127, 128, 129, 130}

_PLANAR_8_BIT = (*range(1000156002, 1000156007), 1000330000)
_PLANAR_16_BIT = (
    *range(1000156012, 1000156017),
    *range(1000156022, 1000156027),
    *range(1000156029, 1000156034),
    *range(1000330001, 1000330004),
)
_THREE_PLANES_420 = (1000156002, 1000156012, 1000156022, 1000156029)
_TWO_PLANES = {
    *(first + 1 for first in _THREE_PLANES_420),
    *(first + 3 for first in _THREE_PLANES_420),
    *range(1000330000, 1000330004),
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
        return _plane_block(format_, _PLANES.index(aspect))
    place = bisect_right(_FIRSTS, format_) - 1
    if place < 0 or format_ > _RANGES[place][1]:
        return None
    return _RANGES[place][2]


def _plane_block(format_: int, plane: int) -> Block | None:
    """The blocks of one plane; the second of two planes holds two components."""
    if format_ in _PLANAR_8_BIT:
        size = 1
    elif format_ in _PLANAR_16_BIT:
        size = 2
    else:
        return None
    if format_ not in _TWO_PLANES:
        return Block(size)
    return (Block(size), Block(2 * size), None)[plane]
