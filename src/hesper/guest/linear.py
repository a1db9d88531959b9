"""What linear images can be drawn to.

Vulkan has two answers: one about kinds of images, and a format's features, which count for views
(VUID-VkImageViewCreateInfo-usage-02276, -02277, -02652).  Drivers' answers need not agree.  What
NVIDIA's says of kinds counts with VK_NV_linear_color_attachment, which nothing here enables; it has
no feature for it, and a GPU of theirs faults that draws to a linear image beside a tiled depth
attachment.  So the features decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.guest.errors import VulkanError
from hesper.kernel.views import Scratch
from hesper.vk.enumerants import (
    VK_ERROR_FORMAT_NOT_SUPPORTED,
    VK_FORMAT_FEATURE_COLOR_ATTACHMENT_BIT,
    VK_FORMAT_FEATURE_DEPTH_STENCIL_ATTACHMENT_BIT,
    VK_IMAGE_CREATE_EXTENDED_USAGE_BIT,
    VK_IMAGE_TILING_LINEAR,
    VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT,
    VK_IMAGE_USAGE_DEPTH_STENCIL_ATTACHMENT_BIT,
    VK_IMAGE_USAGE_INPUT_ATTACHMENT_BIT,
)

if TYPE_CHECKING:
    from hesper.guest.physical_device import PhysicalDevice

_COLOR = VK_FORMAT_FEATURE_COLOR_ATTACHMENT_BIT
_DEPTH = VK_FORMAT_FEATURE_DEPTH_STENCIL_ATTACHMENT_BIT
_NEEDS = (
    (VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT, _COLOR),
    (VK_IMAGE_USAGE_DEPTH_STENCIL_ATTACHMENT_BIT, _DEPTH),
    (VK_IMAGE_USAGE_INPUT_ATTACHMENT_BIT, _COLOR | _DEPTH),
)
"""Ways in which images are attachments, and format features of which each needs one."""


def can_be_attached(physical: PhysicalDevice, format_: int, usage: int, flags: int) -> bool:
    """Whether linear images of a VkFormat can be the attachments that VkImageUsageFlags name.

    flags: VkImageCreateFlags.  Where views have formats of their own, it is enough that the driver
    draws to linear images at all.
    """
    needed = [features for way, features in _NEEDS if usage & way]
    if not needed:
        return True
    if flags & VK_IMAGE_CREATE_EXTENDED_USAGE_BIT and physical.seen.linear_attachments:
        return True
    properties = Scratch().new("VkFormatProperties")
    command = "vkGetPhysicalDeviceFormatProperties"
    physical.table.call(command, physical.handle, format_, properties)
    there = properties.linearTilingFeatures
    return all(there & features for features in needed)


def check_linear(
    physical: PhysicalDevice, *, format_: int, tiling: int, usage: int, flags: int
) -> None:
    """Raise `VulkanError` for an image, or a question about one, that cannot be drawn to."""
    if tiling == VK_IMAGE_TILING_LINEAR and not can_be_attached(physical, format_, usage, flags):
        raise VulkanError(
            VK_ERROR_FORMAT_NOT_SUPPORTED,
            f"linear images of format {format_} are no attachments, and usage is {usage:#x}",
        )
