"""What stands in for nothing on a device whose driver has no nullDescriptor.

Two buffers, two texels of images, and views of them: one of each is full of zeros and only read,
the other may be written to.  The kernel puts them into descriptors (`kernel/core/stand_ins.pxd`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hesper.guest import regions
from hesper.guest.errors import OutOfMemoryError, VulkanError
from hesper.kernel.views import Scratch
from hesper.vk.enumerants import (
    VK_ACCESS_MEMORY_READ_BIT,
    VK_ACCESS_MEMORY_WRITE_BIT,
    VK_ACCESS_TRANSFER_WRITE_BIT,
    VK_BUFFER_USAGE_INDEX_BUFFER_BIT,
    VK_BUFFER_USAGE_STORAGE_BUFFER_BIT,
    VK_BUFFER_USAGE_STORAGE_TEXEL_BUFFER_BIT,
    VK_BUFFER_USAGE_TRANSFER_DST_BIT,
    VK_BUFFER_USAGE_TRANSFER_SRC_BIT,
    VK_BUFFER_USAGE_UNIFORM_BUFFER_BIT,
    VK_BUFFER_USAGE_UNIFORM_TEXEL_BUFFER_BIT,
    VK_BUFFER_USAGE_VERTEX_BUFFER_BIT,
    VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT,
    VK_ERROR_OUT_OF_DEVICE_MEMORY,
    VK_FORMAT_R8G8B8A8_UNORM,
    VK_FORMAT_R32_UINT,
    VK_FORMAT_R32G32B32A32_UINT,
    VK_IMAGE_ASPECT_COLOR_BIT,
    VK_IMAGE_LAYOUT_GENERAL,
    VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL,
    VK_IMAGE_LAYOUT_UNDEFINED,
    VK_IMAGE_TILING_OPTIMAL,
    VK_IMAGE_TYPE_2D,
    VK_IMAGE_USAGE_INPUT_ATTACHMENT_BIT,
    VK_IMAGE_USAGE_SAMPLED_BIT,
    VK_IMAGE_USAGE_STORAGE_BIT,
    VK_IMAGE_USAGE_TRANSFER_DST_BIT,
    VK_IMAGE_VIEW_TYPE_2D,
    VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
    VK_PIPELINE_STAGE_ALL_COMMANDS_BIT,
    VK_QUEUE_FAMILY_IGNORED,
    VK_SAMPLE_COUNT_1_BIT,
    VK_SHARING_MODE_CONCURRENT,
    VK_SUCCESS,
    VK_TRUE,
    VK_WHOLE_SIZE,
)

if TYPE_CHECKING:
    from hesper.guest.physical_device import PhysicalDevice
    from hesper.kernel.shm import Pool, Region
    from hesper.kernel.views import View
    from hesper.kernel.vulkan import ProcTable

ZEROS_SIZE = 1 << 20
"""Bytes that vertices, indices and uniform buffers that are null can be read from."""
SINK_SIZE = 1 << 16
"""Bytes that writes to null storage buffers may come to, on drivers that look at no range."""
_TEXELS_SIZE = 256
_SECONDS = 10

_ZEROS_USAGE = (
    VK_BUFFER_USAGE_TRANSFER_SRC_BIT
    | VK_BUFFER_USAGE_TRANSFER_DST_BIT
    | VK_BUFFER_USAGE_UNIFORM_BUFFER_BIT
    | VK_BUFFER_USAGE_UNIFORM_TEXEL_BUFFER_BIT
    | VK_BUFFER_USAGE_VERTEX_BUFFER_BIT
    | VK_BUFFER_USAGE_INDEX_BUFFER_BIT
)
_SINK_USAGE = (
    VK_BUFFER_USAGE_TRANSFER_DST_BIT
    | VK_BUFFER_USAGE_STORAGE_BUFFER_BIT
    | VK_BUFFER_USAGE_STORAGE_TEXEL_BUFFER_BIT
)


class StandIns:
    """What stands in for nothing on one device; handles are the host's.

    Life: construct, `destroy` before the device.
    """

    def __init__(
        self,
        physical: PhysicalDevice,
        table: ProcTable,
        device: int,
        *,
        families: Sequence[int],
        fill_by: tuple[int, int] | None,
        pool: Pool,
    ) -> None:
        """Make all of it on a new device, and fill it.

        table: the device's functions.  families: of its queues.  fill_by: family and
        VkDeviceQueueCreateFlags of one that copies; None: there is none.  pool: what the memory is
        charged to.
        Raises `VulkanError`; there is nothing to be destroyed then.
        """
        self._physical = physical
        self._table = table
        self._device = device
        self._families = sorted(set(families))
        self._pool = pool
        self._made: list[tuple[str, int]] = []
        """Commands that destroy, and handles; the last one first."""
        self._regions: list[Region] = []
        try:
            self.handles = self._make()
            if fill_by is not None:
                self._fill(*fill_by)
        except BaseException:
            self.destroy()
            raise

    def destroy(self) -> None:
        """Destroy all of it; the device is at rest."""
        for command, handle in reversed(self._made):
            self._table.call(command, self._device, handle, None)
        for region in self._regions:
            region.release()
        self._made, self._regions = [], []

    def _make(self) -> dict[str, int]:
        """Host handles, as `Devices.describe_nulls` wants them."""
        limits = Scratch().new("VkPhysicalDeviceProperties")
        self._physical.table.call("vkGetPhysicalDeviceProperties", self._physical.handle, limits)
        self._zeros = self._buffer(ZEROS_SIZE, _ZEROS_USAGE)
        self._sink = self._buffer(SINK_SIZE, _SINK_USAGE)
        # Vulkan has no null input attachments, but zink does.
        sampled = VK_IMAGE_USAGE_SAMPLED_BIT | VK_IMAGE_USAGE_INPUT_ATTACHMENT_BIT
        # Of four zeros, also where shaders want whole numbers; and of what can be counted up.
        self._zero_image = self._image(VK_FORMAT_R8G8B8A8_UNORM, sampled)
        self._sink_image = self._image(VK_FORMAT_R32_UINT, VK_IMAGE_USAGE_STORAGE_BIT)
        return {
            "zeros": self._zeros,
            "zeros_size": ZEROS_SIZE,
            "uniform_range": min(ZEROS_SIZE, limits.limits.maxUniformBufferRange),
            "sink": self._sink,
            "zero_texels": self._texels(self._zeros, VK_FORMAT_R32G32B32A32_UINT),
            "sink_texels": self._texels(self._sink, VK_FORMAT_R32_UINT),
            "zero_image": self._view(self._zero_image, VK_FORMAT_R8G8B8A8_UNORM),
            "sink_image": self._view(self._sink_image, VK_FORMAT_R32_UINT),
        }

    def _create(self, kind: str, info: View) -> int:
        made = Scratch().array(f"Vk{kind}", 1)
        result = self._table.call(f"vkCreate{kind}", self._device, info, None, made)
        if result != VK_SUCCESS:
            raise VulkanError(result, f"vkCreate{kind} failed, for null descriptors")
        self._made.append((f"vkDestroy{kind}", made[0]))
        return int(made[0])

    def _share(self, info: View) -> View:
        """Let all of the device's queue families use what is made."""
        if len(self._families) > 1:
            info.sharingMode = VK_SHARING_MODE_CONCURRENT
            info.pQueueFamilyIndices = self._families
            info.queueFamilyIndexCount = len(self._families)
        return info

    def _buffer(self, size: int, usage: int) -> int:
        scratch = Scratch()
        info = scratch.new("VkBufferCreateInfo", size=size, usage=usage)
        buffer = self._create("Buffer", self._share(info))
        needs = scratch.new("VkMemoryRequirements")
        self._table.call("vkGetBufferMemoryRequirements", self._device, buffer, needs)
        self._bind("vkBindBufferMemory", buffer, needs)
        return buffer

    def _image(self, format_: int, usage: int) -> int:
        scratch = Scratch()
        info = scratch.new(
            "VkImageCreateInfo",
            imageType=VK_IMAGE_TYPE_2D,
            format=format_,
            mipLevels=1,
            arrayLayers=1,
            samples=VK_SAMPLE_COUNT_1_BIT,
            tiling=VK_IMAGE_TILING_OPTIMAL,
            usage=usage | VK_IMAGE_USAGE_TRANSFER_DST_BIT,
            initialLayout=VK_IMAGE_LAYOUT_UNDEFINED,
        )
        info.extent.width = info.extent.height = info.extent.depth = 1
        image = self._create("Image", self._share(info))
        needs = scratch.new("VkMemoryRequirements")
        self._table.call("vkGetImageMemoryRequirements", self._device, image, needs)
        self._bind("vkBindImageMemory", image, needs)
        return image

    def _bind(self, command: str, resource: int, needs: View) -> None:
        """Give a buffer or an image memory of the driver's own."""
        types = self._physical.memory_types.types
        able = [each for each in types if needs.memoryTypeBits >> each.host & 1]
        local = [each for each in able if each.flags & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT]
        if not able:
            raise VulkanError(VK_ERROR_OUT_OF_DEVICE_MEMORY, "no memory type for null descriptors")
        kind = (local or able)[0]
        try:
            self._regions.append(regions.charge(self._pool, needs.size, kind.heap))
        except OutOfMemoryError as error:
            raise VulkanError(VK_ERROR_OUT_OF_DEVICE_MEMORY, str(error)) from error
        scratch = Scratch()
        info = scratch.new(
            "VkMemoryAllocateInfo", allocationSize=needs.size, memoryTypeIndex=kind.host
        )
        made = scratch.array("VkDeviceMemory", 1)
        result = self._table.call("vkAllocateMemory", self._device, info, None, made)
        if result != VK_SUCCESS:
            raise VulkanError(result, f"no memory of {needs.size} bytes for null descriptors")
        # In front of what lies in it: that goes first.
        self._made.insert(0, ("vkFreeMemory", made[0]))
        result = self._table.call(command, self._device, resource, made[0], 0)
        if result != VK_SUCCESS:
            raise VulkanError(result, f"{command} failed, for null descriptors")

    def _texels(self, buffer: int, format_: int) -> int:
        info = Scratch().new(
            "VkBufferViewCreateInfo", buffer=buffer, format=format_, range=_TEXELS_SIZE
        )
        return self._create("BufferView", info)

    def _view(self, image: int, format_: int) -> int:
        info = Scratch().new(
            "VkImageViewCreateInfo", image=image, viewType=VK_IMAGE_VIEW_TYPE_2D, format=format_
        )
        info.subresourceRange.aspectMask = VK_IMAGE_ASPECT_COLOR_BIT
        info.subresourceRange.levelCount = info.subresourceRange.layerCount = 1
        return self._create("ImageView", info)

    def _fill(self, family: int, flags: int) -> None:
        """Fill all with zeros, and wait until that is done."""
        scratch, table, device = Scratch(), self._table, self._device
        queue = scratch.array("VkQueue", 1)
        wanted = scratch.new("VkDeviceQueueInfo2", flags=flags, queueFamilyIndex=family)
        table.call("vkGetDeviceQueue2", device, wanted, queue)
        info = scratch.new("VkCommandPoolCreateInfo", queueFamilyIndex=family)
        pool = self._create("CommandPool", info)
        buffers = scratch.array("VkCommandBuffer", 1)
        wanted = scratch.new(
            "VkCommandBufferAllocateInfo",
            commandPool=pool,
            commandBufferCount=1,
        )
        self._must("vkAllocateCommandBuffers", device, wanted, buffers)
        begin = scratch.new(
            "VkCommandBufferBeginInfo", flags=VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT
        )
        self._must("vkBeginCommandBuffer", buffers[0], begin)
        self._record(buffers[0])
        self._must("vkEndCommandBuffer", buffers[0])
        fence = self._create("Fence", scratch.new("VkFenceCreateInfo"))
        fences = scratch.array("VkFence", 1)
        fences[0] = fence
        submit = scratch.new("VkSubmitInfo", pCommandBuffers=buffers, commandBufferCount=1)
        self._must("vkQueueSubmit", queue[0], 1, submit, fence)
        self._must("vkWaitForFences", device, 1, fences, VK_TRUE, _SECONDS * 10**9)

    def _record(self, commands: int) -> None:
        """Zeros into both buffers, and from one of them into both images."""
        table = self._table
        for buffer in (self._zeros, self._sink):
            table.call("vkCmdFillBuffer", commands, buffer, 0, VK_WHOLE_SIZE, 0)
        everything = VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT
        written, undefined = VK_ACCESS_TRANSFER_WRITE_BIT, VK_IMAGE_LAYOUT_UNDEFINED
        target = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL
        self._barrier(commands, (written, everything), (undefined, target))
        for image in (self._zero_image, self._sink_image):
            region = Scratch().new("VkBufferImageCopy")
            region.imageSubresource.aspectMask = VK_IMAGE_ASPECT_COLOR_BIT
            region.imageSubresource.layerCount = 1
            extent = region.imageExtent
            extent.width = extent.height = extent.depth = 1
            arguments = (self._zeros, image, target, 1, region)
            table.call("vkCmdCopyBufferToImage", commands, *arguments)
        self._barrier(commands, (written, everything), (target, VK_IMAGE_LAYOUT_GENERAL))

    def _barrier(self, commands: int, access: tuple[int, int], layouts: tuple[int, int]) -> None:
        """One for all memory, and both images from a layout to another."""
        scratch = Scratch()
        memory = scratch.new("VkMemoryBarrier", srcAccessMask=access[0], dstAccessMask=access[1])
        images = scratch.array("VkImageMemoryBarrier", 2)
        for barrier, image in zip(images, (self._zero_image, self._sink_image), strict=True):
            barrier.srcAccessMask, barrier.dstAccessMask = access
            barrier.oldLayout, barrier.newLayout = layouts
            barrier.srcQueueFamilyIndex = barrier.dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED
            barrier.image = image
            barrier.subresourceRange.aspectMask = VK_IMAGE_ASPECT_COLOR_BIT
            barrier.subresourceRange.levelCount = barrier.subresourceRange.layerCount = 1
        stages = (VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT)
        arguments = (*stages, 0, 1, memory, 0, None, 2, images)
        self._table.call("vkCmdPipelineBarrier", commands, *arguments)

    def _must(self, command: str, *arguments: int | View | object) -> None:
        result = self._table.call(command, *arguments)  # type: ignore[arg-type]
        if result != VK_SUCCESS:
            raise VulkanError(result, f"{command} failed, for null descriptors")
