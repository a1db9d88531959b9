"""What the kernel needs to know of a device to hold messages against it: its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.kernel.views import Scratch

if TYPE_CHECKING:
    from hesper.guest.physical_device import PhysicalDevice
    from hesper.kernel.vulkan import ProcTable

_TRANSFORM_FEEDBACK = "VkPhysicalDeviceTransformFeedbackPropertiesEXT"
_PUSH_DESCRIPTORS = "VkPhysicalDevicePushDescriptorProperties"
_INDEXING = "VkPhysicalDeviceDescriptorIndexingProperties"
_MULTIVIEW = "VkPhysicalDeviceMultiviewProperties"
_MAINTENANCE_4 = "VkPhysicalDeviceMaintenance4Properties"

_MEBIBYTE = 1 << 20
_LARGEST_BUFFER = 1 << 47
"""Bytes, where a driver names no limit: more than there are addresses."""


def know_limits(physical: PhysicalDevice, table: ProcTable) -> None:
    """Tell the kernel the limits of a device; table: its functions."""
    properties = Scratch().new("VkPhysicalDeviceProperties2")
    feedback = properties.push_(_TRANSFORM_FEEDBACK)
    pushed = properties.push_(_PUSH_DESCRIPTORS)
    indexing = properties.push_(_INDEXING)
    multiview = properties.push_(_MULTIVIEW)
    maintenance = properties.push_(_MAINTENANCE_4)
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
        },
    )


def _sum(*numbers: int) -> int:
    return min(sum(numbers), (1 << 32) - 1)


def _mebibytes(size: int) -> int:
    """Round up `size` bytes; 0: the driver does not say."""
    return -(-min(size or _LARGEST_BUFFER, _LARGEST_BUFFER) // _MEBIBYTE)
