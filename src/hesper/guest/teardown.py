"""Free what a guest has left behind, in the order the driver wants."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hesper.kernel.views import Scratch
from hesper.vk.enumerants import (
    VK_SUCCESS,
    VK_TIMEOUT,
    VK_TRUE,
)

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.guest.device import Device
    from hesper.guest.instance import Instance
    from hesper.kernel.objects import Object

DRAIN_SECONDS = 10.0
"""How long the queues of a device may take to come to rest."""

_WITH_THEIR_POOL = {"VkCommandBuffer", "VkDescriptorSet"}
_NOT_DESTROYED = {"VkDevice", "VkQueue"}

_ORDER = (
    "VkCommandPool",
    "VkDescriptorPool",
    "VkFramebuffer",
    "VkPipeline",
    "VkPipelineCache",
    "VkPipelineLayout",
    "VkRenderPass",
    "VkDescriptorUpdateTemplate",
    "VkDescriptorSetLayout",
    "VkShaderModule",
    "VkSampler",
    "VkBufferView",
    "VkImageView",
    "VkSamplerYcbcrConversion",
    "VkAccelerationStructureKHR",
    "VkQueryPool",
    "VkEvent",
    "VkFence",
    "VkSemaphore",
    "VkBuffer",
    "VkImage",
    "VkPrivateDataSlot",
    "VkDeviceMemory",
)
"""Users before what they use.  Types that do not stand here go first."""

_RANK = {type_: rank for rank, type_ in enumerate(_ORDER)}


class BusyError(Exception):
    """A queue does not come to rest; nothing it uses can be destroyed."""


def destroy_instance(context: Context, instance: Instance) -> None:
    """Destroy an instance with its devices.  Raises `BusyError`."""
    for device in list(context.devices.values()):
        destroy_device(context, device)
    if not context.take_instance(instance):
        return
    for guest_id in list(instance.physical_devices):
        context.engine.objects.remove(guest_id)
    context.engine.objects.remove(instance.id)
    instance.table.call("vkDestroyInstance", instance.handle, None)


def destroy_device(context: Context, device: Device) -> None:
    """Destroy a device with all its objects.

    Raises `BusyError`, with the device as it was.  Does nothing when another thread is at it.
    """
    if not context.take_device(device):
        return
    try:
        _drain(context, device)
    except BusyError:
        context.devices[device.id] = device
        raise
    context.engine.shares.forget(device.id)
    for timeline in device.timelines:
        timeline.stop(DRAIN_SECONDS)
    for each in sorted(context.engine.objects.all(device=device.id), key=destruction_rank):
        _destroy(context, device, each)
    for stage in device.stages.values():
        stage.destroy()
    if device.stand_ins is not None:
        device.stand_ins.destroy()
    for fence in device.retired_fences:
        device.table.call("vkDestroyFence", device.handle, fence, None)
    context.engine.objects.remove(device.id)
    device.table.call("vkDestroyDevice", device.handle, None)
    context.engine.ledger.end("devices")


def destruction_rank(each: Object) -> int:
    """Objects are destroyed in the order of this number."""
    return _RANK.get(each.type, -1)


def destroy_command(type_: str) -> str:
    """The command that destroys objects of a handle type."""
    return "vkFreeMemory" if type_ == "VkDeviceMemory" else f"vkDestroy{type_[2:]}"


def _destroy(context: Context, device: Device, each: Object) -> None:
    if each.type in _NOT_DESTROYED:
        if each.type == "VkQueue":
            context.engine.objects.remove(each.id)
        return
    if each.type in _WITH_THEIR_POOL:
        return
    taken = context.engine.objects.take(each)
    if taken is not None and each.handle:  # not another ring's victim, nor a dead object
        device.table.call(destroy_command(each.type), device.handle, each.handle, None)


def _drain(context: Context, device: Device) -> None:
    """Wait until all queues of `device` have come to rest.  Raises `BusyError`.

    vkDeviceWaitIdle would wait for ever for a guest that waits for itself.
    """
    deadline = time.monotonic() + DRAIN_SECONDS
    scratch = Scratch()
    info = scratch.new("VkFenceCreateInfo")
    made = scratch.array("VkFence", 1)
    if context.engine.devices.is_lost(device.id):
        return
    for queue_id in device.named_queues.values():
        if device.table.call("vkCreateFence", device.handle, info, None, made) != VK_SUCCESS:
            return  # the device is lost, or memory is out: there is nothing to wait for
        fence = made[0]
        result = context.engine.devices.queue_call(queue_id, "vkQueueSubmit", 0, None, fence)
        if result == VK_SUCCESS:
            left = max(0, int((deadline - time.monotonic()) * 1e9))
            result = device.table.call("vkWaitForFences", device.handle, 1, made, VK_TRUE, left)
        if result == VK_TIMEOUT:
            raise BusyError(f"a queue of device {device.id} is busy after {DRAIN_SECONDS:.0f} s")
        device.table.call("vkDestroyFence", device.handle, fence, None)
