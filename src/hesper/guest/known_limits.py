"""What relations of the protocol need to know of a device: its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.kernel.views import Scratch

if TYPE_CHECKING:
    from hesper.guest.physical_device import PhysicalDevice
    from hesper.kernel.vulkan import ProcTable

_TRANSFORM_FEEDBACK = "VkPhysicalDeviceTransformFeedbackPropertiesEXT"


def know_limits(physical: PhysicalDevice, table: ProcTable) -> None:
    """Tell the kernel the limits of a device; table: its functions."""
    properties = Scratch().new("VkPhysicalDeviceProperties2")
    feedback = properties.push_(_TRANSFORM_FEEDBACK)
    physical.table.call("vkGetPhysicalDeviceProperties2", physical.handle, properties)
    table.know_limits(
        properties.properties.limits,
        {
            "queueFamilyCount": len(physical.queue_families),
            "maxTransformFeedbackBuffers": feedback.maxTransformFeedbackBuffers,
            "maxTransformFeedbackStreams": feedback.maxTransformFeedbackStreams,
        },
    )
