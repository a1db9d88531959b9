"""How the texels of every format lie in a buffer: `hesper_formats`.

Source: the formats of the registry; for depth and stencil, the specification's "Copying
Data Between Buffers and Images".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

Block: TypeAlias = "tuple[int, int, int, int, int]"
"""Bytes, width and height; and by how much the plane is narrower and lower than the image."""

NONE: Block = (0, 1, 1, 1, 1)
_PLANES = 3
_DEPTH_16 = 2
_DEPTH_MORE = 4


def texel_blocks(vk: Any) -> list[tuple[object, ...]]:
    """Return the rows, by VkFormat: the number, and the blocks of what there is to copy."""
    numbers = {each.name: each.value for each in vk.enums["VkFormat"].fields}
    return sorted(
        (numbers[name], *map(_braced, flat), "{" + ", ".join(map(_braced, planes)) + "}")
        for name, flat, planes in _formats(vk)
    )


def _formats(vk: Any) -> Iterator[tuple[str, list[Block], list[Block]]]:
    """Names, blocks of all aspects together, depth and stencil, and those of the planes."""
    for name, item in vk.formats.items():
        bits = {each.type: each.bits for each in item.components}
        flat, depth, stencil = _block(item), NONE, NONE
        if "D" in bits:
            depth = (_DEPTH_16 if str(bits["D"]) == "16" else _DEPTH_MORE, 1, 1, 1, 1)
        if "S" in bits:
            stencil = (1, 1, 1, 1, 1)
        if "D" in bits and "S" in bits:
            # No aspect has so many, some drivers do.
            flat = (2 * _DEPTH_MORE, 1, 1, 1, 1)
        planes = [
            (*_block(vk.formats[plane.compatible])[:3], plane.widthDivisor, plane.heightDivisor)
            for plane in item.planes
        ]
        if planes:
            flat = (*max(planes)[:3], 1, 1)
        yield name, [flat, depth, stencil], planes + [NONE] * (_PLANES - len(planes))


def _block(item: Any) -> Block:
    width, height, _depth = map(int, item.blockExtent or (1, 1, 1))
    return item.blockSize, width, height, 1, 1


def _braced(block: Block) -> str:
    return "{" + ", ".join(map(str, block)) + "}"
