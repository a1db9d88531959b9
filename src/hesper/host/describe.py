"""Describe the devices of one driver: a program, so that a driver that crashes harms nobody.

`python -m hesper.host.describe LIBRARY DRIVER [STEP...]` opens the Vulkan library LIBRARY, whose
driver is DRIVER, and prints JSON lines.  The last is `{"devices": [...], "problem": ""}`: devices
with the fields of `hesper.host.drivers.Device`, their `memory` being what `hesper.host.trial` has
found.  Before it, each step of the trials is announced by `{"step": "..."}`; a STEP named on the
command line is left out.  A server waits for it before it is ready, so it imports little.
"""

from __future__ import annotations

import json
import sys

from hesper.vk.enumerants import (
    VK_API_VERSION_1_1,
    VK_API_VERSION_1_2,
    VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR,
    VK_PHYSICAL_DEVICE_TYPE_CPU,
    VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU,
    VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU,
    VK_PHYSICAL_DEVICE_TYPE_OTHER,
    VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU,
    VK_SUCCESS,
)
from hesper.vk.version import minor_version, version_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEVICE_TYPES = {
    VK_PHYSICAL_DEVICE_TYPE_OTHER: "other",
    VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU: "integrated",
    VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU: "discrete",
    VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU: "virtual",
    VK_PHYSICAL_DEVICE_TYPE_CPU: "cpu",
}
"""VkPhysicalDeviceType in words."""

NO_DEVICE = "the driver finds no device that it can drive"

_INITIALIZATION_FAILED, _INCOMPATIBLE_DRIVER = -3, -9
"""What drivers and the loader say when there is no device of theirs."""


WANTED = {
    "VkPhysicalDeviceFeatures": (
        "geometryShader",
        "tessellationShader",
        "samplerAnisotropy",
        "fillModeNonSolid",
        "multiDrawIndirect",
        "shaderFloat64",
        "robustBufferAccess",
    ),
    "VkPhysicalDeviceTimelineSemaphoreFeatures": ("timelineSemaphore",),
    "VkPhysicalDeviceBufferDeviceAddressFeatures": ("bufferDeviceAddress",),
    "VkPhysicalDeviceDescriptorIndexingFeatures": ("descriptorBindingPartiallyBound",),
    "VkPhysicalDeviceDynamicRenderingFeatures": ("dynamicRendering",),
    "VkPhysicalDeviceSynchronization2Features": ("synchronization2",),
    "VkPhysicalDeviceRobustness2FeaturesKHR": ("robustBufferAccess2", "nullDescriptor"),
    "VkPhysicalDeviceTransformFeedbackFeaturesEXT": ("transformFeedback",),
    "VkPhysicalDeviceCustomBorderColorFeaturesEXT": ("customBorderColors",),
}
"""Features that zink, DXVK, wgpu and engines ask for, by struct."""

WANTED_EXTENSIONS = {
    "VkPhysicalDeviceTimelineSemaphoreFeatures": ("VK_KHR_timeline_semaphore", 2),
    "VkPhysicalDeviceBufferDeviceAddressFeatures": ("VK_KHR_buffer_device_address", 2),
    "VkPhysicalDeviceDescriptorIndexingFeatures": ("VK_EXT_descriptor_indexing", 2),
    "VkPhysicalDeviceDynamicRenderingFeatures": ("VK_KHR_dynamic_rendering", 3),
    "VkPhysicalDeviceSynchronization2Features": ("VK_KHR_synchronization2", 3),
    "VkPhysicalDeviceRobustness2FeaturesKHR": ("VK_EXT_robustness2", 99),
    "VkPhysicalDeviceTransformFeedbackFeaturesEXT": ("VK_EXT_transform_feedback", 99),
    "VkPhysicalDeviceCustomBorderColorFeaturesEXT": ("VK_EXT_custom_border_color", 99),
}
"""Where a struct comes from: an extension, or a minor version of Vulkan that has it anyway."""


def _describe(library: str, leave_out: frozenset[str]) -> list[dict[str, Any]]:
    """Open `library` and describe its physical devices.  Raises `RuntimeError`."""
    from hesper.kernel.views import Scratch
    from hesper.kernel.vulkan import Vulkan

    vulkan = Vulkan(library)
    memory = Scratch()
    enumeration = "VK_KHR_portability_enumeration"
    names = _extensions(memory, vulkan.globals, "vkEnumerateInstanceExtensionProperties", None)
    portability = enumeration in names
    application = memory.new(
        "VkApplicationInfo", pApplicationName="hesper probe", apiVersion=VK_API_VERSION_1_1
    )
    create = memory.new("VkInstanceCreateInfo", pApplicationInfo=application)
    if portability:
        create.flags = VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR
        create.ppEnabledExtensionNames = [enumeration]
    instance = memory.array("VkInstance", 1)
    _check(vulkan.globals.call("vkCreateInstance", create, None, instance), "vkCreateInstance")
    table = vulkan.instance_table(instance[0])
    count = memory.array("uint32_t", 1)
    result = table.call("vkEnumeratePhysicalDevices", instance[0], count, None)
    _check(result, "vkEnumeratePhysicalDevices")
    handles = memory.array("VkPhysicalDevice", count[0])
    result = table.call("vkEnumeratePhysicalDevices", instance[0], count, handles)
    _check(result, "vkEnumeratePhysicalDevices")
    devices = [
        _device(memory, table, handle)
        | {"index": index, "memory": _try(vulkan, table, handle, f"{index} ", leave_out)}
        for index, handle in enumerate(handles)
    ]
    table.call("vkDestroyInstance", instance[0], None)
    return devices


