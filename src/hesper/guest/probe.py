"""Find out how a physical device's memory can be shared with a guest.

Most of it needs a device, so the probe makes one, tries, and destroys it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

from hesper.guest.backing import HostPointer
from hesper.guest.vk import (
    VK_BUFFER_USAGE_STORAGE_BUFFER_BIT,
    VK_BUFFER_USAGE_TRANSFER_DST_BIT,
    VK_BUFFER_USAGE_TRANSFER_SRC_BIT,
    VK_BUFFER_USAGE_VERTEX_BUFFER_BIT,
    VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT,
    VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT,
    VK_FORMAT_R8G8B8A8_UNORM,
    VK_IMAGE_TILING_OPTIMAL,
    VK_IMAGE_TYPE_2D,
    VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT,
    VK_IMAGE_USAGE_SAMPLED_BIT,
    VK_IMAGE_USAGE_TRANSFER_DST_BIT,
    VK_IMAGE_USAGE_TRANSFER_SRC_BIT,
    VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
    VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT,
    VK_SUCCESS,
)
from hesper.kernel.engine import ProcTable, Scratch, View, Vulkan
from hesper.portable import SharedMemory, page_size

if TYPE_CHECKING:
    from hesper.guest.physical_device import PhysicalDevice

_HANDLE = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT
_COHERENT = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT
_BUFFER_USAGE = (
    VK_BUFFER_USAGE_TRANSFER_SRC_BIT
    | VK_BUFFER_USAGE_TRANSFER_DST_BIT
    | VK_BUFFER_USAGE_STORAGE_BUFFER_BIT
    | VK_BUFFER_USAGE_VERTEX_BUFFER_BIT
)
_IMAGE_USAGE = (
    VK_IMAGE_USAGE_TRANSFER_SRC_BIT
    | VK_IMAGE_USAGE_TRANSFER_DST_BIT
    | VK_IMAGE_USAGE_SAMPLED_BIT
    | VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT
)


class ProbeError(Exception):
    """The physical device cannot serve a guest; the text says why."""


_found: dict[tuple[object, ...], HostPointer] = {}


def host_pointer(
    vulkan: Vulkan, physical: PhysicalDevice, identity: tuple[object, ...]
) -> HostPointer:
    """What `probe_host_pointer` finds, asked for once in a process.

    identity: what tells one device and driver from another.  Raises `ProbeError`.
    """
    key = (*identity, tuple(physical.memory_types), frozenset(physical.extensions))
    if key not in _found:
        _found[key] = probe_host_pointer(vulkan, physical)
    return _found[key]


def probe_host_pointer(vulkan: Vulkan, physical: PhysicalDevice) -> HostPointer:
    """Try to import shared memory by its address.

    Raises `ProbeError` when no memory type takes it.
    """
    (extension,) = HostPointer.extensions
    if extension not in physical.extensions:
        raise ProbeError(f"it lacks {extension}")
    alignment = _alignment(physical)
    if alignment < 1 or alignment & (alignment - 1):
        raise ProbeError(f"minImportedHostPointerAlignment is {alignment}, no power of two")
    with ExitStack() as stack:
        device, table = stack.enter_context(_temporary_device(vulkan, physical))
        size = max(page_size(), alignment)
        memory = stack.enter_context(SharedMemory.create(size, "hesper-probe"))
        types = _importable_types(physical, device, table, memory)
        if not types:
            raise ProbeError("none of its coherent memory types takes memory of this process")
        return HostPointer(
            types=types,
            alignment=alignment,
            wants_external_buffers=_external_buffers_are_free(physical, device, table),
            wants_external_images=_external_images_are_free(physical, device, table),
        )


def _alignment(physical: PhysicalDevice) -> int:
    """The device's minImportedHostPointerAlignment."""
    properties = Scratch().new("VkPhysicalDeviceProperties2")
    host = properties.push_("VkPhysicalDeviceExternalMemoryHostPropertiesEXT")
    physical.table.call("vkGetPhysicalDeviceProperties2", physical.handle, properties)
    return int(host.minImportedHostPointerAlignment)


@contextlib.contextmanager
def _temporary_device(vulkan: Vulkan, physical: PhysicalDevice) -> Iterator[tuple[int, ProcTable]]:
    """A device (host handle and functions) that can import memory, with one queue.

    Raises `ProbeError`.
    """
    scratch = Scratch()
    queues = scratch.array("VkDeviceQueueCreateInfo", 1)
    queues[0].pQueuePriorities = [1.0]
    info = scratch.new("VkDeviceCreateInfo")
    info.pQueueCreateInfos = queues
    info.queueCreateInfoCount = 1
    info.ppEnabledExtensionNames = [*HostPointer.extensions, *physical.obligatory_extensions]
    created = scratch.array("VkDevice", 1)
    result = physical.table.call("vkCreateDevice", physical.handle, info, None, created)
    if result != VK_SUCCESS:
        raise ProbeError(f"vkCreateDevice failed with VkResult {result}")
    device = int(created[0])
    table = vulkan.device_table(physical.table, device)
    try:
        yield device, table
    finally:
        table.call("vkDestroyDevice", device, None)


