"""Logical devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from hesper.guest import teardown
from hesper.guest.backing import HostPointer
from hesper.guest.errors import VulkanError
from hesper.guest.facts import Facts
from hesper.guest.handlers import handles
from hesper.guest.known_limits import know_limits
from hesper.guest.nulls import Nulls, make_stand_ins, take_nulls
from hesper.guest.physical_device import ROBUSTNESS, PhysicalDevice, physical_device
from hesper.guest.placement import Placements
from hesper.kernel.errors import ProtocolError
from hesper.portable import processors
from hesper.vk.enumerants import (
    VK_ERROR_EXTENSION_NOT_PRESENT,
    VK_ERROR_FEATURE_NOT_PRESENT,
    VK_ERROR_INITIALIZATION_FAILED,
    VK_ERROR_OUT_OF_HOST_MEMORY,
    VK_ERROR_TOO_MANY_OBJECTS,
    VK_SUCCESS,
)

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.guest.image import HostImage
    from hesper.guest.results import QueryPool
    from hesper.guest.staging import Stage
    from hesper.guest.stand_ins import StandIns
    from hesper.kernel.handlers import Call
    from hesper.kernel.objects import Object
    from hesper.kernel.timelines import Timeline
    from hesper.kernel.views import View
    from hesper.kernel.vulkan import ProcTable

MAINTENANCE_8 = "VkPhysicalDeviceMaintenance8FeaturesKHR"
LEFT_BY_DEVICE = 20 << 10
"""Bytes that are kept of each device as long as its context lives: threads may still look at it."""
FREE_DEVICES = 64
"""Of so many that are not counted: hardly a program makes more."""
PATIENCE = 500
"""Microseconds for which threads look out for what comes next, where there is room for that."""
ROOMY_PROCESSORS = 4
"""Processors from which on there is: a guest's thread, its ring's, its socket's, and others'."""


class Device:
    """A VkDevice of the guest."""

    def __init__(
        self,
        device_id: int,
        handle: int,
        table: ProcTable,
        physical: PhysicalDevice,
        *,
        queues: Counter[tuple[int, int]],
        objects: Callable[..., list[Object]],
    ) -> None:
        """Remember a host device under its guest id.

        queues: how many queues there are by (family, VkDeviceQueueCreateFlags).
        objects: lists the device's objects of a `type`.
        """
        self.id = device_id
        self.handle = handle
        self.table = table
        self.physical = physical
        self.queues = queues
        self.named_queues: dict[tuple[int, int, int], int] = {}
        """Guest ids of the queues the guest has asked for, by (family, flags, index)."""
        self.timelines: list[Timeline] = []
        """Timelines bound to queues of this device."""
        self.retired_fences: list[int] = []
        """Host fences that were replaced while the driver still had them (see `sync`)."""
        self.sweep_fences_at = 64
        """How many of them there may be before a look at which are signalled by now."""
        self.host_images: Facts[HostImage] = Facts(partial(objects, type="VkImage"))
        """Images that are made for host copies."""
        self.query_pools: Facts[QueryPool] = Facts(partial(objects, type="VkQueryPool"))
        self.stages: dict[int, Stage] = {}
        """Staged images, by host handle."""
        self.stand_ins: StandIns | None = None
        """What stands in for null descriptors, where the driver takes none."""
        self.placements = Placements(physical, table, handle)
        self.image_types: Facts[int] = Facts(partial(objects, type="VkImage"))
        """The guest's memory types that each image can be bound to, a mask."""

    def any_queue(self) -> int:
        """Guest id of one of its queues.  Raises `ProtocolError` when the guest has none."""
        for queue_id in self.named_queues.values():
            return queue_id
        raise ProtocolError("the device has no queue yet")


def check_queues(infos: list[tuple[int, int, int]], physical: PhysicalDevice) -> None:
    """Check the queues a guest wants: (family, flags, count) each.

    Raises `VulkanError` for families that do not exist or have too few queues, and for families
    that are named twice.
    """
    if not infos and not physical.makes_devices_without_queues:
        raise VulkanError(VK_ERROR_INITIALIZATION_FAILED, "no queues")
    if len({(family, flags) for family, flags, _ in infos}) < len(infos):
        raise VulkanError(VK_ERROR_INITIALIZATION_FAILED, "a queue family twice")
    wanted: Counter[int] = Counter()
    for family, _, count in infos:
        if family >= len(physical.queue_families) or not count:
            raise VulkanError(VK_ERROR_INITIALIZATION_FAILED, f"{count} queues of family {family}")
        wanted[family] += count
        if wanted[family] > physical.queue_families[family].count:
            raise VulkanError(
                VK_ERROR_INITIALIZATION_FAILED,
                f"{wanted[family]} queues of family {family}, which has"
                f" {physical.queue_families[family].count}",
            )


