"""Images larger than the device has any, or with more samples: drivers keep arrays of such sizes.

Vulkan's limits are what every image may have; of some kinds there may be more, which only the
driver knows.  Source: the valid usage of VkImageCreateInfo, "Image Creation Limits".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from hesper.guest.errors import VulkanError
from hesper.kernel.views import Scratch
from hesper.vk.enumerants import (
    VK_ERROR_UNKNOWN,
    VK_IMAGE_TILING_OPTIMAL,
    VK_IMAGE_TYPE_1D,
    VK_IMAGE_TYPE_2D,
    VK_IMAGE_TYPE_3D,
    VK_SAMPLE_COUNT_1_BIT,
    VK_SUCCESS,
)

if TYPE_CHECKING:
    from hesper.guest.physical_device import PhysicalDevice
    from hesper.kernel.views import View


@dataclass(frozen=True)
class ImageLimits:
    """How large images may be, and how many samples they may have."""

    extent: tuple[int, int, int]
    """Texels: width, height, depth."""
    layers: int
    samples: int
    """VkSampleCountFlags."""
    levels: int = 32

    @classmethod
    def of_every(cls, limits: View) -> dict[int, Self]:
        """What a VkPhysicalDeviceLimits says, by VkImageType."""
        samples = (
            limits.framebufferColorSampleCounts
            | limits.framebufferDepthSampleCounts
            | limits.framebufferStencilSampleCounts
            | limits.sampledImageColorSampleCounts
            | limits.sampledImageIntegerSampleCounts
            | limits.sampledImageDepthSampleCounts
            | limits.sampledImageStencilSampleCounts
            | limits.storageImageSampleCounts
            | VK_SAMPLE_COUNT_1_BIT
        )
        flat, deep = limits.maxImageDimension2D, limits.maxImageDimension3D
        extents = {
            VK_IMAGE_TYPE_1D: (limits.maxImageDimension1D, 1, 1),
            VK_IMAGE_TYPE_2D: (flat, flat, 1),
            VK_IMAGE_TYPE_3D: (deep, deep, deep),
        }
        return {
            type_: cls(extent, limits.maxImageArrayLayers, samples)
            for type_, extent in extents.items()
        }

    def allow(self, info: View) -> bool:
        """Whether an image of a VkImageCreateInfo is within these."""
        extent = (info.extent.width, info.extent.height, info.extent.depth)
        return (
            all(size <= most for size, most in zip(extent, self.extent, strict=True))
            and info.arrayLayers <= self.layers
            and info.mipLevels <= self.levels
            and bool(info.samples & self.samples)
        )


def check_image(physical: PhysicalDevice, info: View) -> None:
    """Raise `VulkanError` where a VkImageCreateInfo asks for more than the driver has.

    A driver is asked about what is out of the ordinary only, and where it knows nothing about such
    an image, the limits of all images count.
    """
    every = physical.image_limits[info.imageType]
    is_plain = info.samples == VK_SAMPLE_COUNT_1_BIT and (
        info.tiling == VK_IMAGE_TILING_OPTIMAL or info.mipLevels == info.arrayLayers == 1
    )
    if is_plain and every.allow(info):
        return
    limits = _ask(physical, info) or every
    if not limits.allow(info):
        raise VulkanError(
            VK_ERROR_UNKNOWN,
            f"an image of {info.extent.width} x {info.extent.height} x {info.extent.depth} texels,"
            f" {info.mipLevels} levels, {info.arrayLayers} layers and {info.samples} samples, where"
            f" the device has at most {limits}",
        )


def _ask(physical: PhysicalDevice, info: View) -> ImageLimits | None:
    """What the driver says of images of that kind; None: that there are none."""
    scratch = Scratch()
    question = scratch.new(
        "VkPhysicalDeviceImageFormatInfo2",
        format=info.format,
        type=info.imageType,
        tiling=info.tiling,
        usage=info.usage,
        flags=info.flags,
    )
    answer = scratch.new("VkImageFormatProperties2")
    command = "vkGetPhysicalDeviceImageFormatProperties2"
    if physical.table.call(command, physical.handle, question, answer) != VK_SUCCESS:
        return None
    found = answer.imageFormatProperties
    return ImageLimits(
        (found.maxExtent.width, found.maxExtent.height, found.maxExtent.depth),
        found.maxArrayLayers,
        found.sampleCounts,
        found.maxMipLevels,
    )
