"""Images that others are to see, where the driver cannot draw to what they can see.

What a guest shares is a linear image in shared memory, or a tiled one where the driver's can lie
there.  Where they cannot (KosmicKrisp's linear images are no attachments; few drivers' tiled ones
lie in imported memory; no driver's have just any row pitch), the guest's image is a tiled one in
the driver's own memory, and beside it lies a buffer in the shared memory, with the pixels as a
linear image would have them.  They are copied when the guest gives the image away or
takes it back, which it tells by queue families that are no queues of the device (`barriers`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hesper.guest import regions
from hesper.guest.errors import OutOfMemoryError, VulkanError
from hesper.guest.formats import texel_block
from hesper.kernel.errors import ProtocolError
from hesper.kernel.views import Scratch
from hesper.vk.enumerants import (
    VK_BUFFER_USAGE_TRANSFER_DST_BIT,
    VK_BUFFER_USAGE_TRANSFER_SRC_BIT,
    VK_ERROR_OUT_OF_DEVICE_MEMORY,
    VK_IMAGE_ASPECT_COLOR_BIT,
    VK_IMAGE_LAYOUT_UNDEFINED,
    VK_IMAGE_TILING_OPTIMAL,
    VK_IMAGE_TYPE_2D,
    VK_IMAGE_USAGE_TRANSFER_DST_BIT,
    VK_IMAGE_USAGE_TRANSFER_SRC_BIT,
    VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
    VK_SUCCESS,
)

if TYPE_CHECKING:
    from hesper.guest.device import Device
    from hesper.guest.memory_types import GuestType
    from hesper.guest.physical_device import PhysicalDevice
    from hesper.kernel.handlers import Call
    from hesper.kernel.shm import Pool, Region
    from hesper.kernel.views import View

_ROW_TEXELS = 64
"""Rows of our own choice are multiples of this; displays and copies like them so."""

_TRANSFERS = VK_IMAGE_USAGE_TRANSFER_SRC_BIT | VK_IMAGE_USAGE_TRANSFER_DST_BIT


@dataclass(frozen=True)
class Plan:
    """How the pixels of an image lie in shared memory."""

    width: int
    """Texels."""
    height: int
    texel: int
    """Bytes."""
    pitch: int
    """Bytes from row to row."""
    offset: int
    """Bytes before the first."""

    @property
    def size(self) -> int:
        """Bytes to the end of the last row."""
        return self.offset + self.pitch * self.height


def plan_stage(physical: PhysicalDevice, info: View, layout: View | None) -> Plan | None:
    """How the image of a VkImageCreateInfo can be staged; None when it cannot.

    layout: the VkSubresourceLayout that the guest insists on, if it does.
    """
    texel = texel_size(info.format)
    extent = info.extent
    if texel is None:
        return None
    if (info.imageType, extent.depth, info.mipLevels, info.arrayLayers, info.samples) != (
        VK_IMAGE_TYPE_2D,
        1,
        1,
        1,
        1,
    ):
        return None
    if not can_be_tiled(physical, info.format, info.usage, info.flags):
        return None
    pitch, offset = -(-extent.width // _ROW_TEXELS) * _ROW_TEXELS * texel, 0
    if layout is not None:
        pitch, offset = layout.rowPitch, layout.offset
        if pitch % texel or offset % texel or offset % 4:
            return None
        if pitch < extent.width * texel or (pitch * extent.height + offset) >> 40:
            return None
    return Plan(extent.width, extent.height, texel, pitch, offset)


def texel_size(format_: int) -> int | None:
    """Bytes of a texel of a colour format; None for a format that cannot be staged."""
    block = texel_block(format_, VK_IMAGE_ASPECT_COLOR_BIT)
    if block is None or (block.width, block.height) != (1, 1):
        return None
    return block.size


def can_be_tiled(physical: PhysicalDevice, format_: int, usage: int, flags: int) -> bool:
    """Whether there are tiled 2D images with that usage that can be copied from and to."""
    scratch = Scratch()
    info = scratch.new(
        "VkPhysicalDeviceImageFormatInfo2",
        format=format_,
        type=VK_IMAGE_TYPE_2D,
        tiling=VK_IMAGE_TILING_OPTIMAL,
        usage=usage | _TRANSFERS,
        flags=flags,
    )
    answer = scratch.new("VkImageFormatProperties2")
    command = "vkGetPhysicalDeviceImageFormatProperties2"
    return physical.table.call(command, physical.handle, info, answer) == VK_SUCCESS


def make_tiled_question(info: View) -> None:
    """Make a VkPhysicalDeviceImageFormatInfo2 one about the tiled image of a stage."""
    info.tiling = VK_IMAGE_TILING_OPTIMAL
    info.usage |= _TRANSFERS


def make_tiled(info: View) -> None:
    """Make a VkImageCreateInfo one of the tiled image of a stage."""
    info.remove_("VkExternalMemoryImageCreateInfo")
    info.tiling = VK_IMAGE_TILING_OPTIMAL
    info.usage |= _TRANSFERS
    info.initialLayout = VK_IMAGE_LAYOUT_UNDEFINED


class Stage:
    """The memory of a staged image, and the buffer beside it; handles are the host's.

    Life: construct, `bind`, `destroy`.
    """

    def __init__(self, device: Device, pool: Pool, image: int, plan: Plan) -> None:
        """Give `image`, a tiled one that is bound to nothing yet, what it needs.

        Raises `VulkanError`; there is nothing to be destroyed then.
        """
        self.plan = plan
        self.image = image
        self._device = device
        self._region: Region | None = None
        self._memory = 0
        self.buffer = 0
        try:
            self._allocate(pool)
            self.buffer = _make_buffer(device, plan.size)
        except BaseException:
            self.destroy()
            raise

    def _allocate(self, pool: Pool) -> None:
        """Bind the image to memory of the driver's own."""
        device, scratch = self._device, Scratch()
        needs = scratch.new("VkMemoryRequirements")
        device.table.call("vkGetImageMemoryRequirements", device.handle, self.image, needs)
        kind = _native_type(device.physical, needs.memoryTypeBits)
        try:
            self._region = regions.charge(pool, needs.size, kind.heap)
        except OutOfMemoryError as error:
            raise VulkanError(VK_ERROR_OUT_OF_DEVICE_MEMORY, str(error)) from error
        info = scratch.new(
            "VkMemoryAllocateInfo", allocationSize=needs.size, memoryTypeIndex=kind.host
        )
        info.push_("VkMemoryDedicatedAllocateInfo", image=self.image)
        made = scratch.array("VkDeviceMemory", 1)
        result = device.table.call("vkAllocateMemory", device.handle, info, None, made)
        if result != VK_SUCCESS:
            raise VulkanError(result, f"no memory of {needs.size} bytes for a staged image")
        self._memory = made[0]
        result = device.table.call("vkBindImageMemory", device.handle, self.image, self._memory, 0)
        if result != VK_SUCCESS:
            raise VulkanError(result, "vkBindImageMemory failed")

    def bind(self, memory: int, offset: int, size: int) -> int:
        """Put the pixels to `offset` of a host VkDeviceMemory of `size` bytes; return the VkResult.

        Raises `ProtocolError` where they do not fit.
        """
        if self.plan.size > size - offset:
            raise ProtocolError(f"{self.plan.size} bytes from {offset} on, where there are {size}")
        arguments = (self._device.handle, self.buffer, memory, offset)
        return self._device.table.call("vkBindBufferMemory", *arguments)

    def destroy(self) -> None:
        """Free all but the image."""
        table, handle = self._device.table, self._device.handle
        table.call("vkDestroyBuffer", handle, self.buffer, None)
        table.call("vkFreeMemory", handle, self._memory, None)
        if self._region is not None:
            self._region.release()


