"""Device memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.guest.device_memory import DeviceMemory
from hesper.guest.errors import InvalidResourceError, OutOfMemoryError, VulkanError
from hesper.guest.handlers import handles
from hesper.guest.regions import Region
from hesper.guest.vk import (
    VK_ERROR_INVALID_EXTERNAL_HANDLE,
    VK_ERROR_OUT_OF_DEVICE_MEMORY,
    VK_ERROR_UNKNOWN,
    VK_SUCCESS,
)
from hesper.kernel.engine import Call, ProtocolError, View

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.guest.device import Device

LARGEST_ALLOCATION = 1 << 47
"""Bytes; more than any address space has, and far from overflowing when rounded."""


@handles("vkAllocateMemory")
def allocate_memory(context: Context, call: Call) -> None:
    """Allocate device memory: shared with the guest where it is host-visible or imported."""
    device = context.device(call.id("device"))
    info = call.args.pAllocateInfo
    size = info.allocationSize
    if not 0 < size < LARGEST_ALLOCATION:
        raise VulkanError(VK_ERROR_OUT_OF_DEVICE_MEMORY, f"allocation of {size} bytes")
    if info.memoryTypeIndex >= len(device.physical.memory_types):
        raise VulkanError(VK_ERROR_UNKNOWN, f"no memory type {info.memoryTypeIndex}")
    try:
        memory = _prepare(context, device, info)
    except OutOfMemoryError as error:
        raise VulkanError(VK_ERROR_OUT_OF_DEVICE_MEMORY, str(error)) from error
    except InvalidResourceError as error:
        raise VulkanError(VK_ERROR_INVALID_EXTERNAL_HANDLE, str(error)) from error
    try:
        if memory.region is not None:
            device.physical.strategy.back(info, memory.region)
        result = call.invoke()
    except BaseException:
        memory.release()
        raise
    if result != VK_SUCCESS:
        memory.release()
        return
    (guest_id,) = call.new_ids
    with context.lock:
        # Registered before the object is known, so that nobody finds the object without it.
        # An id in use must keep what belongs to it; `finish` then refuses the command.
        is_new = guest_id not in context.memories
        if is_new:
            context.memories[guest_id] = memory
    try:
        call.finish()
    except ProtocolError:
        if is_new:
            del context.memories[guest_id]
        device.table.call("vkFreeMemory", device.handle, call.new_handles[0], None)
        memory.release()
        raise


def _prepare(context: Context, device: Device, info: View) -> DeviceMemory:
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
        if size > region.size:
            region.release()
            raise VulkanError(
                VK_ERROR_INVALID_EXTERNAL_HANDLE,
                f"resource {imported.resourceId} has {region.size} bytes, {size} are asked for",
            )
        return DeviceMemory(region, context.budget, 0)
    if is_mappable:
        wanted = device.physical.strategy.region_size(size)
        region = Region.create(
            wanted,
            f"hesper-{context.name}",
            context.budget,
            charged=size,
            spares=context.spares,
        )
        return DeviceMemory(region, context.budget, 0)
    if exported is not None and exported.handleTypes:
        raise VulkanError(
            VK_ERROR_INVALID_EXTERNAL_HANDLE,
            f"memory type {info.memoryTypeIndex} cannot be exported",
        )
    context.budget.take(size)
    return DeviceMemory(None, context.budget, size)


@handles("vkFreeMemory")
def free_memory(context: Context, call: Call) -> None:
    """Free device memory, on the driver first."""
    call.run()
    with context.lock:
        memory = context.memories.pop(call.id("memory"), None)
    if memory is not None:
        memory.release()


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
