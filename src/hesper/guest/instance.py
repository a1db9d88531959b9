"""Instance commands: versions, extensions, the instance, its physical devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper import protocol
from hesper.guest import teardown
from hesper.guest.errors import UnfitDeviceError, VulkanError
from hesper.guest.handlers import handles
from hesper.guest.physical_device import PhysicalDevice, known_version
from hesper.guest.refusals import result_name
from hesper.kernel.errors import ProtocolError
from hesper.kernel.views import Scratch
from hesper.log import get_logger
from hesper.vk.enumerants import (
    VK_API_VERSION_1_1,
    VK_ERROR_EXTENSION_NOT_PRESENT,
    VK_ERROR_INCOMPATIBLE_DRIVER,
    VK_ERROR_LAYER_NOT_PRESENT,
    VK_INCOMPLETE,
    VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR,
    VK_MAX_DEVICE_GROUP_SIZE,
    VK_SUCCESS,
)
from hesper.vk.version import version_text

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.host.drivers import Driver
    from hesper.host.profile import Profile
    from hesper.kernel.handlers import Call
    from hesper.kernel.vulkan import ProcTable, Vulkan

_PORTABILITY = "VK_KHR_portability_enumeration"

_PRIVATE_EXTENSIONS = ("VK_EXT_command_serialization", "VK_MESA_venus_protocol")
"""Instance extensions that tell a guest's driver who it is talking to."""

log = get_logger(__name__)


class Instance:
    """The VkInstance of a context and the physical devices the guest knows."""

    def __init__(self, instance_id: int, handle: int, table: ProcTable) -> None:
        """Remember a host instance under its guest id."""
        self.id = instance_id
        self.handle = handle
        self.table = table
        self.candidates: list[PhysicalDevice] | None = None
        """Physical devices that can serve guests; None until the guest enumerates."""
        self.physical_devices: dict[int, PhysicalDevice] = {}
        """Those the guest has named, by guest id."""

    def id_of(self, handle: int) -> int | None:
        """Guest id of a physical device, by its host handle."""
        for guest_id, physical in self.physical_devices.items():
            if physical.handle == handle:
                return guest_id
        return None


@handles("vkEnumerateInstanceVersion")
def enumerate_instance_version(context: Context, call: Call) -> None:
    """Answer with the host loader's version, as far as the wire tables go."""
    call.args.pApiVersion[0] = _instance_version(context.vulkan)


@handles("vkEnumerateInstanceExtensionProperties")
def enumerate_instance_extensions(context: Context, call: Call) -> None:  # noqa: ARG001  a handler
    """Answer with the protocol's own extensions; the guest's driver has the real ones."""
    args = call.args
    if args.pProperties is None:
        args.pPropertyCount[0] = len(_PRIVATE_EXTENSIONS)
        return
    known = protocol.extensions()
    count = min(args.pPropertyCount[0], len(_PRIVATE_EXTENSIONS))
    for index in range(count):
        properties = args.pProperties[index]
        properties.extensionName = _PRIVATE_EXTENSIONS[index]
        properties.specVersion = known[_PRIVATE_EXTENSIONS[index]][1]
    args.pPropertyCount[0] = count
    if count < len(_PRIVATE_EXTENSIONS):
        call.result = VK_INCOMPLETE


@handles("vkCreateInstance")
def create_instance(context: Context, call: Call) -> None:
    """Make the context's one instance, with what Hesper needs of the host."""
    context.begin_instance()
    try:
        _create_instance(context, call)
    finally:
        if context.instance is None:
            context.end_instance()


def _create_instance(context: Context, call: Call) -> None:
    info = call.args.pCreateInfo
    if info.enabledLayerCount:
        raise VulkanError(VK_ERROR_LAYER_NOT_PRESENT, "layers live in the guest")
    if info.enabledExtensionCount:
        raise VulkanError(
            VK_ERROR_EXTENSION_NOT_PRESENT, "instance extensions live in the guest's driver"
        )
    version = _instance_version(context.vulkan)
    if version < VK_API_VERSION_1_1:
        raise VulkanError(
            VK_ERROR_INCOMPATIBLE_DRIVER,
            f"the host's loader has Vulkan {version_text(version)}, 1.1 is needed",
        )
    for struct in list(info.chain_()):
        info.remove_(struct.struct_)
    info.flags = 0
    if _PORTABILITY in _instance_extensions(context.vulkan):
        info.flags = VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR
        info.ppEnabledExtensionNames = [_PORTABILITY]
    scratch = Scratch()
    if info.pApplicationInfo is None:
        info.pApplicationInfo = scratch.new("VkApplicationInfo")
    application = info.pApplicationInfo
    application.apiVersion = max(application.apiVersion, VK_API_VERSION_1_1)
    if call.invoke() != VK_SUCCESS:
        return
    (handle,), (guest_id,) = call.new_handles, call.new_ids
    table = context.vulkan.instance_table(handle)
    try:
        context.engine.objects.add(guest_id, "VkInstance", handle, table=table)
    except ProtocolError:
        table.call("vkDestroyInstance", handle, None)
        raise
    context.instance = Instance(guest_id, handle, table)


