"""Queries of a physical device, masked down by the host profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.guest.handlers import handles
from hesper.guest.physical_device import ROBUSTNESS, physical_device
from hesper.kernel.errors import ProtocolError
from hesper.kernel.views import Array, View
from hesper.vk.enumerants import (
    VK_INCOMPLETE,
    VK_MAX_MEMORY_TYPES,
)

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.guest.physical_device import PhysicalDevice
    from hesper.host.profile import Profile
    from hesper.kernel.handlers import Call

_ROBUSTNESS_LIMITS = "VkPhysicalDeviceRobustness2PropertiesKHR"


def mask_struct(profile: Profile, struct: View) -> None:
    """Apply what `profile` says about the fields of a feature or property struct."""
    name = struct.struct_
    if not profile.masks_struct(name):
        return
    for field in struct.fields_():
        if profile.feature_off(name, field):
            setattr(struct, field, 0)
            continue
        value = getattr(struct, field)
        if isinstance(value, Array):
            for index in range(len(value)):
                value[index] = profile.limit(name, field, value[index], index)
        elif isinstance(value, (int, float)):
            masked = profile.limit(name, field, value)
            if masked != value:
                setattr(struct, field, masked)


@handles("vkGetPhysicalDeviceFeatures")
def get_features(context: Context, call: Call) -> None:
    """Vulkan 1.0's features."""
    physical = physical_device(context, call)
    call.invoke()
    mask_struct(physical.profile, call.args.pFeatures)


@handles("vkGetPhysicalDeviceFeatures2")
def get_features2(context: Context, call: Call) -> None:
    """All features."""
    physical = physical_device(context, call)
    call.invoke()
    features = call.args.pFeatures
    mask_struct(physical.profile, features.features)
    for struct in features.chain_():
        mask_struct(physical.profile, struct)
        if struct.struct_ == ROBUSTNESS and physical.supplies_nulls:
            struct.nullDescriptor = 1


@handles("vkGetPhysicalDeviceProperties")
def get_properties(context: Context, call: Call) -> None:
    """Vulkan 1.0's properties."""
    physical = physical_device(context, call)
    call.invoke()
    _mask_properties(physical, call.args.pProperties)


@handles("vkGetPhysicalDeviceProperties2")
def get_properties2(context: Context, call: Call) -> None:
    """All properties."""
    physical = physical_device(context, call)
    call.invoke()
    properties = call.args.pProperties
    _mask_properties(physical, properties.properties)
    for struct in properties.chain_():
        mask_struct(physical.profile, struct)
        if struct.struct_ == _ROBUSTNESS_LIMITS and not physical.has_robustness:
            # Of robustBufferAccess2, which is not offered: the coarsest there may be.
            struct.robustStorageBufferAccessSizeAlignment = 4
            struct.robustUniformBufferAccessSizeAlignment = 256


def _mask_properties(physical: PhysicalDevice, properties: View) -> None:
    properties.apiVersion = physical.api_version
    for struct in (properties, properties.limits, properties.sparseProperties):
        mask_struct(physical.profile, struct)


@handles("vkGetPhysicalDeviceQueueFamilyProperties")
def get_queue_families(context: Context, call: Call) -> None:
    """Queue families, as Vulkan 1.0 asks for them."""
    physical = physical_device(context, call)
    call.invoke()
    args = call.args
    for index in range(args.pQueueFamilyPropertyCount[0] if args.pQueueFamilyProperties else 0):
        args.pQueueFamilyProperties[index].queueFlags = physical.queue_families[index].flags


@handles("vkGetPhysicalDeviceQueueFamilyProperties2")
def get_queue_families2(context: Context, call: Call) -> None:
    """Queue families."""
    physical = physical_device(context, call)
    call.invoke()
    args = call.args
    for index in range(args.pQueueFamilyPropertyCount[0] if args.pQueueFamilyProperties else 0):
        properties = args.pQueueFamilyProperties[index].queueFamilyProperties
        properties.queueFlags = physical.queue_families[index].flags


@handles("vkGetPhysicalDeviceMemoryProperties")
def get_memory_properties(context: Context, call: Call) -> None:
    """Memory types; only what is shared with the guest is shown as host-visible."""
    physical = physical_device(context, call)
    call.invoke()
    _show_memory(context, physical, call.args.pMemoryProperties)


@handles("vkGetPhysicalDeviceMemoryProperties2")
def get_memory_properties2(context: Context, call: Call) -> None:
    """Memory types, and budgets."""
    physical = physical_device(context, call)
    call.invoke()
    answer = call.args.pMemoryProperties
    _show_memory(context, physical, answer.memoryProperties)
    budget = answer.find_("VkPhysicalDeviceMemoryBudgetPropertiesEXT")
    if budget is not None:
        _show_budget(context, answer.memoryProperties, budget)


def _show_memory(context: Context, physical: PhysicalDevice, properties: View) -> None:
    """Put the guest's memory types in the place of the driver's, and say how large heaps are to it.

    That is the least of what the driver has, what the context may use, and, where it may map the
    memory, what there is room for where it is mapped.
    """
    types = physical.memory_types
    properties.memoryTypeCount = len(types)
    for index in range(VK_MAX_MEMORY_TYPES):
        shown = properties.memoryTypes[index]
        kind = types[index] if index < len(types) else None
        shown.propertyFlags = kind.flags if kind else 0
        shown.heapIndex = kind.heap if kind else 0
    for index in range(properties.memoryHeapCount):
        heap = properties.memoryHeaps[index]
        heap.size = min(heap.size, context.pool.limit)
        if context.window is not None and types.heap_is_shared(index):
            heap.size = min(heap.size, context.window)


def _show_budget(context: Context, properties: View, budget: View) -> None:
    """Say what the context has taken of each heap, and how far it can go."""
    for index in range(properties.memoryHeapCount):
        used = context.pool.heap_used(index)
        most = min(properties.memoryHeaps[index].size, used + context.pool.left)
        # What the driver grants is for the whole process, of which the context is all.
        budget.heapBudget[index] = min(budget.heapBudget[index], most)
        budget.heapUsage[index] = used


@handles("vkEnumerateDeviceExtensionProperties")
def enumerate_device_extensions(context: Context, call: Call) -> None:
    """Device extensions that can travel, and those that are emulated."""
    physical = physical_device(context, call)
    args = call.args
    if args.pLayerName is not None:
        raise ProtocolError("extensions of a layer; layers live in the guest")
    shown = list(physical.shown_extensions().items())
    if args.pProperties is None:
        args.pPropertyCount[0] = len(shown)
        return
    count = min(args.pPropertyCount[0], len(shown))
    for index in range(count):
        properties = args.pProperties[index]
        properties.extensionName, properties.specVersion = shown[index]
    args.pPropertyCount[0] = count
    if count < len(shown):
        call.result = VK_INCOMPLETE
