"""Ask drivers for their devices, each in a process of its own.

A driver may crash, hang or print; none of it reaches the caller.  Run as a program
(`python -m hesper.host.probe LIBRARY DRIVER`) this file is that process: it prints one JSON line.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hesper.host.drivers import DEVICE_TYPES, Device, Driver, sort_devices

PROBE_SECONDS = 15.0
"""How long drivers may take to answer, all of them together."""

NO_DEVICE = "the driver finds no device that it can drive"

_INITIALIZATION_FAILED, _INCOMPATIBLE_DRIVER = -3, -9
"""What drivers and the loader say when there is no device of theirs."""

_PARALLEL = max(2, os.cpu_count() or 2)


def probe_drivers(
    drivers: Sequence[Driver], environ: Mapping[str, str] = os.environ
) -> list[Driver]:
    """Each of `drivers` with its devices, or with the reason why it has none, in order."""
    deadline = time.monotonic() + PROBE_SECONDS
    waiting = list(enumerate(drivers))
    running: list[tuple[int, Driver, subprocess.Popen[bytes]]] = []
    results: dict[int, Driver] = {}
    while waiting or running:
        while waiting and len(running) < _PARALLEL:
            index, driver = waiting.pop(0)
            running.append((index, driver, _start(driver, environ)))
        index, driver, process = running.pop(0)
        results[index] = _finish(driver, process, deadline)
    return [results[index] for index in range(len(drivers))]


def _start(driver: Driver, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the process that asks `driver`."""
    variables = {**environ, **driver.environment}
    for name in ("VK_INSTANCE_LAYERS", "VK_LOADER_LAYERS_ENABLE", "VK_LOADER_DEBUG"):
        variables.pop(name, None)
    # The child must find this very package, however this process has found it.
    variables["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-S", "-m", "hesper.host.probe", driver.library, driver.library_path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=variables,
    )


def _finish(driver: Driver, process: subprocess.Popen[bytes], deadline: float) -> Driver:
    """Wait for one process and read its answer."""
    try:
        output, errors = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return replace(driver, problem=f"did not answer within {PROBE_SECONDS:.0f} s")
    if process.returncode < 0:
        return replace(driver, problem=f"crashed with signal {-process.returncode}")
    # A driver may print on standard output too; the answer is the last line.
    lines = output.decode(errors="replace").splitlines()
    try:
        answer = json.loads(lines[-1])
    except (IndexError, ValueError):
        last = errors.decode(errors="replace").strip().splitlines()[-1:]
        reason = last[0] if last else f"exit status {process.returncode}"
        return replace(driver, problem=f"probe failed: {reason}")
    if answer["problem"]:
        return replace(driver, problem=answer["problem"])
    return sort_devices(driver, [Device(**device) for device in answer["devices"]])


def _describe(library: str) -> list[dict[str, Any]]:
    """Open `library` and describe its physical devices.  Raises `RuntimeError`."""
    from hesper.kernel.engine import Scratch, Vulkan

    vulkan = Vulkan(library)
    memory = Scratch()
    enumeration = "VK_KHR_portability_enumeration"
    names = _extensions(memory, vulkan.globals, "vkEnumerateInstanceExtensionProperties", None)
    portability = enumeration in names
    application = memory.new(
        "VkApplicationInfo", pApplicationName="hesper probe", apiVersion=(1 << 22) | (1 << 12)
    )
    create = memory.new("VkInstanceCreateInfo", pApplicationInfo=application)
    if portability:
        create.flags = 1  # VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR
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
    devices = [_device(memory, table, handle) for handle in handles]
    table.call("vkDestroyInstance", instance[0], None)
    return devices


def _device(memory: Any, table: Any, handle: int) -> dict[str, Any]:
    """Describe one physical device; the keys are the fields of `Device`."""
    names = _extensions(memory, table, "vkEnumerateDeviceExtensionProperties", handle)
    properties = memory.new("VkPhysicalDeviceProperties2")
    plain = properties.properties
    table.call("vkGetPhysicalDeviceProperties", handle, plain)
    driver_id, driver_name, driver_info = 0, "", ""
    version = plain.apiVersion
    if version >= (1 << 22) | (2 << 12) or "VK_KHR_driver_properties" in names:
        driver = properties.push_("VkPhysicalDeviceDriverProperties")
        table.call("vkGetPhysicalDeviceProperties2", handle, properties)
        driver_id, driver_name = driver.driverID, driver.driverName
        driver_info = driver.driverInfo
    return {
        "name": plain.deviceName,
        "type": DEVICE_TYPES[plain.deviceType] if plain.deviceType < len(DEVICE_TYPES) else "other",
        "api_version": f"{version >> 22 & 0x7F}.{version >> 12 & 0x3FF}.{version & 0xFFF}",
        "driver_id": driver_id,
        "driver_name": driver_name,
        "driver_info": driver_info,
        "is_portability": "VK_KHR_portability_subset" in names,
        "imports_host_memory": "VK_EXT_external_memory_host" in names,
    }


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
    try:
        ctypes.CDLL(driver)
    except OSError as error:
        return f"its library cannot be opened: {error}"
    return ""


def _check(result: int, command: str) -> None:
    """Raise `RuntimeError` unless `result` is a success (or VK_INCOMPLETE)."""
    if result in {_INITIALIZATION_FAILED, _INCOMPATIBLE_DRIVER}:
        raise RuntimeError(NO_DEVICE)
    if result < 0:
        raise RuntimeError(f"{command} failed with VkResult {result}")


def main(library: str, driver: str) -> None:
    """Print what `driver` offers, opened by way of `library`, as one JSON line."""
    answer: dict[str, Any] = {"devices": [], "problem": ""}
    try:
        answer["devices"] = _describe(library)
        if not answer["devices"]:
            answer["problem"] = NO_DEVICE
    except Exception as error:
        # The loader says only that it has found no device; dlopen knows why.
        answer["problem"] = _cannot_open(driver) or str(error) or type(error).__name__
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
