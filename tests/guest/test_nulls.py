"""nullDescriptor is offered where stand-ins can do for it, and only there."""

from __future__ import annotations

from typing import Any

import pytest
from guest_client import DEVICE, PHYSICAL_DEVICE, Guest, MakeGuest

from hesper.guest import Limits
from hesper.host.profile import Profile
from hesper.kernel.errors import ProtocolError

VK_ERROR_OUT_OF_DEVICE_MEMORY, VK_ERROR_FEATURE_NOT_PRESENT = -2, -8
ROBUSTNESS = "VkPhysicalDeviceRobustness2FeaturesKHR"
PROPERTIES = "VkPhysicalDeviceRobustness2PropertiesKHR"
ELSEWHERE = frozenset({"VK_KHR_acceleration_structure", "VK_EXT_descriptor_heap"})
"""Extensions for which there are no stand-ins; lavapipe has the first."""
NAMES = frozenset({"VK_EXT_robustness2", "VK_KHR_robustness2"})
OFF = {ROBUSTNESS: frozenset({"nullDescriptor", "robustBufferAccess2"})}
LACKING = Profile("x", features_off=OFF, hidden_extensions=ELSEWHERE)
WITHOUT = Profile("x", hidden_extensions=ELSEWHERE | NAMES)
"""Drivers that lack the feature, and the extension besides."""
BOTH = pytest.mark.parametrize("profile", [LACKING, WITHOUT], ids=["feature", "extension"])
WANTED = [(ROBUSTNESS, {"nullDescriptor": 1})]
NAME = b"VK_EXT_robustness2"
UNIFORM = 6


def ready(guest: Guest) -> Guest:
    """The same with its physical device named."""
    guest.create_instance()
    guest.enumerate()
    return guest


def chained(guest: Guest, command: str, parameter: str, struct: str) -> dict[str, Any]:
    """What a question about the physical device is answered in a chained struct."""
    question: dict[str, Any] = {"pNext": [(struct, {})]}
    answer = guest.ask(command, physicalDevice=PHYSICAL_DEVICE, **{parameter: question})
    found: dict[str, Any] = dict(answer[parameter]["pNext"])[struct]
    return found


def offered(guest: Guest) -> dict[str, Any]:
    """What is said of VK_EXT_robustness2's features."""
    return chained(guest, "vkGetPhysicalDeviceFeatures2", "pFeatures", ROBUSTNESS)


def write_nothing(guest: Guest) -> None:
    """Write a null uniform buffer into a set."""
    binding = {"binding": 0, "descriptorType": UNIFORM, "descriptorCount": 1, "stageFlags": 1}
    layout = guest.create("DescriptorSetLayout", {"bindingCount": 1, "pBindings": [binding]})
    sizes = [{"type": UNIFORM, "descriptorCount": 1}]
    pool_info = {"maxSets": 1, "poolSizeCount": 1, "pPoolSizes": sizes}
    pool, made = guest.create("DescriptorPool", pool_info), guest.new_id()
    info = {"descriptorPool": pool, "descriptorSetCount": 1, "pSetLayouts": [layout]}
    guest.ask("vkAllocateDescriptorSets", device=DEVICE, pAllocateInfo=info, pDescriptorSets=[made])
    write: dict[str, Any] = {"dstSet": made, "dstBinding": 0, "descriptorCount": 1}
    nothing = {"buffer": 0, "offset": 0, "range": (1 << 64) - 1}
    write |= {"descriptorType": UNIFORM, "pBufferInfo": [nothing]}
    guest.send(
        "vkUpdateDescriptorSets",
        device=DEVICE,
        descriptorWriteCount=1,
        pDescriptorWrites=[write],
        descriptorCopyCount=0,
        pDescriptorCopies=[],
    )


@BOTH
def test_offered_where_the_driver_lacks_it(make_guest: MakeGuest, profile: Profile) -> None:
    guest = ready(make_guest(profile=profile))
    found = offered(guest)
    assert found["nullDescriptor"] == 1
    assert found["robustBufferAccess2"] == 0
    assert guest.context.instance is not None
    names = guest.context.instance.physical_devices[PHYSICAL_DEVICE].shown_extensions()
    assert NAME.decode() in names
    limits = chained(guest, "vkGetPhysicalDeviceProperties2", "pProperties", PROPERTIES)
    assert limits["robustStorageBufferAccessSizeAlignment"] in {1, 4}
    uniform = limits["robustUniformBufferAccessSizeAlignment"]
    assert 1 <= uniform <= 256
    assert uniform & (uniform - 1) == 0


@BOTH
def test_the_rest_of_the_extension_is_not_supplied(make_guest: MakeGuest, profile: Profile) -> None:
    guest = ready(make_guest(profile=profile))
    chain = [(ROBUSTNESS, {"nullDescriptor": 1, "robustBufferAccess2": 1})]
    result, _ = guest.try_device(extensions=[NAME], chain=chain)
    assert result == VK_ERROR_FEATURE_NOT_PRESENT


@BOTH
def test_not_with_nothing_supplied(make_guest: MakeGuest, profile: Profile) -> None:
    guest = ready(make_guest(profile=profile, emulates=False))
    assert offered(guest)["nullDescriptor"] == (0 if profile is LACKING else 1)
    if profile is LACKING:
        result, _ = guest.try_device(extensions=[NAME], chain=WANTED)
        assert result == VK_ERROR_FEATURE_NOT_PRESENT


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_not_where_null_means_more(make_guest: MakeGuest, name: str) -> None:
    instance = ready(make_guest(profile=LACKING)).context.instance
    assert instance is not None
    physical = instance.physical_devices[PHYSICAL_DEVICE]
    assert physical.can_supply_nulls()
    physical.extensions = {**physical.extensions, name: 1}
    assert not physical.can_supply_nulls()


def test_a_driver_that_has_it_does_it_itself(make_guest: MakeGuest) -> None:
    guest = make_guest().start(extensions=[NAME], chain=WANTED)
    assert guest.context.device(DEVICE).stand_ins is None
    write_nothing(guest)


@BOTH
def test_a_device_with_stand_ins(make_guest: MakeGuest, profile: Profile) -> None:
    guest = ready(make_guest(profile=profile))
    before = guest.context.pool.used
    assert guest.try_device(extensions=[NAME], chain=WANTED)[0] == 0
    assert guest.context.device(DEVICE).stand_ins is not None
    assert guest.context.pool.used > before
    write_nothing(guest)
    guest.send("vkDestroyDevice", device=DEVICE)
    assert guest.context.pool.used == before


@BOTH
def test_a_device_that_does_not_want_it(make_guest: MakeGuest, profile: Profile) -> None:
    guest = make_guest(profile=profile).start()
    assert guest.context.device(DEVICE).stand_ins is None
    with pytest.raises(ProtocolError, match="buffer: null is not allowed without the feature"):
        write_nothing(guest)


def test_without_memory_for_them(make_guest: MakeGuest) -> None:
    guest = ready(make_guest(Limits(memory=2 << 20), LACKING))
    result, _ = guest.try_device(extensions=[NAME], chain=WANTED)
    assert result == VK_ERROR_OUT_OF_DEVICE_MEMORY
    assert not guest.context.devices