def check_features(info: View, physical: PhysicalDevice) -> None:
    """Raise `VulkanError` when a device is to have a feature that the host profile takes away."""
    structs = list(info.chain_())
    all_in_one = info.find_("VkPhysicalDeviceFeatures2")
    if all_in_one is not None:
        structs.append(all_in_one.features)
    if info.pEnabledFeatures is not None:
        structs.append(info.pEnabledFeatures)
    for struct in structs:
        for field in physical.profile.features_off.get(struct.struct_, ()):
            is_supplied = struct.struct_ == ROBUSTNESS and field == "nullDescriptor"
            if is_supplied and physical.supplies_nulls:
                continue
            if getattr(struct, field):
                raise VulkanError(
                    VK_ERROR_FEATURE_NOT_PRESENT, f"{struct.struct_}.{field} is not offered"
                )


@handles("vkCreateDevice")
def create_device(context: Context, call: Call) -> None:
    """Make a device with the guest's extensions, as far as the host needs them, and our own."""
    physical = physical_device(context, call)
    info = call.args.pCreateInfo
    infos = [
        (each.queueFamilyIndex, each.flags, each.queueCount)
        for each in info.pQueueCreateInfos or ()
    ]
    check_queues(infos, physical)
    check_features(info, physical)
    try:
        names = physical.host_extensions(list(info.ppEnabledExtensionNames or ()))
    except KeyError as error:
        raise VulkanError(VK_ERROR_EXTENSION_NOT_PRESENT, f"{error} is not offered") from None
    info.ppEnabledLayerNames = None
    info.enabledLayerCount = 0
    info.ppEnabledExtensionNames = names
    if not context.engine.ledger.begin("devices"):
        raise VulkanError(VK_ERROR_TOO_MANY_OBJECTS, f"more than {context.limits.devices} devices")
    nulls = take_nulls(physical, info)
    try:
        _make_device(context, call, physical, infos, names, nulls)
    finally:
        if call.new_ids[0] not in context.devices:
            context.engine.ledger.end("devices")


def _make_device(
    context: Context,
    call: Call,
    physical: PhysicalDevice,
    infos: list[tuple[int, int, int]],
    names: list[str],
    nulls: Nulls,
) -> None:
    """Have the driver make a device with extensions of those names, and keep it."""
    newer = call.args.pCreateInfo.find_(MAINTENANCE_8)
    copies_depth = newer is not None and bool(newer.maintenance8)
    if call.invoke() != VK_SUCCESS:
        return
    (handle,), (guest_id,) = call.new_handles, call.new_ids
    table = context.vulkan.device_table(physical.table, handle)
    # Drivers have functions, too, of what the device was not made with.
    table = table.without(physical.missing_commands(names))
    know_limits(physical, table, copies_depth=copies_depth)
    queues: Counter[tuple[int, int]] = Counter()
    for family, flags, count in infos:
        queues[family, flags] += count
    objects = partial(context.engine.objects.all, device=guest_id)
    device = Device(guest_id, handle, table, physical, queues=queues, objects=objects)
    try:
        _count(context)
        device.stand_ins = make_stand_ins(device, nulls, context.pool)
        context.engine.objects.add(
            guest_id, "VkDevice", handle, parent=call.id("physicalDevice"), table=table
        )
    except (ProtocolError, VulkanError):
        if device.stand_ins is not None:
            device.stand_ins.destroy()
        table.call("vkDestroyDevice", handle, None)
        call.set_new_handles([0])
        raise
    _set_memory(context, physical, guest_id)
    context.engine.devices.describe_nulls(
        guest_id,
        descriptors=nulls.descriptors,
        indices=nulls.indices,
        stand_ins=device.stand_ins.handles if device.stand_ins is not None else None,
    )
    context.engine.set_patience(_patience(context, physical))
    context.devices[guest_id] = device


def _count(context: Context) -> None:
    """Take what is left of a device when it is gone.  Raises `VulkanError`."""
    context.devices_made += 1
    if context.devices_made > FREE_DEVICES and not context.engine.ledger.keep(LEFT_BY_DEVICE):
        raise VulkanError(VK_ERROR_OUT_OF_HOST_MEMORY, "the memory limit is reached")


def _set_memory(context: Context, physical: PhysicalDevice, guest_id: int) -> None:
    """Tell the kernel how the device's memory is shared."""
    strategy, types = physical.strategy, physical.memory_types
    context.engine.devices.describe_memory(
        guest_id,
        [(each.host, each.heap) for each in types.ordinary],
        shared=types.shared,
        native=types.native,
        sparse=physical.sparse_types,
        handle_types=strategy.handle_type,
        states_buffers=strategy.states_buffers,
    )
    if isinstance(strategy, HostPointer):
        context.engine.devices.import_host_memory(
            guest_id,
            handle_type=strategy.handle_type,
            alignment=strategy.alignment,
            granule=strategy.granule,
        )


def _patience(context: Context, physical: PhysicalDevice) -> int:
    """How long to look out for what comes next, in ns, while the guest has this device."""
    if context.patience is not None:
        return context.patience * 1000
    # A driver that draws on the processors needs them itself.
    is_roomy = processors() >= ROOMY_PROCESSORS and not physical.is_software
    return PATIENCE * 1000 if is_roomy else 0


@handles("vkDestroyDevice")
def destroy_device(context: Context, call: Call) -> None:
    """Destroy a device and all that the guest has left in it."""
    guest_id = call.id("device")
    if not guest_id:
        return
    try:
        teardown.destroy_device(context, context.device(guest_id))
    except teardown.BusyError as error:
        raise ProtocolError(str(error)) from error