def _importable_types(
    physical: PhysicalDevice, device: int, table: ProcTable, memory: SharedMemory
) -> int:
    """Coherent memory types, a bit each, that really take `memory`."""
    scratch = Scratch()
    answer = scratch.new("VkMemoryHostPointerPropertiesEXT")
    arguments = (device, _HANDLE, memory.address, answer)
    if table.call("vkGetMemoryHostPointerPropertiesEXT", *arguments) != VK_SUCCESS:
        return 0
    types = 0
    for index, kind in enumerate(physical.memory_types):
        if answer.memoryTypeBits >> index & 1 and kind.flags & _COHERENT == _COHERENT:
            info = scratch.new(
                "VkMemoryAllocateInfo", allocationSize=memory.size, memoryTypeIndex=index
            )
            info.push_(
                "VkImportMemoryHostPointerInfoEXT", handleType=_HANDLE, pHostPointer=memory.address
            )
            made = scratch.array("VkDeviceMemory", 1)
            if table.call("vkAllocateMemory", device, info, None, made) == VK_SUCCESS:
                types |= 1 << index
                table.call("vkFreeMemory", device, made[0], None)
    return types


def _external_buffers_are_free(physical: PhysicalDevice, device: int, table: ProcTable) -> bool:
    """Whether a buffer made for imported memory is as good as any other.

    Vulkan wants to be told of every buffer that it may be bound to imported memory; but a driver
    may then offer less memory for it, and the guest may never need it.
    """
    scratch = Scratch()
    question = scratch.new(
        "VkPhysicalDeviceExternalBufferInfo", usage=_BUFFER_USAGE, handleType=_HANDLE
    )
    answer = scratch.new("VkExternalBufferProperties")
    command = "vkGetPhysicalDeviceExternalBufferProperties"
    physical.table.call(command, physical.handle, question, answer)
    features = answer.externalMemoryProperties.externalMemoryFeatures
    if not features & VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT:
        return False
    plain = scratch.new("VkBufferCreateInfo", size=65536, usage=_BUFFER_USAGE)
    external = scratch.new("VkBufferCreateInfo", size=65536, usage=_BUFFER_USAGE)
    external.push_("VkExternalMemoryBufferCreateInfo", handleTypes=_HANDLE)
    wanted = _requirements(device, table, "Buffer", plain)
    return wanted is not None and wanted == _requirements(device, table, "Buffer", external)


def _external_images_are_free(physical: PhysicalDevice, device: int, table: ProcTable) -> bool:
    """Whether an image made for imported memory is as good as any other."""
    scratch = Scratch()
    question = scratch.new(
        "VkPhysicalDeviceImageFormatInfo2",
        format=VK_FORMAT_R8G8B8A8_UNORM,
        type=VK_IMAGE_TYPE_2D,
        tiling=VK_IMAGE_TILING_OPTIMAL,
        usage=_IMAGE_USAGE,
    )
    question.push_("VkPhysicalDeviceExternalImageFormatInfo", handleType=_HANDLE)
    if importable_image_limits(scratch, physical, question) is None:
        return False
    plain, external = _image_info(scratch), _image_info(scratch)
    external.push_("VkExternalMemoryImageCreateInfo", handleTypes=_HANDLE)
    wanted = _requirements(device, table, "Image", plain)
    return wanted is not None and wanted == _requirements(device, table, "Image", external)


def importable_image_limits(
    scratch: Scratch, physical: PhysicalDevice, question: View
) -> tuple[int, int, int, int, int, int] | None:
    """What images of that VkPhysicalDeviceImageFormatInfo2 can be when they lie in imported memory.

    Its chain must hold a VkPhysicalDeviceExternalImageFormatInfo.  Returns the largest width,
    height, depth, mip levels and layers, and the sample counts; None when there can be none.
    """
    answer = scratch.new("VkImageFormatProperties2")
    external = answer.push_("VkExternalImageFormatProperties")
    command = "vkGetPhysicalDeviceImageFormatProperties2"
    if physical.table.call(command, physical.handle, question, answer) != VK_SUCCESS:
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


def _image_info(scratch: Scratch) -> View:
    """An ordinary image."""
    info = scratch.new(
        "VkImageCreateInfo",
        imageType=VK_IMAGE_TYPE_2D,
        format=VK_FORMAT_R8G8B8A8_UNORM,
        mipLevels=1,
        arrayLayers=1,
        samples=1,
        tiling=VK_IMAGE_TILING_OPTIMAL,
        usage=_IMAGE_USAGE,
    )
    info.extent.width = info.extent.height = 256
    info.extent.depth = 1
    return info


def _requirements(
    device: int, table: ProcTable, kind: str, info: View
) -> tuple[int, int, int] | None:
    """Size, alignment and memory types of a `Buffer` or `Image`; None when it cannot be made."""
    scratch = Scratch()
    made = scratch.array(f"Vk{kind}", 1)
    if table.call(f"vkCreate{kind}", device, info, None, made) != VK_SUCCESS:
        return None
    answer = scratch.new("VkMemoryRequirements")
    table.call(f"vkGet{kind}MemoryRequirements", device, made[0], answer)
    table.call(f"vkDestroy{kind}", device, made[0], None)
    return answer.size, answer.alignment, answer.memoryTypeBits
