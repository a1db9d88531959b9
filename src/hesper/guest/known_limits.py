"""What the kernel needs to know of a device to hold messages against it: its limits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hesper.kernel.views import Scratch

if TYPE_CHECKING:
    from hesper.guest.physical_device import PhysicalDevice
    from hesper.kernel.views import View
    from hesper.kernel.vulkan import ProcTable

_TRANSFORM_FEEDBACK = "VkPhysicalDeviceTransformFeedbackPropertiesEXT"
_PUSH_DESCRIPTORS = "VkPhysicalDevicePushDescriptorProperties"
_INDEXING = "VkPhysicalDeviceDescriptorIndexingProperties"
_MULTIVIEW = "VkPhysicalDeviceMultiviewProperties"
_MAINTENANCE_4 = "VkPhysicalDeviceMaintenance4Properties"
_BORDER_COLORS = "VkPhysicalDeviceCustomBorderColorPropertiesEXT"
_HEAPS = "VkPhysicalDeviceDescriptorHeapPropertiesEXT"
_SAMPLE_LOCATIONS = "VkPhysicalDeviceSampleLocationsPropertiesEXT"

_MEBIBYTE = 1 << 20
_LARGEST_BUFFER = 1 << 47
"""Bytes, where a driver names no limit: more than there are addresses."""


def know_limits(physical: PhysicalDevice, table: ProcTable, *, copies_depth: bool) -> None:
    """Tell the kernel the limits of a device; table: its functions.

    copies_depth: whether it copies between depth and colours (maintenance8).
    """
    properties = Scratch().new("VkPhysicalDeviceProperties2")
    feedback = properties.push_(_TRANSFORM_FEEDBACK)
    pushed = properties.push_(_PUSH_DESCRIPTORS)
    indexing = properties.push_(_INDEXING)
    multiview = properties.push_(_MULTIVIEW)
    maintenance = properties.push_(_MAINTENANCE_4)
    locations = properties.push_(_SAMPLE_LOCATIONS)
    colors = properties.push_(_BORDER_COLORS)
    heaps = properties.push_(_HEAPS)
    physical.table.call("vkGetPhysicalDeviceProperties2", physical.handle, properties)
    table.know_limits(
        properties.properties.limits,
        {
            "queueFamilyCount": len(physical.queue_families),
            "maxTransformFeedbackBuffers": feedback.maxTransformFeedbackBuffers,
            "maxTransformFeedbackStreams": feedback.maxTransformFeedbackStreams,
            "maxPushDescriptors": pushed.maxPushDescriptors,
            "maxUpdateAfterBindDynamic": _sum(
                indexing.maxDescriptorSetUpdateAfterBindUniformBuffersDynamic,
                indexing.maxDescriptorSetUpdateAfterBindStorageBuffersDynamic,
            ),
            "maxBufferMebibytes": _mebibytes(maintenance.maxBufferSize),
            "allViews": (1 << min(multiview.maxMultiviewViewCount, 32)) - 1,
            "maxSampleLocations": _sample_locations(locations),
            "copiesDepthAsColor": 1 + copies_depth,
            "maxCustomBorderColors": colors.maxCustomBorderColorSamplers or 1,
            "maxSamples": _most_samples(properties.properties.limits),
            "maxPushDataSize": _sum(heaps.maxPushDataSize),
            "opaqueCaptureDataSize": _sum(heaps.imageCaptureReplayOpaqueDataSize),
        },
    )


def _most_samples(limits: View) -> int:
    """How many samples there are at most in what is rendered to, attachments or not."""
    counts = (
        limits.framebufferColorSampleCounts
        | limits.framebufferDepthSampleCounts
        | limits.framebufferStencilSampleCounts
        | limits.framebufferNoAttachmentsSampleCounts
    )
    return _highest(counts)


def _highest(counts: int) -> int:
    """The largest of VkSampleCountFlags, which are what they count; 1 where there are none."""
    return 1 << (counts.bit_length() or 1) - 1


def _sample_locations(known: View) -> int:
    """How many there are at most; drivers without any look at them, too, and have room for one."""
    grid = known.maxSampleLocationGridSize
    samples = _highest(known.sampleLocationSampleCounts)
    return _product(samples, grid.width or 1, grid.height or 1)


def _product(*numbers: int) -> int:
    return min(math.prod(numbers), (1 << 32) - 1)


def _sum(*numbers: int) -> int:
    return min(sum(numbers), (1 << 32) - 1)


def _mebibytes(size: int) -> int:
    """Round up `size` bytes; 0: the driver does not say."""
    return -(-min(size or _LARGEST_BUFFER, _LARGEST_BUFFER) // _MEBIBYTE)
