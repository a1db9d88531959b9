"""Instances, physical devices, devices, queues and rings, as a guest asks for them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_drivers import make_driver
from guest_client import DEVICE, INSTANCE, PHYSICAL_DEVICE, QUEUE, RING_IDX, Guest

from hesper import protocol
from hesper.guest import InvalidParameterError, Limits
from hesper.guest.physical_device import EMULATED_EXTENSIONS
from hesper.host.drivers import choose_driver
from hesper.host.probe import probe_drivers
from hesper.host.profile import MemoryRule, Profile, load_profile
from hesper.kernel.errors import ProtocolError
from native import native

MakeGuest = Callable[..., Guest]

VK_INCOMPLETE = 5
VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU, VK_PHYSICAL_DEVICE_TYPE_CPU = 2, 4
VK_ERROR_OUT_OF_HOST_MEMORY = -1
VK_ERROR_INITIALIZATION_FAILED = -3
VK_ERROR_LAYER_NOT_PRESENT = -6
VK_ERROR_EXTENSION_NOT_PRESENT = -7
VK_ERROR_FEATURE_NOT_PRESENT = -8
HOST_VISIBLE, HOST_COHERENT = 2, 4


def extension_names(properties: list[dict[str, Any]]) -> dict[str, int]:
    """VkExtensionProperties by name."""
    return {
        each["extensionName"].rstrip(b"\0").decode(): each["specVersion"] for each in properties
    }


@pytest.mark.programs
def test_of_two_devices_a_guest_sees_the_one_that_it_is_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two drivers stand for one that has two: the loader shows the devices of both."""
    one = choose_driver("lavapipe")
    files = f"{one.manifest}:{make_driver(tmp_path, 'discrete').manifest}"
    monkeypatch.setenv("VK_DRIVER_FILES", files)
    environ = {**one.environment, "VK_DRIVER_FILES": files, "VK_ICD_FILENAMES": files}
    (driver,) = probe_drivers([replace(one, environment=environ)])

    def types(only: int | None) -> list[int]:
        guest = Guest(replace(driver, only=only))
        try:
            guest.create_instance()
            command = "vkEnumeratePhysicalDevices"
            question = {"instance": INSTANCE, "pPhysicalDeviceCount": 0}
            count = guest.ask(command, **question)["pPhysicalDeviceCount"]
            ids = [guest.new_id() for _ in range(count)]
            guest.ask(command, **{**question, "pPhysicalDeviceCount": count}, pPhysicalDevices=ids)
            command = "vkGetPhysicalDeviceProperties"
            answers = [guest.ask(command, physicalDevice=each, pProperties={}) for each in ids]
            return [answer["pProperties"]["deviceType"] for answer in answers]
        finally:
            guest.close()

    both = types(None)
    assert sorted(both) == [VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU, VK_PHYSICAL_DEVICE_TYPE_CPU]
    assert [types(0), types(1), types(2)] == [[both[0]], [both[1]], []]


def test_the_renderer_introduces_itself(make_guest: MakeGuest) -> None:
    guest = make_guest()
    version = guest.ask("vkEnumerateInstanceVersion", pApiVersion=0)["pApiVersion"]
    assert version >= 1 << 22 | 1 << 12
    command = "vkEnumerateInstanceExtensionProperties"
    count = guest.ask(command, pPropertyCount=0)["pPropertyCount"]
    assert count == 2
    got = guest.ask(command, pPropertyCount=2, pProperties=[{}, {}])["pProperties"]
    assert set(extension_names(got)) == {"VK_EXT_command_serialization", "VK_MESA_venus_protocol"}
    result, got = guest.call(command, pPropertyCount=1, pProperties=[{}])
    assert (result, got["pPropertyCount"]) == (VK_INCOMPLETE, 1)


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (
            {"enabledLayerCount": 1, "ppEnabledLayerNames": [b"VK_LAYER_KHRONOS_validation"]},
            VK_ERROR_LAYER_NOT_PRESENT,
        ),
        (
            {"enabledExtensionCount": 1, "ppEnabledExtensionNames": [b"VK_KHR_surface"]},
            VK_ERROR_EXTENSION_NOT_PRESENT,
        ),
    ],
)
def test_layers_and_extensions_of_the_instance_live_in_the_guest(
    make_guest: MakeGuest, info: dict[str, Any], expected: int
) -> None:
    guest = make_guest()
    assert guest.call("vkCreateInstance", pCreateInfo=info, pInstance=INSTANCE)[0] == expected
    guest.create_instance()