def _device(memory: Any, table: Any, handle: int) -> dict[str, Any]:
    """Describe one physical device; the keys are the fields of `Device`."""
    names = _extensions(memory, table, "vkEnumerateDeviceExtensionProperties", handle)
    properties = memory.new("VkPhysicalDeviceProperties2")
    plain = properties.properties
    table.call("vkGetPhysicalDeviceProperties", handle, plain)
    driver_id, driver_name, driver_info, conformance = 0, "", "", ""
    version = plain.apiVersion
    if version >= VK_API_VERSION_1_2 or "VK_KHR_driver_properties" in names:
        driver = properties.push_("VkPhysicalDeviceDriverProperties")
        table.call("vkGetPhysicalDeviceProperties2", handle, properties)
        driver_id, driver_name = driver.driverID, driver.driverName
        driver_info = driver.driverInfo
        tested = driver.conformanceVersion
        if tested.major:
            conformance = f"{tested.major}.{tested.minor}.{tested.subminor}.{tested.patch}"
    return {
        "name": plain.deviceName,
        "type": DEVICE_TYPES.get(plain.deviceType, "other"),
        "api_version": version_text(version),
        "driver_id": driver_id,
        "driver_name": driver_name,
        "driver_info": driver_info,
        "is_portability": "VK_KHR_portability_subset" in names,
        "imports_host_memory": "VK_EXT_external_memory_host" in names,
        "conformance": conformance,
        "features": _features(memory, table, handle, names, minor_version(version)),
    }


def _try(
    vulkan: Any, table: Any, handle: int, prefix: str, leave_out: frozenset[str]
) -> dict[str, Any] | None:
    """Try what a device's memory can do; None when there can be no device of it.

    prefix: of the names by which its steps are told from those of other devices.
    """
    from hesper.host.trial import EXTENSIONS, Trial
    from hesper.host.trial_device import TrialDevice
    from hesper.kernel.views import Scratch

    def begin(step: str) -> None:
        print(json.dumps({"step": prefix + step}), flush=True)

    names = _extensions(Scratch(), table, "vkEnumerateDeviceExtensionProperties", handle)
    mine = frozenset(step.removeprefix(prefix) for step in leave_out if step.startswith(prefix))
    if "device" in mine:
        return None
    begin("device")
    try:
        with TrialDevice(vulkan, table, handle, [x for x in EXTENSIONS if x in names]) as device:
            return Trial(device, leave_out=mine, begin=begin).run()
    except RuntimeError as error:
        print(f"{prefix}device: {error}", file=sys.stderr)
        return None


def _features(memory: Any, table: Any, handle: int, names: set[str], minor: int) -> list[str]:
    """What a device has of `WANTED`."""
    features = memory.new("VkPhysicalDeviceFeatures2")
    structs = {"VkPhysicalDeviceFeatures": features.features}
    for struct, (extension, since) in WANTED_EXTENSIONS.items():
        if extension in names or minor >= since:
            structs[struct] = features.push_(struct)
    if minor >= 1:
        table.call("vkGetPhysicalDeviceFeatures2", handle, features)
    return [name for struct in structs for name in WANTED[struct] if getattr(structs[struct], name)]


def _extensions(memory: Any, table: Any, command: str, handle: int | None) -> set[str]:
    """Names of the extensions that `command` enumerates."""
    first = [] if handle is None else [handle]
    count = memory.array("uint32_t", 1)
    _check(table.call(command, *first, None, count, None), command)
    found = memory.array("VkExtensionProperties", count[0])
    _check(table.call(command, *first, None, count, found), command)
    return {properties.extensionName for properties in found}


def _cannot_open(driver: str) -> str:
    """Why the library `driver` cannot be opened; empty when it can."""
    import ctypes

    try:
        ctypes.CDLL(driver)
    except OSError as error:
        return f"its library cannot be opened: {error}"
    return ""


def _check(result: int, command: str) -> None:
    """Raise `RuntimeError` unless `result` is a success (or VK_INCOMPLETE)."""
    if result in {_INITIALIZATION_FAILED, _INCOMPATIBLE_DRIVER}:
        raise RuntimeError(NO_DEVICE)
    if result < VK_SUCCESS:
        raise RuntimeError(f"{command} failed with VkResult {result}")


def main(library: str, driver: str, *leave_out: str) -> None:
    """Print what `driver` offers, opened by way of `library`, without those steps of the trials."""
    answer: dict[str, Any] = {"devices": [], "problem": ""}
    try:
        answer["devices"] = _describe(library, frozenset(leave_out))
        if not answer["devices"]:
            answer["problem"] = NO_DEVICE
    except Exception as error:
        # The loader says only that it has found no device; dlopen knows why.
        answer["problem"] = _cannot_open(driver) or str(error) or type(error).__name__
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
