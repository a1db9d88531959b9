"""What a guest sees under a host profile hangs together."""

from __future__ import annotations

from typing import Any

import pytest
from guest_client import DEVICE, PHYSICAL_DEVICE, Guest, MakeGuest

from hesper.guest.physical_device import seen_under
from hesper.guest.sparse import missing_feature
from hesper.host.profile import ExternalHandles, Profile, load_profile
from hesper.host.seen import MemorySeen
from hesper.kernel.views import Scratch

R8G8B8A8, OPTIMAL = 37, 0
VK_ERROR_FEATURE_NOT_PRESENT, VK_ERROR_FORMAT_NOT_SUPPORTED = -8, -11
SPARSE_BINDING, SPARSE_RESIDENCY = 1, 2
FEATURES = "VkPhysicalDeviceFeatures"
OWN_STRUCTS = {
    "hostImageCopy": "VkPhysicalDeviceHostImageCopyFeatures",
    "samplerYcbcrConversion": "VkPhysicalDeviceSamplerYcbcrConversionFeatures",
}
"""Those that had a feature before a version of Vulkan took it in."""
IMAGE = {
    "imageType": 1,
    "format": R8G8B8A8,
    "extent": {"width": 256, "height": 256, "depth": 1},
    "mipLevels": 1,
    "arrayLayers": 1,
    "samples": 1,
    "tiling": OPTIMAL,
    "usage": 4,
}


def without(*fields: str) -> Profile:
    return Profile("x", features_off={FEATURES: frozenset(fields)})


@pytest.fixture
def plain(make_guest: MakeGuest) -> Guest:
    return make_guest().start()


@pytest.fixture
def dense(make_guest: MakeGuest) -> Guest:
    """A guest of a host without sparse resources."""
    return make_guest(profile=without("sparseBinding")).start()


def queue_flags(guest: Guest) -> list[int]:
    one = guest.ask(
        "vkGetPhysicalDeviceQueueFamilyProperties",
        physicalDevice=PHYSICAL_DEVICE,
        pQueueFamilyPropertyCount=1,
        pQueueFamilyProperties=[{}],
    )["pQueueFamilyProperties"]
    two = guest.ask(
        "vkGetPhysicalDeviceQueueFamilyProperties2",
        physicalDevice=PHYSICAL_DEVICE,
        pQueueFamilyPropertyCount=1,
        pQueueFamilyProperties=[{}],
    )["pQueueFamilyProperties"]
    assert [each["queueFamilyProperties"] for each in two] == one
    return [each["queueFlags"] for each in one]


def sparse_blocks(guest: Guest, type_: int, samples: int = 1) -> int:
    """How many aspects of an image can be resident in part."""
    info = {"format": R8G8B8A8, "type": type_, "samples": samples, "usage": 4, "tiling": OPTIMAL}
    first = guest.ask(
        "vkGetPhysicalDeviceSparseImageFormatProperties",
        physicalDevice=PHYSICAL_DEVICE,
        **info,
        pPropertyCount=0,
    )["pPropertyCount"]
    second = guest.ask(
        "vkGetPhysicalDeviceSparseImageFormatProperties2",
        physicalDevice=PHYSICAL_DEVICE,
        pFormatInfo=info,
        pPropertyCount=0,
    )["pPropertyCount"]
    assert first == second
    return int(first)


def image_results(guest: Guest, flags: int, type_: int = 1) -> tuple[int, int]:
    """VkResults of the two questions about an image."""
    info = {"format": R8G8B8A8, "type": type_, "tiling": OPTIMAL, "usage": 4, "flags": flags}
    first, _ = guest.call(
        "vkGetPhysicalDeviceImageFormatProperties",
        physicalDevice=PHYSICAL_DEVICE,
        **info,
        pImageFormatProperties={},
    )
    second, _ = guest.call(
        "vkGetPhysicalDeviceImageFormatProperties2",
        physicalDevice=PHYSICAL_DEVICE,
        pImageFormatInfo=info,
        pImageFormatProperties={},
    )
    return first, second


def try_image(guest: Guest, **changes: Any) -> int:
    result, _ = guest.call(
        "vkCreateImage", device=DEVICE, pCreateInfo=IMAGE | changes, pImage=guest.new_id()
    )
    return result


def host_has_sparse_queues(guest: Guest) -> bool:
    """Whether the driver itself has sparse binding."""
    instance = guest.context.instance
    assert instance is not None
    physical = instance.physical_devices[PHYSICAL_DEVICE]
    found = Scratch().array("VkQueueFamilyProperties", 1)
    count = Scratch().array("uint32_t", 1)
    count[0] = 1
    command = "vkGetPhysicalDeviceQueueFamilyProperties"
    physical.table.call(command, physical.handle, count, found)
    return bool(found[0].queueFlags & 0x8)


