"""Queues and the timelines bound to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.guest.handlers import handles
from hesper.kernel.errors import ProtocolError
from hesper.kernel.views import Scratch
from hesper.log import get_logger

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.guest.device import Device
    from hesper.kernel.handlers import Call

log = get_logger(__name__)


@handles("vkGetDeviceQueue2")
def get_device_queue2(context: Context, call: Call) -> None:
    """Give a guest id to a queue and bind it to the timeline the guest has chosen."""
    device = context.device(call.id("device"))
    info = call.args.pQueueInfo
    timeline = info.remove_("VkDeviceQueueTimelineInfoMESA")
    if timeline is None:
        raise ProtocolError("a queue needs a VkDeviceQueueTimelineInfoMESA")
    place = (info.queueFamilyIndex, info.flags, info.queueIndex)
    queue_id = _name_queue(context, call, device, place)
    _bind_timeline(context, device, queue_id, timeline.ringIdx)


@handles("vkGetDeviceQueue")
def get_device_queue(context: Context, call: Call) -> None:
    """Give a guest id to a queue; it has no timeline then."""
    device = context.device(call.id("device"))
    args = call.args
    _name_queue(context, call, device, (args.queueFamilyIndex, 0, args.queueIndex))


def _name_queue(context: Context, call: Call, device: Device, place: tuple[int, int, int]) -> int:
    """Register the queue at (family, flags, index); return its guest id."""
    family, flags, index = place
    if index >= device.queues[family, flags]:
        raise ProtocolError(
            f"the device has {device.queues[family, flags]} queues of family {family} with flags"
            f" {flags:#x}, queue {index} is asked for"
        )
    if place in device.named_queues:
        raise ProtocolError(f"queue {index} of family {family} is named twice")
    (queue_id,) = call.new_ids
    handle = _host_queue(device, place)
    context.engine.objects.add(
        queue_id,
        "VkQueue",
        handle,
        device=device.id,
        parent=device.id,
        table=device.table,
    )
    call.set_new_handles([handle])
    device.named_queues[place] = queue_id
    return queue_id


def _host_queue(device: Device, place: tuple[int, int, int]) -> int:
    """The host's handle of a queue."""
    family, flags, index = place
    scratch = Scratch()
    found = scratch.array("VkQueue", 1)
    if flags:
        info = scratch.new(
            "VkDeviceQueueInfo2", flags=flags, queueFamilyIndex=family, queueIndex=index
        )
        device.table.call("vkGetDeviceQueue2", device.handle, info, found)
    else:
        # Some drivers take vkGetDeviceQueue2 for queues with flags only.
        device.table.call("vkGetDeviceQueue", device.handle, family, index, found)
    if not found[0]:
        raise ProtocolError(f"the host has no queue {index} of family {family}")
    return int(found[0])


def _bind_timeline(context: Context, device: Device, queue_id: int, ring_idx: int) -> None:
    """Bind a timeline (1 to 63) to a queue."""

    def refused(result: int) -> None:
        log.warning("queue takes no fences", ring_idx=ring_idx, result=result)

    device.timelines.append(context.engine.timelines.bind(ring_idx, queue_id, refused))
