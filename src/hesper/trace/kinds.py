"""Which kinds of images this driver has: it need not refuse the others, and may fault over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hesper.trace.decoded import UNREADABLE
from hesper.vk.enumerants import (
    VK_ERROR_FORMAT_NOT_SUPPORTED,
    VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT,
)

if TYPE_CHECKING:
    from hesper.trace.decoded import Decoded

Ask = Callable[[str, dict[str, Any]], tuple[int, dict[str, Any]]]
"""Tells a command, and returns its result and outputs."""

_EXTERNAL = "VkExternalMemoryImageCreateInfo"
_SHARED = ("VkImageStencilUsageCreateInfo", "VkImageFormatListCreateInfo")
"""Structs that a question has as well."""


class Kinds:
    """Asks about each image before it is made."""

    def __init__(self, ask: Ask) -> None:
        """No device was made yet."""
        self._ask = ask
        self._physical: dict[int, int] = {}
        """Physical devices by the devices that were made of them."""

    def device(self, parameters: dict[str, Any]) -> None:
        """Take note of a vkCreateDevice."""
        self._physical[parameters.get("pDevice") or 0] = parameters.get("physicalDevice") or 0

    def has(self, then: Decoded) -> bool:
        """Whether there can be the image of a vkCreateImage.

        Source: the valid usage of VkImageCreateInfo, "Image Creation Limits".
        """
        parameters = then.parameters or {}
        info = parameters.get("pCreateInfo") or {}
        physical = self._physical.get(parameters.get("device") or 0)
        if physical is None:
            return True
        try:
            result, outputs = self._ask(
                "vkGetPhysicalDeviceImageFormatProperties2",
                {
                    "physicalDevice": physical,
                    "pImageFormatInfo": _question(info),
                    "pImageFormatProperties": {},
                },
            )
        except UNREADABLE:
            return True
        if result == VK_ERROR_FORMAT_NOT_SUPPORTED:
            return False
        found = (outputs.get("pImageFormatProperties") or {}).get("imageFormatProperties") or {}
        return result != 0 or _is_within(info, found)


def _question(info: dict[str, Any]) -> dict[str, Any]:
    """The VkPhysicalDeviceImageFormatInfo2 about a VkImageCreateInfo."""
    given = info.get("pNext") or []
    chain = [each for each in given if each[0] in _SHARED]
    handles = (dict(given).get(_EXTERNAL) or {}).get("handleTypes") or 0
    if handles:
        external = {"handleType": handles & -handles}
        chain.append(("VkPhysicalDeviceExternalImageFormatInfo", external))
    if info.get("tiling") == VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT:
        chain.append(("VkPhysicalDeviceImageDrmFormatModifierInfoEXT", {"drmFormatModifier": 0}))
    same = {name: info.get(name, 0) for name in ("format", "tiling", "usage", "flags")}
    return same | {"type": info.get("imageType", 0), "pNext": chain}


def _is_within(info: dict[str, Any], most: dict[str, Any]) -> bool:
    """Whether an image is as large as there are some, by a VkImageFormatProperties."""
    extent, largest = info.get("extent") or {}, most.get("maxExtent") or {}
    return (
        all(extent.get(way, 0) <= largest.get(way, 0) for way in ("width", "height", "depth"))
        and info.get("mipLevels", 0) <= most.get("maxMipLevels", 0)
        and info.get("arrayLayers", 0) <= most.get("maxArrayLayers", 0)
        and bool(info.get("samples", 0) & most.get("sampleCounts", 0))
    )