def test_without_sparse_binding_nothing_sparse_is_left(dense: Guest) -> None:
    assert host_has_sparse_queues(dense)
    assert not any(flags & 0x8 for flags in queue_flags(dense))
    assert sparse_blocks(dense, 1) == 0
    flags = SPARSE_BINDING | SPARSE_RESIDENCY
    assert image_results(dense, flags) == (VK_ERROR_FORMAT_NOT_SUPPORTED,) * 2
    assert image_results(dense, 0) == (0, 0)
    assert try_image(dense, flags=flags) == VK_ERROR_FEATURE_NOT_PRESENT
    assert try_image(dense) == 0
    properties = dense.ask(
        "vkGetPhysicalDeviceProperties", physicalDevice=PHYSICAL_DEVICE, pProperties={}
    )["pProperties"]
    assert set(properties["sparseProperties"].values()) == {0}
    assert properties["limits"]["sparseAddressSpaceSize"] == 0


@pytest.mark.parametrize(
    ("off", "image", "missing"),
    [
        ("sparseResidencyImage3D", (0x3, 2, 1), True),
        ("sparseResidencyImage3D", (0x3, 1, 1), False),
        ("sparseResidencyImage3D", (0x1, 2, 1), False),
        ("sparseResidencyImage2D", (0x3, 1, 1), True),
        ("sparseResidencyImage2D", (0x3, 1, 4), False),
        ("sparseResidency4Samples", (0x3, 1, 4), True),
        ("sparseResidencyAliased", (0x5, 1, 1), True),
        ("sparseResidencyAliased", (0x3, 1, 1), False),
        ("sparseBinding", (0x0, 1, 1), False),
    ],
)
def test_each_kind_of_sparse_image_has_its_feature(
    off: str, image: tuple[int, int, int], missing: bool
) -> None:
    assert missing_feature(without(off), *image) == (off if missing else "")


THREE_PLANES = 1000156002
"""VK_FORMAT_G8_B8_R8_3PLANE_420_UNORM."""


@pytest.mark.parametrize(
    ("format_", "feature", "bits"),
    [
        (R8G8B8A8, "VkPhysicalDeviceFeatures.shaderStorageImageReadWithoutFormat", 1 << 31),
        (R8G8B8A8, "VkPhysicalDeviceVulkan14Features.hostImageCopy", 1 << 46),
        (THREE_PLANES, "VkPhysicalDeviceVulkan11Features.samplerYcbcrConversion", 0xFE0000),
    ],
)
def test_formats_lose_what_a_feature_brings(
    make_guest: MakeGuest, plain: Guest, format_: int, feature: str, bits: int
) -> None:
    def features(guest: Guest) -> set[tuple[str, int]]:
        one = guest.ask(
            "vkGetPhysicalDeviceFormatProperties",
            physicalDevice=PHYSICAL_DEVICE,
            format=format_,
            pFormatProperties={},
        )["pFormatProperties"]
        answer = guest.ask(
            "vkGetPhysicalDeviceFormatProperties2",
            physicalDevice=PHYSICAL_DEVICE,
            format=format_,
            pFormatProperties={"pNext": [("VkFormatProperties3", {})]},
        )["pFormatProperties"]
        assert answer["formatProperties"] == one
        wide: dict[str, int] = dict(answer["pNext"])["VkFormatProperties3"]
        assert all(wide[name] & value == value for name, value in one.items())
        return set(wide.items())

    struct, field = feature.split(".")
    structs = {struct, OWN_STRUCTS.get(field, struct)}
    profile = Profile("x", features_off={each: frozenset({field}) for each in structs})
    before = features(plain)
    assert any(value & bits for _, value in before)
    guest = make_guest(profile=profile).start()
    assert features(guest) == {(name, value & ~bits) for name, value in before}


def test_an_extension_goes_with_what_it_needs(make_guest: MakeGuest) -> None:
    def extensions(profile: Profile | None) -> set[str]:
        guest = make_guest(profile=profile).start()
        question = {"physicalDevice": PHYSICAL_DEVICE, "pLayerName": None}
        command = "vkEnumerateDeviceExtensionProperties"
        count = guest.ask(command, **question, pPropertyCount=0)["pPropertyCount"]
        found = guest.ask(command, **question, pPropertyCount=count, pProperties=[{}] * count)
        return {each["extensionName"].rstrip(b"\0").decode() for each in found["pProperties"]}

    hidden = {"VK_KHR_pipeline_library"}
    lost = extensions(None) - extensions(Profile("x", hidden_extensions=frozenset(hidden)))
    more = {"VK_EXT_graphics_pipeline_library", "VK_EXT_pipeline_library_group_handles"}
    assert hidden < lost <= hidden | more


def test_a_profile_counts_for_what_was_tried() -> None:
    seen = MemorySeen(alignment=4096, sparse=True)
    mac = load_profile("moltenvk")
    assert seen_under(Profile("none"), seen) == seen
    assert seen_under(mac, seen) == MemorySeen(alignment=16384, sparse=False)
    assert seen_under(mac, MemorySeen(alignment=65536)).alignment == 65536


def test_without_host_pointers_there_is_no_device(make_guest: MakeGuest) -> None:
    for handles, count in ((["OPAQUE_FD"], 0), (["HOST_ALLOCATION"], 1)):
        guest = make_guest(profile=Profile("x", external_handles=ExternalHandles(memory=handles)))
        guest.create_instance()
        answer = guest.ask(
            "vkEnumeratePhysicalDevices", instance=1, pPhysicalDeviceCount=0, pPhysicalDevices=None
        )
        assert answer["pPhysicalDeviceCount"] == count
