"""Images: external memory, and what host copies need to know of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hesper.guest.errors import VulkanError
from hesper.guest.handlers import handles
from hesper.guest.modifiers import check_layout, translate_image
from hesper.guest.vk import VK_IMAGE_USAGE_HOST_TRANSFER_BIT, VK_SUCCESS

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.guest.device import Device
    from hesper.kernel.engine import Call, View


@dataclass(frozen=True)
class HostImage:
    """What a host copy needs to know of an image."""

    format: int
    """VkFormat."""
    levels: int
    layers: int


def adapt_image(device: Device, info: View) -> tuple[View | None, int]:
    """Make the VkImageCreateInfo `info` fit the host and the memory that it will be bound to.

    Returns the VkSubresourceLayout that the guest insists on, if it does, and the guest's memory
    types for it.  Raises `VulkanError`.
    """
    layout = translate_image(info)
    return layout, device.placements.place(info)


@handles("vkCreateImage")
def create_image(context: Context, call: Call) -> None:
    """Make an image."""
    device = context.device(call.id("device"))
    info = call.args.pCreateInfo
    layout, types = adapt_image(device, info)
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
    device.image_types.add(handle, types)
    usage = info.usage
    stencil = info.find_("VkImageStencilUsageCreateInfo")
    if stencil is not None:
        usage |= stencil.stencilUsage
    if usage & VK_IMAGE_USAGE_HOST_TRANSFER_BIT:
        image = HostImage(info.format, info.mipLevels, info.arrayLayers)
        device.host_images.add(handle, image)
    else:
        device.host_images.discard(handle)


@handles("vkGetImageMemoryRequirements")
def get_image_memory_requirements(context: Context, call: Call) -> None:
    """What memory an image needs, of what there is to the guest."""
    device = context.device(call.id("device"))
    call.invoke()
    _show_types(device, call.args.pMemoryRequirements, device.image_types.get(call.args.image))


@handles("vkGetImageMemoryRequirements2")
def get_image_memory_requirements2(context: Context, call: Call) -> None:
    """The same, with more to it."""
    device = context.device(call.id("device"))
    call.invoke()
    needs = call.args.pMemoryRequirements.memoryRequirements
    _show_types(device, needs, device.image_types.get(call.args.pInfo.image))


@handles("vkGetDeviceImageMemoryRequirements")
def get_device_image_memory_requirements(context: Context, call: Call) -> None:
    """What memory an image would need."""
    device = context.device(call.id("device"))
    _, types = adapt_image(device, call.args.pInfo.pCreateInfo)
    call.invoke()
    _show_types(device, call.args.pMemoryRequirements.memoryRequirements, types)


def _show_types(device: Device, needs: View, allowed: int | None) -> None:
    """Name the guest's memory types in a VkMemoryRequirements."""
    types = device.physical.memory_types
    mask = types.all if allowed is None else allowed
    needs.memoryTypeBits = types.shown(needs.memoryTypeBits, mask)


@handles("vkGetDeviceImageSparseMemoryRequirements", "vkGetDeviceImageSubresourceLayout")
def ask_about_image(context: Context, call: Call) -> None:
    """Answer for an image as it would be made."""
    device = context.device(call.id("device"))
    adapt_image(device, call.args.pInfo.pCreateInfo)
    call.invoke()
