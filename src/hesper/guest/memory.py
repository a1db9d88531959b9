"""Device memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hesper.guest import regions
from hesper.guest.backing import Order
from hesper.guest.errors import InvalidResourceError, OutOfMemoryError, VulkanError
from hesper.guest.handlers import handles
from hesper.kernel.errors import ProtocolError
from hesper.vk.enumerants import (
    VK_ERROR_INVALID_EXTERNAL_HANDLE,
    VK_ERROR_OUT_OF_DEVICE_MEMORY,
    VK_ERROR_UNKNOWN,
    VK_SUCCESS,
)

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.guest.device import Device
    from hesper.guest.memory_types import GuestType
    from hesper.kernel.handlers import Call
    from hesper.kernel.shm import Region

LARGEST_ALLOCATION = 1 << 47
"""Bytes; more than any address space has, and far from overflowing when rounded."""

ROOM_SECONDS = 0.1
"""How long an allocation waits for memory that is being given back."""


@handles("vkAllocateMemory")
def allocate_memory(context: Context, call: Call) -> None:
    """Allocate device memory: shared with the guest where it is host-visible or imported.

    The kernel serves what fits into a free region of such memory (`Devices.import_host_memory`).
    """
    device = context.device(call.id("device"))
    info = call.args.pAllocateInfo
    size = info.allocationSize
    if not 0 < size < LARGEST_ALLOCATION:
        raise VulkanError(VK_ERROR_OUT_OF_DEVICE_MEMORY, f"allocation of {size} bytes")
    if info.memoryTypeIndex >= len(device.physical.memory_types):
        raise VulkanError(VK_ERROR_UNKNOWN, f"no memory type {info.memoryTypeIndex}")
    _await_room(context, size)
    try:
        region = _allocate(
            context, device, call, device.physical.memory_types[info.memoryTypeIndex]
        )
    except OutOfMemoryError as error:
        raise VulkanError(VK_ERROR_OUT_OF_DEVICE_MEMORY, str(error)) from error
    except InvalidResourceError as error:
        raise VulkanError(VK_ERROR_INVALID_EXTERNAL_HANDLE, str(error)) from error
    if region is None:
        return
    try:
        call.finish(region)
    except ProtocolError:
        device.table.call("vkFreeMemory", device.handle, call.new_handles[0], None)
        region.release()
        raise


def _await_room(context: Context, size: int) -> None:
    """Let the frontend come to what the guest has given back, if that makes the limit suffice.

    A guest frees memory on a ring and the resource by which it was mapped on its socket, and may
    have asked for more before both are seen.
    """
    until = time.monotonic() + ROOM_SECONDS
    while (
        context.pool.left < size <= context.pool.left + context.engine.resources.unreferenced()
        and time.monotonic() < until
    ):
        time.sleep(0.001)


def _allocate(context: Context, device: Device, call: Call, kind: GuestType) -> Region | None:
    """Have the driver allocate, and take what it costs; None when the driver has refused.

    Raises `OutOfMemoryError`, `InvalidResourceError`, `VulkanError`.
    """
    info = call.args.pAllocateInfo
    imported = info.remove_("VkImportMemoryResourceInfoMESA")
    exported = info.remove_("VkExportMemoryAllocateInfo")
    dedicated = info.find_("VkMemoryDedicatedAllocateInfo")
    if dedicated is not None and dedicated.image in device.stages:
        info.remove_("VkMemoryDedicatedAllocateInfo")  # a buffer is bound to it
    info.memoryTypeIndex = kind.host
    order = Order(
        call=call,
        info=info,
        table=device.table,
        device=device.handle,
        pool=context.pool,
        heap=kind.heap,
        name=f"hesper-{context.name}",
    )
    if imported is not None:
        return _import(context, device, order, kind, imported.resourceId)
    if kind.is_shared:
        return device.physical.strategy.allocate(order)
    if exported is not None and exported.handleTypes:
        raise VulkanError(
            VK_ERROR_INVALID_EXTERNAL_HANDLE, "memory that is not host-visible cannot be exported"
        )
    return _charged(order, regions.charge(context.pool, info.allocationSize, kind.heap))


def _import(
    context: Context, device: Device, order: Order, kind: GuestType, resource_id: int
) -> Region | None:
    """Have the driver allocate in a resource's memory."""
    if not kind.is_shared:
        raise VulkanError(
            VK_ERROR_INVALID_EXTERNAL_HANDLE, "memory that is not host-visible takes no imports"
        )
    region = context.resources.share(resource_id)
    try:
        size = order.info.allocationSize
        if size > region.size:
            raise VulkanError(
                VK_ERROR_INVALID_EXTERNAL_HANDLE,
                f"resource {resource_id} has {region.size} bytes, {size} are asked for",
            )
        if device.physical.strategy.import_region(order, region):
            return region
    except BaseException:
        region.release()
        raise
    region.release()
    return None


def _charged(order: Order, region: Region) -> Region | None:
    """Have the driver allocate its own memory, for which `region` has been charged."""
    try:
        if order.call.invoke() == VK_SUCCESS:
            return region
    except BaseException:
        region.release()
        raise
    region.release()
    return None


@handles("vkGetMemoryResourcePropertiesMESA")
def get_memory_resource_properties(context: Context, call: Call) -> None:
    """Say which memory types can import a resource, and how large it is.

    A program may ask about a buffer that no context knows, such as one of the guest's own memory,
    or one whose maker is gone.
    """
    device = context.device(call.id("device"))
    try:
        region = context.resources.share(call.args.resourceId)
    except InvalidResourceError as error:
        # A window of another program's, say: not this guest's mistake.
        raise VulkanError(VK_ERROR_INVALID_EXTERNAL_HANDLE, str(error)) from error
    try:
        answer = call.args.pMemoryResourceProperties
        strategy = device.physical.strategy
        types = device.physical.memory_types
        host = strategy.importing_types(device.table, device.handle, region)
        answer.memoryTypeBits = types.shown(host, types.pictures) & types.pictures
        extent = answer.find_("VkMemoryResourceAllocationSizePropertiesMESA")
        if extent is not None:
            extent.allocationSize = region.size
    finally:
        region.release()
