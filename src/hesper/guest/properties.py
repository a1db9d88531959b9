"""Queries of a physical device, masked down by the host profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.guest.handlers import handles
from hesper.guest.physical_device import physical_device
from hesper.guest.vk import VK_INCOMPLETE
from hesper.kernel.engine import Array, Call, ProtocolError, View

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.guest.physical_device import PhysicalDevice
    from hesper.host.profile import Profile


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


def _mask_properties(physical: PhysicalDevice, properties: View) -> None:
    properties.apiVersion = physical.api_version
    for struct in (properties, properties.limits, properties.sparseProperties):
        mask_struct(physical.profile, struct)


@handles("vkGetPhysicalDeviceMemoryProperties")
def get_memory_properties(context: Context, call: Call) -> None:
    """Memory types; only what is shared with the guest is shown as host-visible."""
    physical = physical_device(context, call)
    call.invoke()
    _mask_memory(physical, call.args.pMemoryProperties)


@handles("vkGetPhysicalDeviceMemoryProperties2")
def get_memory_properties2(context: Context, call: Call) -> None:
    """Memory types, and budgets."""
    physical = physical_device(context, call)
    call.invoke()
    _mask_memory(physical, call.args.pMemoryProperties.memoryProperties)


def _mask_memory(physical: PhysicalDevice, properties: View) -> None:
    for index in range(len(physical.memory_types)):
        properties.memoryTypes[index].propertyFlags = physical.shown_memory_flags(index)


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
