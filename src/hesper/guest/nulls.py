"""Where a guest may name nothing: the features that allow it, and nullDescriptor supplied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hesper.guest.physical_device import ROBUSTNESS
from hesper.guest.stand_ins import StandIns
from hesper.vk.enumerants import (
    VK_QUEUE_COMPUTE_BIT,
    VK_QUEUE_GRAPHICS_BIT,
    VK_QUEUE_TRANSFER_BIT,
)

if TYPE_CHECKING:
    from hesper.guest.device import Device
    from hesper.guest.physical_device import PhysicalDevice
    from hesper.kernel.shm import Pool
    from hesper.kernel.views import View

_INDICES = ("VkPhysicalDeviceMaintenance6Features", "VkPhysicalDeviceVulkan14Features")
_COPIES = VK_QUEUE_GRAPHICS_BIT | VK_QUEUE_COMPUTE_BIT | VK_QUEUE_TRANSFER_BIT


@dataclass(frozen=True)
class Nulls:
    """Where a device's guest may name nothing."""

    descriptors: bool
    """In descriptors, and as vertex buffers."""
    indices: bool
    """As index buffer."""
    is_supplied: bool
    """Whether it is not the driver that allows it."""


def take_nulls(physical: PhysicalDevice, info: View) -> Nulls:
    """See what a VkDeviceCreateInfo allows, and ask of the driver what it has.

    What stands in for nothing counts on robustBufferAccess, which every driver has.
    """
    robustness = info.find_(ROBUSTNESS)
    descriptors = robustness is not None and bool(robustness.nullDescriptor)
    found = [struct for name in _INDICES if (struct := info.find_(name)) is not None]
    indices = any(struct.maintenance6 for struct in found)
    if robustness is not None and physical.supplies_nulls:
        robustness.nullDescriptor = 0
        if not physical.has_robustness:
            info.remove_(ROBUSTNESS)
    is_supplied = descriptors and physical.supplies_nulls
    if is_supplied:
        _enable_robust_access(info)
    return Nulls(descriptors, indices, is_supplied)


def _enable_robust_access(info: View) -> None:
    """Turn robustBufferAccess on in a VkDeviceCreateInfo."""
    if info.pEnabledFeatures is not None:
        info.pEnabledFeatures.robustBufferAccess = 1
        return
    features = info.find_("VkPhysicalDeviceFeatures2")
    if features is None:
        features = info.push_("VkPhysicalDeviceFeatures2")
    features.features.robustBufferAccess = 1


def make_stand_ins(device: Device, nulls: Nulls, pool: Pool) -> StandIns | None:
    """What stands in for nothing on a new device, if something has to.

    pool: what its memory is charged to.  Raises `VulkanError` where it cannot be made.
    """
    if not nulls.is_supplied:
        return None
    return StandIns(
        device.physical,
        device.table,
        device.handle,
        families=[family for family, _ in device.queues],
        fill_by=_copying_queue(device),
        pool=pool,
    )


def _copying_queue(device: Device) -> tuple[int, int] | None:
    """Family and flags of a queue that copies; None: the device has none, and so does nothing."""
    families = device.physical.queue_families
    able = [each for each in device.queues if families[each[0]].flags & _COPIES]
    return min(able, key=lambda each: each[1], default=None)
