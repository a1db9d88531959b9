"""Device memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.guest import regions
from hesper.guest.backing import round_up
from hesper.guest.errors import InvalidResourceError, OutOfMemoryError, VulkanError
from hesper.guest.handlers import handles
from hesper.guest.vk import (
    VK_ERROR_INVALID_EXTERNAL_HANDLE,
    VK_ERROR_OUT_OF_DEVICE_MEMORY,
    VK_ERROR_UNKNOWN,
    VK_SUCCESS,
)
from hesper.kernel.engine import Call, ProtocolError, Region, View

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.guest.device import Device

LARGEST_ALLOCATION = 1 << 47
"""Bytes; more than any address space has, and far from overflowing when rounded."""


@handles("vkAllocateMemory")
def allocate_memory(context: Context, call: Call) -> None:
    """Allocate device memory: shared with the guest where it is host-visible or imported.

    The kernel serves what fits into a spare piece of such memory (`Engine.set_host_memory`).
    """
    device = context.device(call.id("device"))
    info = call.args.pAllocateInfo
    size = info.allocationSize
    if not 0 < size < LARGEST_ALLOCATION:
        raise VulkanError(VK_ERROR_OUT_OF_DEVICE_MEMORY, f"allocation of {size} bytes")
    if info.memoryTypeIndex >= len(device.physical.memory_types):
        raise VulkanError(VK_ERROR_UNKNOWN, f"no memory type {info.memoryTypeIndex}")
    try:
        region = _prepare(context, device, info)
    except OutOfMemoryError as error:
        raise VulkanError(VK_ERROR_OUT_OF_DEVICE_MEMORY, str(error)) from error
    except InvalidResourceError as error:
        raise VulkanError(VK_ERROR_INVALID_EXTERNAL_HANDLE, str(error)) from error
    try:
        if region.address:
            device.physical.strategy.back(info, region)
        result = call.invoke()
    except BaseException:
        region.release()
        raise
    if result != VK_SUCCESS:
        region.release()
        return
    try:
        call.finish()
    except ProtocolError:
        device.table.call("vkFreeMemory", device.handle, call.new_handles[0], None)
        region.release()
        raise
    try:
        context.engine.keep_memory(call.new_ids[0], region)
    except KeyError:  # another thread of the guest has freed it already
        region.release()


def _prepare(context: Context, device: Device, info: View) -> Region:
    """Take what an allocation costs and make or find its shared memory.

    Raises `OutOfMemoryError`, `InvalidResourceError`, `VulkanError`.
    """
    imported = info.remove_("VkImportMemoryResourceInfoMESA")
    exported = info.remove_("VkExportMemoryAllocateInfo")
    size = info.allocationSize
    is_mappable = device.physical.is_mappable(info.memoryTypeIndex)
    if imported is not None:
        if not is_mappable:
            raise VulkanError(
                VK_ERROR_INVALID_EXTERNAL_HANDLE,
                f"memory type {info.memoryTypeIndex} takes no imports",
            )
        region = context.resources.share(imported.resourceId)
        there = region.size
        if size > there:
            region.release()
            raise VulkanError(
                VK_ERROR_INVALID_EXTERNAL_HANDLE,
                f"resource {imported.resourceId} has {there} bytes, {size} are asked for",
            )
        return region
    if is_mappable:
        wanted = round_up(size, device.physical.strategy.granule)
        name = f"hesper-{context.name}"
        return regions.create(context.store, wanted, name, charged=size, reusable=True)
    if exported is not None and exported.handleTypes:
        raise VulkanError(
            VK_ERROR_INVALID_EXTERNAL_HANDLE,
            f"memory type {info.memoryTypeIndex} cannot be exported",
        )
    return regions.charge(context.store, size)


@handles("vkGetMemoryResourcePropertiesMESA")
def get_memory_resource_properties(context: Context, call: Call) -> None:
    """Say which memory types can import a resource, and how large it is."""
    device = context.device(call.id("device"))
    try:
        region = context.resources.share(call.args.resourceId)
    except InvalidResourceError as error:
        raise ProtocolError(str(error)) from error
    try:
        answer = call.args.pMemoryResourceProperties
        strategy = device.physical.strategy
        answer.memoryTypeBits = strategy.importing_types(device.table, device.handle, region)
        extent = answer.find_("VkMemoryResourceAllocationSizePropertiesMESA")
        if extent is not None:
            extent.allocationSize = region.size
    finally:
        region.release()