def test_an_instance_needs_no_application_info(make_guest: MakeGuest) -> None:
    guest = make_guest()
    guest.ask("vkCreateInstance", pCreateInfo={}, pInstance=INSTANCE)
    guest.enumerate()


def test_a_context_has_one_instance(make_guest: MakeGuest) -> None:
    guest = make_guest()
    guest.create_instance()
    with pytest.raises(ProtocolError, match="one instance"):
        guest.send("vkCreateInstance", pCreateInfo={}, pInstance=50)
    assert guest.context.fatal
    assert len(guest.fatal) == 1
    assert guest.fatal[0].startswith("vkCreateInstance at byte")


def test_an_instance_can_be_made_again(guest: Guest) -> None:
    guest.send("vkDestroyInstance", instance=INSTANCE)
    assert guest.context.engine.objects.all() == []
    guest.start()


def test_devices_and_groups_have_the_guests_ids(make_guest: MakeGuest) -> None:
    guest = make_guest()
    guest.create_instance()
    command = "vkEnumeratePhysicalDevices"
    count = guest.ask(command, instance=INSTANCE, pPhysicalDeviceCount=0)["pPhysicalDeviceCount"]
    assert count == 1
    groups = "vkEnumeratePhysicalDeviceGroups"
    answer = guest.ask(groups, instance=INSTANCE, pPhysicalDeviceGroupCount=0)
    assert answer["pPhysicalDeviceGroupCount"] == 0  # no device is known yet
    guest.enumerate()
    properties = [{"physicalDevices": [0] * 32}]
    answer = guest.ask(
        groups,
        instance=INSTANCE,
        pPhysicalDeviceGroupCount=1,
        pPhysicalDeviceGroupProperties=properties,
    )
    (group,) = answer["pPhysicalDeviceGroupProperties"]
    assert group["physicalDeviceCount"] == 1
    assert group["physicalDevices"][:2] == [PHYSICAL_DEVICE, 0]


def device_extensions(guest: Guest) -> dict[str, int]:
    """What the guest is told of the device's extensions."""
    command = "vkEnumerateDeviceExtensionProperties"
    device = {"physicalDevice": PHYSICAL_DEVICE}
    count = guest.ask(command, **device, pPropertyCount=0)["pPropertyCount"]
    answer = guest.ask(command, **device, pPropertyCount=count, pProperties=[{}] * count)
    return extension_names(answer["pProperties"])


def test_only_extensions_that_can_travel_are_shown(guest: Guest) -> None:
    shown = device_extensions(guest)
    known = protocol.extensions()
    assert set(shown) <= set(known)
    assert all(version <= known[name][1] for name, version in shown.items())
    assert set(EMULATED_EXTENSIONS) <= set(shown)
    assert "VK_EXT_external_memory_host" not in shown


def test_what_is_shown_can_be_enabled(make_guest: MakeGuest) -> None:
    guest = make_guest().start()
    names = [name.encode() for name in device_extensions(guest)]
    guest.send("vkDestroyDevice", device=DEVICE)
    assert guest.try_device(extensions=names)[0] == 0


@pytest.mark.parametrize("name", [b"VK_EXT_external_memory_host", b"VK_KHR_surface", b"", b"x"])
def test_what_is_not_shown_cannot_be_enabled(make_guest: MakeGuest, name: bytes) -> None:
    guest = make_guest()
    guest.create_instance()
    guest.enumerate()
    assert guest.try_device(extensions=[name])[0] == VK_ERROR_EXTENSION_NOT_PRESENT
    assert guest.try_device()[0] == 0


def test_what_lives_in_the_guest_alone_is_not_asked_of_the_host(make_guest: MakeGuest) -> None:
    guest = make_guest(profile=load_profile("moltenvk"))
    guest.create_instance()
    guest.enumerate()
    own = protocol.guest_extensions()
    assert {"VK_KHR_swapchain", "VK_KHR_present_id", "VK_EXT_hdr_metadata"} < own
    assert {"VK_KHR_map_memory2", "VK_EXT_device_memory_report"} < own
    assert not own & {"VK_KHR_timeline_semaphore", "VK_KHR_surface", *EMULATED_EXTENSIONS}
    assert guest.try_device(extensions=[name.encode() for name in sorted(own)])[0] == 0


