"""Images: external memory, and what host copies need to know of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hesper.guest.errors import VulkanError
from hesper.guest.handlers import handles
from hesper.guest.modifiers import check_layout, translate_image
from hesper.guest.probe import importable_image_limits
from hesper.guest.vk import (
    VK_IMAGE_CREATE_SPARSE_BINDING_BIT,
    VK_IMAGE_LAYOUT_UNDEFINED,
    VK_IMAGE_USAGE_HOST_TRANSFER_BIT,
    VK_SUCCESS,
)
from hesper.kernel.engine import Call, Scratch, View

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.guest.device import Device
    from hesper.guest.physical_device import PhysicalDevice

_MOST_REMEMBERED = 1024
"""Kinds of image whose limits are remembered for a device."""


@dataclass(frozen=True)
class HostImage:
    """What a host copy needs to know of an image."""

    format: int
    """VkFormat."""
    levels: int
    layers: int


class ImportableImages:
    """Knows which images the driver can put into imported memory."""

    def __init__(self, physical: PhysicalDevice) -> None:
        """Ask `physical`, once for each kind of image."""
        self._physical = physical
        self._limits: dict[tuple[int, ...], tuple[int, ...] | None] = {}

    def __contains__(self, info: View) -> bool:
        """Whether the image of that VkImageCreateInfo is one of them."""
        kind = (info.format, info.imageType, info.tiling, info.usage, info.flags)
        if kind not in self._limits:
            if len(self._limits) >= _MOST_REMEMBERED:
                self._limits.clear()
            self._limits[kind] = self._ask(*kind)
        limits = self._limits[kind]
        if limits is None or not info.samples & limits[-1]:
            return False
        extent = info.extent
        size = (extent.width, extent.height, extent.depth, info.mipLevels, info.arrayLayers)
        return all(have <= most for have, most in zip(size, limits, strict=False))

    def _ask(
        self, format_: int, type_: int, tiling: int, usage: int, flags: int
    ) -> tuple[int, ...] | None:
        """Largest extent, mip levels, layers, and sample counts; None if it cannot be imported."""
        scratch = Scratch()
        question = scratch.new(
            "VkPhysicalDeviceImageFormatInfo2",
            format=format_,
            type=type_,
            tiling=tiling,
            usage=usage,
            flags=flags,
        )
        handle_type = self._physical.strategy.handle_type
        question.push_("VkPhysicalDeviceExternalImageFormatInfo", handleType=handle_type)
        return importable_image_limits(scratch, self._physical, question)


def adapt_image(device: Device, info: View) -> View | None:
    """Make the VkImageCreateInfo `info` fit the host and the memory that it will be bound to.

    Returns the VkSubresourceLayout that the guest insists on, if it does.  Raises `VulkanError`.
    """
    layout = translate_image(info)
    _chain_external(device, info)
    return layout


def _chain_external(device: Device, info: View) -> None:
    """Tell the driver that the image may lie in imported memory, as Vulkan wants it."""
    strategy = device.physical.strategy
    external = info.find_("VkExternalMemoryImageCreateInfo")
    if external is not None:
        external.handleTypes = strategy.handle_type
        return
    if not strategy.wants_external_images or info.flags & VK_IMAGE_CREATE_SPARSE_BINDING_BIT:
        return
    if info.initialLayout != VK_IMAGE_LAYOUT_UNDEFINED:
        return  # VUID-VkImageCreateInfo-pNext-01443 forbids it
    if info in device.importable_images:
        info.push_("VkExternalMemoryImageCreateInfo", handleTypes=strategy.handle_type)


@handles("vkCreateImage")
def create_image(context: Context, call: Call) -> None:
    """Make an image."""
    device = context.device(call.id("device"))
    info = call.args.pCreateInfo
    layout = adapt_image(device, info)
    if call.invoke() != VK_SUCCESS:
        return
    (handle,) = call.new_handles
    if layout is not None:
        try:
            check_layout(device, handle, layout)
        except VulkanError:
            device.table.call("vkDestroyImage", device.handle, handle, None)
            call.set_new_handles([0])
            raise
    call.finish()
    usage = info.usage
    stencil = info.find_("VkImageStencilUsageCreateInfo")
    if stencil is not None:
        usage |= stencil.stencilUsage
    if usage & VK_IMAGE_USAGE_HOST_TRANSFER_BIT:
        image = HostImage(info.format, info.mipLevels, info.arrayLayers)
        device.host_images.add(handle, image)
    else:
        device.host_images.discard(handle)


@handles(
    "vkGetDeviceImageMemoryRequirements",
    "vkGetDeviceImageSparseMemoryRequirements",
    "vkGetDeviceImageSubresourceLayout",
)
def ask_about_image(context: Context, call: Call) -> None:
    """Answer for an image as it would be made."""
    device = context.device(call.id("device"))
    adapt_image(device, call.args.pInfo.pCreateInfo)
    call.invoke()
