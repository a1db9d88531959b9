"""Copies between images and host memory (VK_EXT_host_image_copy, Vulkan 1.4).

The guest's data travels in the command or its reply.  A driver reads or writes as much as the
regions ask for, whatever the guest has sent, so sizes are checked here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.guest.errors import VulkanError
from hesper.guest.formats import Block, texel_block
from hesper.guest.handlers import handles
from hesper.kernel.views import Scratch, View
from hesper.vk.enumerants import (
    VK_ERROR_FORMAT_NOT_SUPPORTED,
    VK_ERROR_UNKNOWN,
    VK_HOST_IMAGE_COPY_MEMCPY_BIT,
    VK_REMAINING_ARRAY_LAYERS,
)

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.guest.device import Device
    from hesper.kernel.handlers import Call


@handles("vkCopyImageToMemoryMESA")
def copy_image_to_memory(context: Context, call: Call) -> None:
    """Copy one region of an image into the reply."""
    device = context.device(call.id("device"))
    args = call.args
    source = args.pCopyImageToMemoryInfo
    _check_size(device, source.srcImage, source.flags, source, args.dataSize)
    scratch = Scratch()
    regions = scratch.array("VkImageToMemoryCopy", 1)
    _fill_region(regions[0], source, args.pointer_("pData"))
    info = scratch.new(
        "VkCopyImageToMemoryInfo",
        flags=source.flags,
        srcImage=source.srcImage,
        srcImageLayout=source.srcImageLayout,
        pRegions=regions,
    )
    call.result = device.table.call("vkCopyImageToMemory", device.handle, info)


@handles("vkCopyMemoryToImageMESA")
def copy_memory_to_image(context: Context, call: Call) -> None:
    """Copy the guest's data into regions of an image."""
    device = context.device(call.id("device"))
    target = call.args.pCopyMemoryToImageInfo
    sources = list(target.pRegions or ())
    scratch = Scratch()
    regions = scratch.array("VkMemoryToImageCopy", len(sources))
    for region, source in zip(regions, sources, strict=True):
        _check_size(device, target.dstImage, target.flags, source, source.dataSize)
        _fill_region(region, source, source.pointer_("pData"))
    info = scratch.new(
        "VkCopyMemoryToImageInfo",
        flags=target.flags,
        dstImage=target.dstImage,
        dstImageLayout=target.dstImageLayout,
        pRegions=regions,
    )
    call.result = device.table.call("vkCopyMemoryToImage", device.handle, info)


def _fill_region(region: View, source: View, address: int) -> None:
    """Fill a region of Vulkan's from one of the protocol's, with its data at `address`."""
    region.pHostPointer = address
    region.memoryRowLength = source.memoryRowLength
    region.memoryImageHeight = source.memoryImageHeight
    region.imageSubresource = source.imageSubresource
    region.imageOffset = source.imageOffset
    region.imageExtent = source.imageExtent


def _check_size(device: Device, handle: int, flags: int, region: View, size: int) -> None:
    """Raise `VulkanError` when a copy of `region` needs more than `size` bytes of host memory.

    handle: the host's VkImage.  flags: VkHostImageCopyFlags.
    """
    image = device.host_images.get(handle)
    if image is None:
        raise VulkanError(VK_ERROR_UNKNOWN, "the image is not made for host copies")
    place = region.imageSubresource
    layers = place.layerCount
    if layers == VK_REMAINING_ARRAY_LAYERS:
        # The kernel knows that the part is there, but takes slices for layers.
        layers = max(image.layers - place.baseArrayLayer, 0)
    if flags & VK_HOST_IMAGE_COPY_MEMCPY_BIT:
        needed = _raw_size(device, handle, place, layers)
    else:
        block = texel_block(image.format, place.aspectMask)
        if block is None:
            raise VulkanError(
                VK_ERROR_FORMAT_NOT_SUPPORTED,
                f"format {image.format}, aspect {place.aspectMask:#x}: size unknown",
            )
        extent = region.imageExtent
        needed = copy_size(
            block,
            (extent.width, extent.height, extent.depth),
            row_length=region.memoryRowLength,
            image_height=region.memoryImageHeight,
            layers=layers,
        )
    if needed > size:
        raise VulkanError(VK_ERROR_UNKNOWN, f"a copy of {needed} bytes with {size} bytes of memory")


def copy_size(
    block: Block,
    extent: tuple[int, int, int],
    *,
    row_length: int,
    image_height: int,
    layers: int,
) -> int:
    """Bytes from the first texel to the last of a region in host memory.

    extent: width, height, depth in texels.  row_length, image_height: texels; 0: as the extent.
    Source: the Vulkan specification, "Copying Data Between Buffers and Images".
    Raises `VulkanError` for an empty region.
    """
    width, height, depth = extent
    if not (width and height and depth and layers):
        raise VulkanError(VK_ERROR_UNKNOWN, "a copy of nothing")
    row = -(-(row_length or width) // block.width) * block.size
    slice_ = -(-(image_height or height) // block.height) * row
    last_row = -(-width // block.width) * block.size
    rows_before = -(-height // block.height) - 1
    slices_before = (layers - 1) * depth + depth - 1
    return slices_before * slice_ + rows_before * row + last_row


def _raw_size(device: Device, handle: int, place: View, layers: int) -> int:
    """Bytes of whole subresources, in the driver's own layout.  Raises `VulkanError` for none."""
    if not layers:
        raise VulkanError(VK_ERROR_UNKNOWN, "a copy of nothing")
    scratch = Scratch()
    question = scratch.new("VkImageSubresource2")
    question.imageSubresource.aspectMask = place.aspectMask
    question.imageSubresource.mipLevel = place.mipLevel
    answer = scratch.new("VkSubresourceLayout2")
    raw = answer.push_("VkSubresourceHostMemcpySize")
    total = 0
    for layer in range(layers):
        question.imageSubresource.arrayLayer = place.baseArrayLayer + layer
        command = "vkGetImageSubresourceLayout2"
        device.table.call(command, device.handle, handle, question, answer)
        total += raw.size
    return total
