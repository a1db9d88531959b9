"""Where images can lie: in shared memory, or in the driver's own.

Vulkan wants an image to be made for the kind of memory that it will be bound to, before anybody
knows which that is.  So every image that can be made for shared memory at no cost is, and the
answer about what memory it needs names no other types than it can be bound to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hesper.guest.errors import VulkanError
from hesper.guest.linear import can_be_attached
from hesper.kernel.views import Scratch
from hesper.vk.enumerants import (
    VK_ERROR_FORMAT_NOT_SUPPORTED,
    VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT,
    VK_IMAGE_CREATE_PROTECTED_BIT,
    VK_IMAGE_CREATE_SPARSE_ALIASED_BIT,
    VK_IMAGE_CREATE_SPARSE_BINDING_BIT,
    VK_IMAGE_CREATE_SPARSE_RESIDENCY_BIT,
    VK_IMAGE_LAYOUT_UNDEFINED,
    VK_IMAGE_LAYOUT_ZERO_INITIALIZED_EXT,
    VK_IMAGE_TILING_LINEAR,
    VK_IMAGE_TILING_OPTIMAL,
    VK_SUCCESS,
)

if TYPE_CHECKING:
    from hesper.guest.physical_device import PhysicalDevice
    from hesper.kernel.views import View
    from hesper.kernel.vulkan import ProcTable

_MOST_REMEMBERED = 1024
"""Kinds of image of which is remembered what they can be."""

_SPARSE = (
    VK_IMAGE_CREATE_SPARSE_BINDING_BIT
    | VK_IMAGE_CREATE_SPARSE_RESIDENCY_BIT
    | VK_IMAGE_CREATE_SPARSE_ALIASED_BIT
)


@dataclass(frozen=True)
class _Kind:
    """What images of one format, type, tiling, usage and flags can be in shared memory."""

    limits: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    """Largest width, height, depth, mip levels and layers."""
    samples: int = 0
    """VkSampleCountFlags."""
    is_free: bool = False
    """Whether they are as good as any other, so that all can be made for it."""

    def __contains__(self, info: View) -> bool:
        """Whether the image of a VkImageCreateInfo is within the limits."""
        extent = info.extent
        size = (extent.width, extent.height, extent.depth, info.mipLevels, info.arrayLayers)
        fits = all(have <= most for have, most in zip(size, self.limits, strict=True))
        return fits and bool(info.samples & self.samples)


_NO_KIND = _Kind()


class Placements:
    """Decides where the images of a device can lie."""

    def __init__(self, physical: PhysicalDevice, table: ProcTable, device: int) -> None:
        """Ask the device with host handle `device`, once for each kind of image."""
        self._physical = physical
        self._table = table
        self._device = device
        self._kinds: dict[tuple[int, ...], _Kind] = {}

    def place(self, info: View, *, is_shared: bool) -> int:
        """Make a VkImageCreateInfo fit the memory that its image can be bound to.

        is_shared: whether it is to be shared, as it is if its own chain says so.
        Returns the guest's memory types for it, a mask.  Raises `VulkanError` for an image that is
        to be shared and cannot be.
        """
        types = self._physical.memory_types
        external = info.remove_("VkExternalMemoryImageCreateInfo")
        if is_shared or (external is not None and external.handleTypes):
            if info not in self._kind(info):
                raise VulkanError(
                    VK_ERROR_FORMAT_NOT_SUPPORTED,
                    f"an image of format {info.format}, tiling {info.tiling}, usage"
                    f" {info.usage:#x} and flags {info.flags:#x} cannot lie in shared memory",
                )
            self._state(info)
            return types.pictures
        if info.flags & _SPARSE:
            return self._physical.sparse_types
        if info.flags & VK_IMAGE_CREATE_PROTECTED_BIT:
            return types.native
        if _begins_as_zeros(info):
            # What is made for shared memory begins undefined, and is not zero then.
            return types.native
        kind = self._kind(info)
        if info not in kind or not kind.is_free:
            return types.native
        self._state(info)
        return types.all

    def _state(self, info: View) -> None:
        """Tell the driver that the image may lie in shared memory.

        It has to begin in the undefined layout then (VUID-VkImageCreateInfo-pNext-01443): see
        `Engine.change_layouts`.
        """
        info.initialLayout = VK_IMAGE_LAYOUT_UNDEFINED
        handle_type = self._physical.strategy.handle_type
        info.push_("VkExternalMemoryImageCreateInfo", handleTypes=handle_type)

    def _kind(self, info: View) -> _Kind:
        key = (info.format, info.imageType, info.tiling, info.usage, info.flags)
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) >= _MOST_REMEMBERED:
                self._kinds.clear()
            layout = info.initialLayout
            kind = self._kinds[key] = self._find_out(info)
            info.initialLayout = layout
        return kind

    def _find_out(self, info: View) -> _Kind:
        """What images like that of `info`, which is made for no external memory, can be."""
        if not self._physical.shares_images(info.tiling):
            return _NO_KIND
        strategy = self._physical.strategy
        is_linear = info.tiling == VK_IMAGE_TILING_LINEAR
        if is_linear and not can_be_attached(self._physical, info.format, info.usage, info.flags):
            return _NO_KIND
        limits = image_limits(
            self._physical,
            format=info.format,
            type=info.imageType,
            tiling=info.tiling,
            usage=info.usage,
            flags=info.flags,
        )
        if limits is None:
            return _NO_KIND
        plain = self._needs(info)
        self._state(info)
        stated = self._needs(info)
        info.remove_("VkExternalMemoryImageCreateInfo")
        if (
            stated is None
            or (stated.must_be_dedicated and not strategy.takes_dedicated)
            or not stated.has(strategy.types)
        ):
            return _NO_KIND
        # Linear images are for the guest to map, whatever that costs.
        return _Kind(limits[:-1], limits[-1], is_free=is_linear or stated == plain)

    def _needs(self, info: View) -> _Needs | None:
        """What an image needs; None when it cannot be made."""
        scratch = Scratch()
        made = scratch.array("VkImage", 1)
        if self._table.call("vkCreateImage", self._device, info, None, made) != VK_SUCCESS:
            return None
        question = scratch.new("VkImageMemoryRequirementsInfo2", image=made[0])
        answer = scratch.new("VkMemoryRequirements2")
        dedicated = answer.push_("VkMemoryDedicatedRequirements")
        self._table.call("vkGetImageMemoryRequirements2", self._device, question, answer)
        self._table.call("vkDestroyImage", self._device, made[0], None)
        needs = answer.memoryRequirements
        return _Needs(
            needs.size,
            needs.alignment,
            needs.memoryTypeBits,
            must_be_dedicated=bool(dedicated.requiresDedicatedAllocation),
        )


def _begins_as_zeros(info: View) -> bool:
    """Whether what the driver makes of a tiled image's memory has to be zero.

    (A linear image is its memory, whatever layout it is said to begin in.)
    """
    return bool(
        info.initialLayout == VK_IMAGE_LAYOUT_ZERO_INITIALIZED_EXT
        and info.tiling == VK_IMAGE_TILING_OPTIMAL
    )


@dataclass(frozen=True)
class _Needs:
    """VkMemoryRequirements of an image."""

    size: int
    alignment: int
    types: int
    must_be_dedicated: bool

    def has(self, types: int) -> bool:
        """Whether it can lie in one of the driver's memory types `types`, a mask."""
        return bool(self.types & types)


def image_limits(
    physical: PhysicalDevice, **question: int
) -> tuple[int, int, int, int, int, int] | None:
    """What images can be when they lie in shared memory.

    question: fields of VkPhysicalDeviceImageFormatInfo2.  Returns the largest width, height, depth,
    mip levels and layers, and the sample counts; None when there can be none.
    """
    scratch = Scratch()
    info = scratch.new("VkPhysicalDeviceImageFormatInfo2", **question)
    handle_type = physical.strategy.handle_type
    info.push_("VkPhysicalDeviceExternalImageFormatInfo", handleType=handle_type)
    answer = scratch.new("VkImageFormatProperties2")
    external = answer.push_("VkExternalImageFormatProperties")
    command = "vkGetPhysicalDeviceImageFormatProperties2"
    if physical.table.call(command, physical.handle, info, answer) != VK_SUCCESS:
        return None
    features = external.externalMemoryProperties.externalMemoryFeatures
    if not features & VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT:
        return None
    limits = answer.imageFormatProperties
    extent = limits.maxExtent
    return (
        extent.width,
        extent.height,
        extent.depth,
        limits.maxMipLevels,
        limits.maxArrayLayers,
        limits.sampleCounts,
    )