def stage_image(device: Device, pool: Pool, call: Call, info: View, plan: Plan) -> Stage | None:
    """Run vkCreateImage for a staged image; None when the driver refuses (see `Call.result`).

    Raises `VulkanError`, with nothing made.
    """
    make_tiled(info)
    if call.invoke() != VK_SUCCESS:
        return None
    (image,) = call.new_handles
    try:
        return Stage(device, pool, image, plan)
    except BaseException:
        device.table.call("vkDestroyImage", device.handle, image, None)
        call.set_new_handles([0])
        raise


def fill_needs(device: Device, plan: Plan, needs: View) -> None:
    """Say in a VkMemoryRequirements what shared memory a staged image needs."""
    buffer = _make_buffer(device, plan.size)
    device.table.call("vkGetBufferMemoryRequirements", device.handle, buffer, needs)
    device.table.call("vkDestroyBuffer", device.handle, buffer, None)
    types = device.physical.memory_types
    needs.memoryTypeBits = types.shown(needs.memoryTypeBits, types.pictures) & types.pictures


def fill_layout(plan: Plan, layout: View) -> None:
    """Say in a VkSubresourceLayout how the pixels of a staged image lie."""
    layout.offset = plan.offset
    layout.size = plan.pitch * plan.height
    layout.rowPitch = plan.pitch
    layout.arrayPitch = layout.depthPitch = layout.size


def _make_buffer(device: Device, size: int) -> int:
    """A buffer for shared memory.  Raises `VulkanError`."""
    scratch = Scratch()
    usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT
    info = scratch.new("VkBufferCreateInfo", size=size, usage=usage)
    strategy = device.physical.strategy
    if strategy.states_buffers:
        info.push_("VkExternalMemoryBufferCreateInfo", handleTypes=strategy.handle_type)
    made = scratch.array("VkBuffer", 1)
    result = device.table.call("vkCreateBuffer", device.handle, info, None, made)
    if result != VK_SUCCESS:
        raise VulkanError(result, f"no buffer of {size} bytes for a staged image")
    return int(made[0])


def _native_type(physical: PhysicalDevice, host: int) -> GuestType:
    """The memory type for a tiled image that can lie in the driver's types `host`, a mask."""
    able = [each for each in physical.memory_types.types if host >> each.host & 1]
    local = [each for each in able if each.flags & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT]
    if not able:
        raise VulkanError(VK_ERROR_OUT_OF_DEVICE_MEMORY, "no memory type for a staged image")
    return (local or able)[0]
