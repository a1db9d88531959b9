"""Descriptors written for heaps in guest memory (VK_EXT_descriptor_heap).

The guest asks for the bytes of one descriptor and puts them into its heap itself.  A driver
writes a whole descriptor, however little room the guest has asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.guest.errors import VulkanError
from hesper.guest.handlers import handles
from hesper.kernel.views import Array, Scratch, View
from hesper.vk.enumerants import (
    VK_DESCRIPTOR_TYPE_SAMPLER,
    VK_ERROR_UNKNOWN,
)

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.guest.device import Device
    from hesper.kernel.handlers import Call

_SIZE_COMMAND = "vkGetPhysicalDeviceDescriptorSizeEXT"


@handles("vkWriteSamplerDescriptorMESA")
def write_sampler_descriptor(context: Context, call: Call) -> None:
    """Write a sampler's descriptor into the reply."""
    device = context.device(call.id("device"))
    _write(device, call, call.args.pSampler, VK_DESCRIPTOR_TYPE_SAMPLER)


@handles("vkWriteResourceDescriptorMESA")
def write_resource_descriptor(context: Context, call: Call) -> None:
    """Write a resource's descriptor into the reply."""
    device = context.device(call.id("device"))
    _write(device, call, call.args.pResource, call.args.pResource.type)


def _write(device: Device, call: Call, source: View, type_: int) -> None:
    args = call.args
    physical = device.physical
    is_sampler = type_ == VK_DESCRIPTOR_TYPE_SAMPLER
    command = "vkWriteSamplerDescriptorsEXT" if is_sampler else "vkWriteResourceDescriptorsEXT"
    needed = physical.table.call(_SIZE_COMMAND, physical.handle, type_)
    if args.dataSize < needed:
        raise VulkanError(
            VK_ERROR_UNKNOWN, f"{args.dataSize} bytes for a descriptor that has {needed}"
        )
    target: Array = Scratch().array("VkHostAddressRangeEXT", 1)
    target[0].address = args.pointer_("pData")
    target[0].size = args.dataSize
    call.result = device.table.call(command, device.handle, 1, source, target)
