"""Sizes of texels in host memory, against the registry."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from vulkan_object import get_vulkan_object

from hesper.guest.formats import Block, texel_block
from hesper.vk.enumerants import (
    VK_IMAGE_ASPECT_DEPTH_BIT,
    VK_IMAGE_ASPECT_STENCIL_BIT,
)

COLOR = 1
PLANES = (0x10, 0x20, 0x40)
VENDOR_RANGES = (1000054000, 1000288000, 1000460000, 1000464000, 1000609000)
"""Formats of extensions that have no wire format: PVRTC, 3D ASTC, AMD and ARM."""


@cache
def registry() -> list[tuple[int, Any]]:
    vk = get_vulkan_object()
    values = {field.name: field.value for field in vk.enums["VkFormat"].fields}
    return [(values[each.name], each) for each in vk.formats.values()]


def is_vendors(value: int) -> bool:
    return any(first <= value < first + 1000 for first in VENDOR_RANGES)


def registry_block(each: Any) -> Block:
    width, height, _ = (int(n) for n in each.blockExtent or (1, 1, 1))
    return Block(each.blockSize, width, height)


def test_every_colour_format_has_the_registrys_blocks() -> None:
    checked = 0
    for value, each in registry():
        components = {component.type for component in each.components}
        if each.planes or components & {"D", "S"} or is_vendors(value):
            continue
        assert texel_block(value, COLOR) == registry_block(each), each.name
        checked += 1
    assert checked > 190


def test_every_plane_has_its_compatible_formats_size() -> None:
    by_name = {each.name: each for _, each in registry()}
    checked = 0
    for value, each in registry():
        if not each.planes or is_vendors(value):
            continue
        for index, aspect in enumerate(PLANES):
            block = texel_block(value, aspect)
            if index < len(each.planes):
                compatible = by_name[each.planes[index].compatible]
                assert block == Block(compatible.blockSize), (each.name, index)
                checked += 1
            else:
                assert block is None, each.name
    assert checked > 50


@pytest.mark.parametrize(
    ("format_", "depth", "stencil"),
    [(124, 2, 0), (125, 4, 0), (126, 4, 0), (127, 0, 1), (128, 2, 1), (129, 4, 1), (130, 4, 1)],
)
def test_depth_and_stencil_are_copied_apart(format_: int, depth: int, stencil: int) -> None:
    expected = [Block(size) if size else None for size in (depth, stencil)]
    aspects = (VK_IMAGE_ASPECT_DEPTH_BIT, VK_IMAGE_ASPECT_STENCIL_BIT)
    assert [texel_block(format_, aspect) for aspect in aspects] == expected


@pytest.mark.parametrize("format_", [-1, 0, 124, 185, 1000066014, 1 << 31])
def test_what_is_no_colour_format_has_no_size(format_: int) -> None:
    assert texel_block(format_, COLOR) is None