@handles("vkDestroyInstance")
def destroy_instance(context: Context, call: Call) -> None:
    """Destroy the instance and all that the guest has left in it."""
    if not call.id("instance"):
        return
    try:
        teardown.destroy_instance(context, _instance(context, call))
    except teardown.BusyError as error:
        raise ProtocolError(str(error)) from error


@handles("vkEnumeratePhysicalDevices")
def enumerate_physical_devices(context: Context, call: Call) -> None:
    """Give the guest's ids to the host's devices, in the host's order."""
    instance = _instance(context, call)
    candidates = _candidates(context, instance)
    args = call.args
    if args.pPhysicalDevices is None:
        args.pPhysicalDeviceCount[0] = len(candidates)
        return
    ids = call.new_ids
    count = min(len(ids), len(candidates))
    for guest_id, physical in zip(ids[:count], candidates[:count], strict=True):
        context.engine.objects.add(
            guest_id,
            "VkPhysicalDevice",
            physical.handle,
            parent=instance.id,
            table=physical.table,
        )
        instance.physical_devices[guest_id] = physical
    args.pPhysicalDeviceCount[0] = count
    call.set_new_handles([physical.handle for physical in candidates[:count]])
    if count < len(candidates):
        call.result = VK_INCOMPLETE


@handles("vkEnumeratePhysicalDeviceGroups")
def enumerate_physical_device_groups(context: Context, call: Call) -> None:
    """Answer with the host's groups, as far as the guest knows their devices.

    A guest has to enumerate the devices first: groups do not bring ids with them.
    """
    instance = _instance(context, call)
    groups = _groups(instance)
    args = call.args
    if args.pPhysicalDeviceGroupProperties is None:
        args.pPhysicalDeviceGroupCount[0] = len(groups)
        return
    count = min(args.pPhysicalDeviceGroupCount[0], len(groups))
    for index in range(count):
        members, subset_allocation = groups[index]
        answer = args.pPhysicalDeviceGroupProperties[index]
        answer.physicalDeviceCount = len(members)
        answer.subsetAllocation = subset_allocation
        for place in range(VK_MAX_DEVICE_GROUP_SIZE):
            answer.physicalDevices[place] = members[place] if place < len(members) else 0
    args.pPhysicalDeviceGroupCount[0] = count
    if count < len(groups):
        call.result = VK_INCOMPLETE


def _groups(instance: Instance) -> list[tuple[list[int], int]]:
    """Groups of devices the guest knows: their guest ids, and subsetAllocation."""
    command = "vkEnumeratePhysicalDeviceGroups"
    scratch = Scratch()
    count = scratch.array("uint32_t", 1)
    result = instance.table.call(command, instance.handle, count, None)
    if result < VK_SUCCESS:
        raise VulkanError(result, f"{command} failed")
    found = scratch.array("VkPhysicalDeviceGroupProperties", count[0])
    result = instance.table.call(command, instance.handle, count, found)
    if result < VK_SUCCESS:
        raise VulkanError(result, f"{command} failed")
    groups = []
    for index in range(count[0]):
        group = found[index]
        handles_ = [group.physicalDevices[place] for place in range(group.physicalDeviceCount)]
        members = [instance.id_of(handle) for handle in handles_]
        known = [member for member in members if member is not None]
        if known:
            groups.append((known, group.subsetAllocation))
    return groups


def _candidates(context: Context, instance: Instance) -> list[PhysicalDevice]:
    """Physical devices that can serve a guest; asked for once."""
    with context.lock:
        if instance.candidates is None:
            instance.candidates = _find_candidates(
                context.driver,
                instance.table,
                instance.handle,
                context.profile,
                emulates=context.emulates,
            )
            if not instance.candidates:
                log.warning("the driver has no device for the guest", context=context.name)
        return instance.candidates