@pytest.mark.parametrize(("family", "count"), [(1, 1), (1 << 31, 1), (0, 2), (0, 1000)])
def test_queues_that_do_not_exist_are_refused(
    make_guest: MakeGuest, family: int, count: int
) -> None:
    guest = make_guest()
    guest.create_instance()
    guest.enumerate()
    result, _ = guest.try_device(family=family, count=count)
    assert result == VK_ERROR_INITIALIZATION_FAILED


def test_a_profile_hides_extensions_features_and_limits(make_guest: MakeGuest) -> None:
    plain = make_guest().start()
    masked = make_guest(profile=load_profile("moltenvk")).start()
    assert "VK_EXT_transform_feedback" in device_extensions(plain)
    hidden = set(device_extensions(plain)) - set(device_extensions(masked))
    assert "VK_EXT_transform_feedback" in hidden
    assert not hidden & set(EMULATED_EXTENSIONS)
    question = {"physicalDevice": PHYSICAL_DEVICE, "pFeatures": {}}
    features = [guest.ask("vkGetPhysicalDeviceFeatures", **question) for guest in (plain, masked)]
    assert [each["pFeatures"]["geometryShader"] for each in features] == [1, 0]
    question = {"physicalDevice": PHYSICAL_DEVICE, "pProperties": {}}
    properties = [
        guest.ask("vkGetPhysicalDeviceProperties2", **question)["pProperties"]["properties"]
        for guest in (plain, masked)
    ]
    bare, less = (each["limits"]["maxBoundDescriptorSets"] for each in properties)
    assert less <= bare
    assert properties[1]["apiVersion"] >> 12 == 1 << 10 | 4


def test_a_feature_the_profile_takes_away_cannot_be_enabled(make_guest: MakeGuest) -> None:
    guest = make_guest(profile=load_profile("moltenvk"))
    guest.create_instance()
    guest.enumerate()
    chain = [("VkPhysicalDeviceFeatures2", {"features": {"geometryShader": 1}})]
    assert guest.try_device(chain=chain)[0] == VK_ERROR_FEATURE_NOT_PRESENT
    assert guest.try_device()[0] == 0


def memory_flags(guest: Guest) -> list[int]:
    """What the guest is told of the memory types."""
    question = {"physicalDevice": PHYSICAL_DEVICE, "pMemoryProperties": {}}
    answer = guest.ask("vkGetPhysicalDeviceMemoryProperties2", **question)
    properties = answer["pMemoryProperties"]["memoryProperties"]
    types = properties["memoryTypes"][: properties["memoryTypeCount"]]
    return [each["propertyFlags"] for each in types]


def test_mappable_memory_is_coherent(guest: Guest) -> None:
    flags = memory_flags(guest)
    assert any(each & HOST_VISIBLE for each in flags)
    assert all(each & HOST_COHERENT for each in flags if each & HOST_VISIBLE)


def test_a_device_without_coherent_memory_is_not_shown(make_guest: MakeGuest) -> None:
    profile = Profile(name="test", memory_types=[MemoryRule(without=["HOST_COHERENT"])])
    guest = make_guest(profile=profile)
    guest.create_instance()
    answer = guest.ask("vkEnumeratePhysicalDevices", instance=INSTANCE, pPhysicalDeviceCount=0)
    assert answer["pPhysicalDeviceCount"] == 0


@pytest.mark.parametrize("ring_idx", [0, 64, 1 << 31])
def test_a_timeline_out_of_range_is_a_breach(make_guest: MakeGuest, ring_idx: int) -> None:
    guest = make_guest()
    guest.create_instance()
    guest.enumerate()
    guest.try_device()
    with pytest.raises(ProtocolError, match="out of range"):
        guest.name_queue(ring_idx=ring_idx)


def test_a_queue_is_named_once(guest: Guest) -> None:
    with pytest.raises(ProtocolError, match="named twice"):
        guest.name_queue(ring_idx=2, queue=50)


def test_a_queue_that_was_not_asked_for_is_a_breach(guest: Guest) -> None:
    with pytest.raises(ProtocolError, match="queue 1 is asked for"):
        guest.name_queue(ring_idx=2, index=1, queue=50)


