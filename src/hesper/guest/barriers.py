"""Copies of staged images (`staging`) when they change hands.

A guest gives an image away, and takes it back, by a barrier whose one queue family is
VK_QUEUE_FAMILY_FOREIGN_EXT or VK_QUEUE_FAMILY_EXTERNAL.  Mesa makes its swapchains' images change
hands so (`vn_cmd_fix_image_memory_barrier` in src/virtio/vulkan), compositors do by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hesper.kernel.views import Scratch
from hesper.vk.enumerants import (
    VK_ACCESS_HOST_READ_BIT,
    VK_ACCESS_HOST_WRITE_BIT,
    VK_ACCESS_MEMORY_READ_BIT,
    VK_ACCESS_MEMORY_WRITE_BIT,
    VK_ACCESS_TRANSFER_READ_BIT,
    VK_ACCESS_TRANSFER_WRITE_BIT,
    VK_IMAGE_ASPECT_COLOR_BIT,
    VK_IMAGE_LAYOUT_PREINITIALIZED,
    VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL,
    VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL,
    VK_IMAGE_LAYOUT_UNDEFINED,
    VK_PIPELINE_STAGE_ALL_COMMANDS_BIT,
    VK_PIPELINE_STAGE_HOST_BIT,
    VK_PIPELINE_STAGE_TRANSFER_BIT,
    VK_QUEUE_FAMILY_EXTERNAL,
    VK_QUEUE_FAMILY_FOREIGN_EXT,
    VK_QUEUE_FAMILY_IGNORED,
    VK_WHOLE_SIZE,
)

if TYPE_CHECKING:
    from hesper.guest.device import Device
    from hesper.guest.staging import Stage
    from hesper.kernel.views import Array, View

_OTHERS = (VK_QUEUE_FAMILY_FOREIGN_EXT, VK_QUEUE_FAMILY_EXTERNAL)
_ANYONE = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT | VK_PIPELINE_STAGE_HOST_BIT


@dataclass(frozen=True)
class _Store:
    """An image that is given away."""

    stage: Stage
    layout: int
    """The VkImageLayout that the guest gives it away in."""


class HandOver:
    """What one barrier command does to staged images.

    Life: construct, `add` each VkImageMemoryBarrier (or 2), `load`, have the command recorded as it
    is by then, `store`.
    """

    def __init__(self, device: Device, commands: int) -> None:
        """Record into `commands`, a host VkCommandBuffer."""
        self._device = device
        self._commands = commands
        self._loads: list[Stage] = []
        self._stores: list[_Store] = []

    @property
    def source_stages(self) -> int:
        """What the command has to wait for in addition, VkPipelineStageFlags."""
        return VK_PIPELINE_STAGE_TRANSFER_BIT if self._loads else 0

    @property
    def target_stages(self) -> int:
        """What has to wait for it."""
        return VK_PIPELINE_STAGE_TRANSFER_BIT if self._stores else 0

    def add(self, barrier: View) -> tuple[int, int]:
        """Make a barrier one inside the device, if its image is staged and changes hands.

        Returns the stages that it has to wait for in addition, and those that have to wait for it.
        """
        stage = self._device.stages.get(barrier.image)
        taken = barrier.srcQueueFamilyIndex in _OTHERS
        given = barrier.dstQueueFamilyIndex in _OTHERS
        if stage is None or not (taken or given):
            if barrier.oldLayout == VK_IMAGE_LAYOUT_PREINITIALIZED:
                # What the kernel does where it records barriers by itself (`placement`).
                barrier.oldLayout = VK_IMAGE_LAYOUT_UNDEFINED
            return 0, 0
        barrier.srcQueueFamilyIndex = barrier.dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED
        unmodified = barrier.remove_("VkExternalMemoryAcquireUnmodifiedEXT")
        is_same = unmodified is not None and unmodified.acquireUnmodifiedMemory
        loads = taken and not is_same and barrier.oldLayout != VK_IMAGE_LAYOUT_UNDEFINED
        if loads:
            self._loads.append(stage)
            barrier.oldLayout = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL
            barrier.srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT
        if given:
            self._stores.append(_Store(stage, barrier.newLayout))
            barrier.newLayout = VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL
            barrier.dstAccessMask = VK_ACCESS_TRANSFER_READ_BIT
        transfer = VK_PIPELINE_STAGE_TRANSFER_BIT
        return transfer if loads else 0, transfer if given else 0

    def load(self) -> None:
        """Copy what others have drawn to the images that are taken back."""
        for stage in self._loads:
            scratch = Scratch()
            image = _image_barrier(scratch, stage)
            image[0].newLayout = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL
            image[0].dstAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT
            buffer = _buffer_barrier(scratch, stage)
            buffer[0].srcAccessMask = VK_ACCESS_HOST_WRITE_BIT | VK_ACCESS_MEMORY_WRITE_BIT
            buffer[0].dstAccessMask = VK_ACCESS_TRANSFER_READ_BIT
            self._barrier(_ANYONE, VK_PIPELINE_STAGE_TRANSFER_BIT, buffer, image)
            self._device.table.call(
                "vkCmdCopyBufferToImage",
                self._commands,
                stage.buffer,
                stage.image,
                VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL,
                1,
                _region(scratch, stage),
            )

    def store(self) -> None:
        """Copy the images that are given away to where others see them."""
        for each in self._stores:
            scratch, stage = Scratch(), each.stage
            self._device.table.call(
                "vkCmdCopyImageToBuffer",
                self._commands,
                stage.image,
                VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL,
                stage.buffer,
                1,
                _region(scratch, stage),
            )
            image = _image_barrier(scratch, stage)
            image[0].oldLayout = VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL
            image[0].newLayout = each.layout
            buffer = _buffer_barrier(scratch, stage)
            buffer[0].srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT
            buffer[0].dstAccessMask = VK_ACCESS_HOST_READ_BIT | VK_ACCESS_MEMORY_READ_BIT
            self._barrier(VK_PIPELINE_STAGE_TRANSFER_BIT, _ANYONE, buffer, image)

    def _barrier(self, before: int, after: int, buffer: Array, image: Array) -> None:
        """Record a barrier between VkPipelineStageFlags."""
        arguments = (self._commands, before, after, 0, 0, None, 1, buffer, 1, image)
        self._device.table.call("vkCmdPipelineBarrier", *arguments)


def _image_barrier(scratch: Scratch, stage: Stage) -> Array:
    """One VkImageMemoryBarrier for the whole image, with layouts and accesses left open."""
    barrier = scratch.array("VkImageMemoryBarrier", 1)
    barrier[0].srcQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED
    barrier[0].dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED
    barrier[0].image = stage.image
    whole = barrier[0].subresourceRange
    whole.aspectMask = VK_IMAGE_ASPECT_COLOR_BIT
    whole.levelCount = whole.layerCount = 1
    return barrier


def _buffer_barrier(scratch: Scratch, stage: Stage) -> Array:
    """The same for the buffer."""
    barrier = scratch.array("VkBufferMemoryBarrier", 1)
    barrier[0].srcQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED
    barrier[0].dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED
    barrier[0].buffer = stage.buffer
    barrier[0].size = VK_WHOLE_SIZE
    return barrier


def _region(scratch: Scratch, stage: Stage) -> Array:
    """One VkBufferImageCopy for the whole image."""
    plan = stage.plan
    region = scratch.array("VkBufferImageCopy", 1)
    region[0].bufferOffset = plan.offset
    region[0].bufferRowLength = plan.pitch // plan.texel
    layers = region[0].imageSubresource
    layers.aspectMask = VK_IMAGE_ASPECT_COLOR_BIT
    layers.layerCount = 1
    extent = region[0].imageExtent
    extent.width, extent.height, extent.depth = plan.width, plan.height, 1
    return region