def warm_up(vulkan: Vulkan, driver: Driver, profile: Profile | None) -> None:
    """Do once, without a guest, what takes a driver long the first time.

    Makes an instance and a device, and asks what every context will ask.  A driver that cannot do
    it is left to fail when a guest comes.
    """
    scratch = Scratch()
    info = scratch.new("VkInstanceCreateInfo")
    info.pApplicationInfo = scratch.new("VkApplicationInfo", apiVersion=VK_API_VERSION_1_1)
    if _PORTABILITY in _instance_extensions(vulkan):
        info.flags = VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR
        info.ppEnabledExtensionNames = [_PORTABILITY]
    made = scratch.array("VkInstance", 1)
    result = vulkan.globals.call("vkCreateInstance", info, None, made)
    if result != VK_SUCCESS:
        log.info("not warmed up", reason=f"vkCreateInstance: {result_name(result)}")
        return
    table = vulkan.instance_table(made[0])
    try:
        for physical in _find_candidates(driver, table, made[0], profile):
            _try_device(vulkan, physical)
    except VulkanError as error:
        log.info("not warmed up", reason=str(error))
    finally:
        table.call("vkDestroyInstance", made[0], None)


def _try_device(vulkan: Vulkan, physical: PhysicalDevice) -> None:
    """Make a device and destroy it."""
    scratch = Scratch()
    queues = scratch.array("VkDeviceQueueCreateInfo", 1)
    queues[0].pQueuePriorities = [1.0]
    info = scratch.new("VkDeviceCreateInfo")
    info.pQueueCreateInfos = queues
    info.queueCreateInfoCount = 1
    info.ppEnabledExtensionNames = list(physical.own_extensions)
    made = scratch.array("VkDevice", 1)
    result = physical.table.call("vkCreateDevice", physical.handle, info, None, made)
    if result != VK_SUCCESS:
        raise VulkanError(result, "vkCreateDevice failed")
    vulkan.device_table(physical.table, made[0]).call("vkDestroyDevice", made[0], None)


def _find_candidates(
    driver: Driver,
    table: ProcTable,
    instance: int,
    profile: Profile | None,
    *,
    emulates: bool = True,
) -> list[PhysicalDevice]:
    """The devices that can serve guests, in the driver's order."""
    described = {device.index: device for device in driver.devices}
    command = "vkEnumeratePhysicalDevices"
    scratch = Scratch()
    count = scratch.array("uint32_t", 1)
    result = table.call(command, instance, count, None)
    if result < VK_SUCCESS:
        raise VulkanError(result, f"{command} failed")
    found = scratch.array("VkPhysicalDevice", count[0])
    result = table.call(command, instance, count, found)
    if result < VK_SUCCESS:
        raise VulkanError(result, f"{command} failed")
    candidates = []
    for index in range(count[0]):
        if driver.only not in {None, index}:
            continue
        try:
            physical = PhysicalDevice(
                table, found[index], profile, described.get(index), emulates=emulates
            )
        except UnfitDeviceError as error:
            log.warning("device not shown", device=index, reason=str(error))
            continue
        candidates.append(physical)
    return candidates


def _instance(context: Context, call: Call) -> Instance:
    """The instance a command is for."""
    instance = context.instance
    if instance is None or instance.id != call.id("instance"):
        raise ProtocolError(f"no instance {call.id('instance')}")
    return instance


def _instance_version(vulkan: Vulkan) -> int:
    """The host loader's version, as far as the wire tables go."""
    version = Scratch().array("uint32_t", 1)
    result = vulkan.globals.call("vkEnumerateInstanceVersion", version)
    if result != VK_SUCCESS:
        raise VulkanError(result, "vkEnumerateInstanceVersion failed")
    return known_version(version[0])


def _instance_extensions(vulkan: Vulkan) -> set[str]:
    """Instance extensions of the host."""
    command = "vkEnumerateInstanceExtensionProperties"
    scratch = Scratch()
    count = scratch.array("uint32_t", 1)
    vulkan.globals.call(command, None, count, None)
    found = scratch.array("VkExtensionProperties", count[0])
    vulkan.globals.call(command, None, count, found)
    return {found[index].extensionName for index in range(count[0])}