def test_a_queue_needs_a_timeline(make_guest: MakeGuest) -> None:
    guest = make_guest()
    guest.create_instance()
    guest.enumerate()
    guest.try_device()
    with pytest.raises(ProtocolError, match="VkDeviceQueueTimelineInfoMESA"):
        guest.send("vkGetDeviceQueue2", device=DEVICE, pQueueInfo={}, pQueue=QUEUE)


def test_a_device_takes_its_timelines_along(guest: Guest) -> None:
    guest.send("vkDestroyDevice", device=DEVICE)
    with pytest.raises(InvalidParameterError, match="bound to no queue"):
        guest.context.fence(RING_IDX, lambda: None)
    assert guest.try_device()[0] == 0
    guest.name_queue()
    guest.wait_for_queue()


def ring_info(resource_id: int, **other: int) -> dict[str, Any]:
    """A ring at the beginning of a resource."""
    info: dict[str, Any] = {
        "resourceId": resource_id,
        "size": 8192,
        "idleTimeout": 1_000_000,
        "tailOffset": 64,
        "statusOffset": 128,
        "bufferOffset": 192,
        "bufferSize": 4096,
        "extraOffset": 4288,
        "extraSize": 4,
    }
    return info | other


def test_rings_are_limited(make_guest: MakeGuest) -> None:
    guest = make_guest(Limits(rings=2))
    for ring in (1, 2):
        resource_id, _ = guest.blob(0, 8192)
        guest.send("vkCreateRingMESA", ring=ring, pCreateInfo=ring_info(resource_id))
    guest.send("vkDestroyRingMESA", ring=1)
    resource_id, _ = guest.blob(0, 8192)
    guest.send("vkCreateRingMESA", ring=3, pCreateInfo=ring_info(resource_id))
    with pytest.raises(ProtocolError, match="more than 2 rings"):
        guest.send("vkCreateRingMESA", ring=4, pCreateInfo=ring_info(resource_id))


def test_a_monitor_without_a_period_is_a_breach(make_guest: MakeGuest) -> None:
    guest = make_guest()
    resource_id, _ = guest.blob(0, 8192)
    chain = [("VkRingMonitorInfoMESA", {"maxReportingPeriodMicroseconds": 0})]
    with pytest.raises(ProtocolError, match="period of 0"):
        guest.send(
            "vkCreateRingMESA", ring=1, pCreateInfo=ring_info(resource_id) | {"pNext": chain}
        )


@native
@pytest.mark.parametrize("asked", [5, 1 << 30, -20, -1 << 31])
def test_a_ring_gives_way_as_its_guests_thread_does(make_guest: MakeGuest, asked: int) -> None:
    """And has no more of the processors than others, whatever is asked for."""
    guest = make_guest()
    resource_id, _ = guest.blob(0, 8192)
    chain = [("VkRingPriorityInfoMESA", {"priority": asked})]
    before = set(os.listdir("/proc/self/task"))
    own = os.getpriority(os.PRIO_PROCESS, 0)
    guest.send("vkCreateRingMESA", ring=1, pCreateInfo=ring_info(resource_id) | {"pNext": chain})
    (thread,) = set(os.listdir("/proc/self/task")) - before
    wanted = max(own, min(asked, 19))
    deadline = time.monotonic() + 20
    while os.getpriority(os.PRIO_PROCESS, int(thread)) != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    guest.send("vkDestroyRingMESA", ring=1)


def test_device_memory_holds_no_ring(guest: Guest) -> None:
    _, memory = guest.allocate(8192)
    resource_id, _ = guest.blob(memory, 8192)
    with pytest.raises(ProtocolError, match="there is no resource"):
        guest.send("vkCreateRingMESA", ring=1, pCreateInfo=ring_info(resource_id))


def test_what_is_left_of_devices_that_are_gone_is_counted(
    make_guest: MakeGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hesper.guest.device.FREE_DEVICES", 2)
    monkeypatch.setattr("hesper.guest.device.LEFT_BY_DEVICE", 40 << 20)
    guest = make_guest(limits=Limits(memory=100 << 20))
    guest.create_instance()
    guest.enumerate()
    results = []
    for _ in range(6):
        results.append(guest.try_device()[0])
        if results[-1] == 0:
            guest.send("vkDestroyDevice", device=DEVICE)
    assert results == [0, 0, 0, 0, VK_ERROR_OUT_OF_HOST_MEMORY, VK_ERROR_OUT_OF_HOST_MEMORY]
    assert not guest.fatal
