"""Extensions that newer Mesas have: offered with their features, and their commands are served.

Where the machine's lavapipe is too old for one, its tests are skipped; Mesa 26.2's has those here.
"""

from __future__ import annotations

from typing import Any

import pytest
from every_driver import Commands
from guest_client import DEVICE, PHYSICAL_DEVICE, Guest, MakeGuest

from hesper.portable import SharedMemory

VK_ERROR_INITIALIZATION_FAILED = -3
R8G8B8A8, GENERAL = 37, 1
WIDTH, HEIGHT = 16, 8
FEATURES = {
    "VK_KHR_maintenance8": ("VkPhysicalDeviceMaintenance8FeaturesKHR", "maintenance8"),
    "VK_KHR_maintenance9": ("VkPhysicalDeviceMaintenance9FeaturesKHR", "maintenance9"),
    "VK_KHR_maintenance10": ("VkPhysicalDeviceMaintenance10FeaturesKHR", "maintenance10"),
    "VK_KHR_maintenance11": ("VkPhysicalDeviceMaintenance11FeaturesKHR", "maintenance11"),
    "VK_KHR_unified_image_layouts": (
        "VkPhysicalDeviceUnifiedImageLayoutsFeaturesKHR",
        "unifiedImageLayouts",
    ),
    "VK_EXT_primitive_restart_index": (
        "VkPhysicalDevicePrimitiveRestartIndexFeaturesEXT",
        "primitiveRestartIndex",
    ),
}


def extensions(guest: Guest) -> set[str]:
    """Names of the device extensions that the guest is offered."""
    command = "vkEnumerateDeviceExtensionProperties"
    count = guest.ask(command, physicalDevice=PHYSICAL_DEVICE, pPropertyCount=0)["pPropertyCount"]
    found = guest.ask(
        command,
        physicalDevice=PHYSICAL_DEVICE,
        pPropertyCount=count,
        pProperties=[{}] * count,
    )["pProperties"]
    return {each["extensionName"].rstrip(b"\0").decode() for each in found}


@pytest.fixture
def waiting(make_guest: MakeGuest) -> Guest:
    """A guest without a device."""
    guest = make_guest()
    guest.create_instance()
    guest.enumerate()
    return guest


def start(guest: Guest, name: str) -> None:
    """Make a device with an extension and its feature."""
    if name not in extensions(guest):
        pytest.skip(f"the driver has no {name}")
    struct, feature = FEATURES[name]
    chain: list[Any] = [
        (struct, {feature: 1}),
        ("VkPhysicalDeviceVulkan13Features", {"dynamicRendering": 1, "synchronization2": 1}),
    ]
    assert guest.try_device(extensions=[name.encode()], chain=chain)[0] == 0
    guest.name_queue()


@pytest.mark.parametrize("name", sorted(FEATURES))
def test_it_is_offered_with_its_feature(waiting: Guest, name: str) -> None:
    start(waiting, name)
    struct, feature = FEATURES[name]
    got = waiting.ask(
        "vkGetPhysicalDeviceFeatures2",
        physicalDevice=PHYSICAL_DEVICE,
        pFeatures={"pNext": [(struct, {})]},
    )["pFeatures"]["pNext"]
    assert dict(got)[struct][feature] == 1


def target(guest: Guest) -> tuple[int, int]:
    """An image to draw to, and a view of it."""
    info = {
        "imageType": 1,
        "format": R8G8B8A8,
        "extent": {"width": WIDTH, "height": HEIGHT, "depth": 1},
        "mipLevels": 1,
        "arrayLayers": 1,
        "samples": 1,
        "usage": 0x11,
    }
    image = guest.create("Image", info)
    needs = guest.ask(
        "vkGetImageMemoryRequirements", device=DEVICE, image=image, pMemoryRequirements={}
    )["pMemoryRequirements"]
    type_ = (needs["memoryTypeBits"] & -needs["memoryTypeBits"]).bit_length() - 1
    result, memory = guest.allocate(needs["size"], type_=type_)
    assert result == 0
    guest.ask("vkBindImageMemory", device=DEVICE, image=image, memory=memory, memoryOffset=0)
    whole = {"aspectMask": 1, "levelCount": 1, "layerCount": 1}
    view = guest.create(
        "ImageView",
        {"image": image, "viewType": 1, "format": R8G8B8A8, "subresourceRange": whole},
    )
    return image, view


def test_a_rendering_is_ended_by_the_newer_command(waiting: Guest) -> None:
    start(waiting, "VK_KHR_maintenance10")
    image, view = target(waiting)
    commands = Commands(waiting)
    commands.barrier(image, wide=True, newLayout=GENERAL, dstAccessMask=0x100)
    attachment = {
        "imageView": view,
        "imageLayout": GENERAL,
        "loadOp": 1,
        "storeOp": 0,
        "clearValue": (0, (0, [1.0, 0.0, 0.0, 1.0])),
    }
    waiting.send(
        "vkCmdBeginRendering",
        commandBuffer=commands.id,
        pRenderingInfo={
            "renderArea": {"offset": {}, "extent": {"width": WIDTH, "height": HEIGHT}},
            "layerCount": 1,
            "colorAttachmentCount": 1,
            "pColorAttachments": [attachment],
        },
    )
    waiting.send("vkCmdEndRendering2KHR", commandBuffer=commands.id, pRenderingEndInfo={})
    size = 4 * WIDTH * HEIGHT
    buffer = waiting.create("Buffer", {"size": size, "usage": 2})
    result, memory = waiting.allocate(size)
    assert result == 0
    waiting.ask("vkBindBufferMemory", device=DEVICE, buffer=buffer, memory=memory, memoryOffset=0)
    region = {
        "imageSubresource": {"aspectMask": 1, "layerCount": 1},
        "imageExtent": {"width": WIDTH, "height": HEIGHT, "depth": 1},
    }
    commands.barrier(image, wide=True, oldLayout=GENERAL, newLayout=GENERAL, dstAccessMask=0x800)
    waiting.send(
        "vkCmdCopyImageToBuffer",
        commandBuffer=commands.id,
        srcImage=image,
        srcImageLayout=GENERAL,
        dstBuffer=buffer,
        regionCount=1,
        pRegions=[region],
    )
    commands.run()
    assert not waiting.fatal
    resource, blob = waiting.blob(memory, size)
    with SharedMemory.from_fd(blob.fd, size) as seen:
        assert bytes(seen.view[:size]) == b"\xff\x00\x00\xff" * (WIDTH * HEIGHT)
    waiting.context.destroy_resource(resource)


def test_a_restart_index_is_set(waiting: Guest) -> None:
    start(waiting, "VK_EXT_primitive_restart_index")
    commands = Commands(waiting)
    waiting.send(
        "vkCmdSetPrimitiveRestartIndexEXT", commandBuffer=commands.id, primitiveRestartIndex=0xFFFE
    )
    commands.run()
    assert not waiting.fatal


def test_a_device_has_no_queues_where_that_is_allowed(waiting: Guest) -> None:
    allowed = "VK_KHR_maintenance9" in extensions(waiting)
    result, _ = waiting.call(
        "vkCreateDevice", physicalDevice=PHYSICAL_DEVICE, pCreateInfo={}, pDevice=DEVICE
    )
    assert result == (0 if allowed else VK_ERROR_INITIALIZATION_FAILED)
    assert not waiting.fatal


def test_families_say_whose_images_they_take_over(waiting: Guest) -> None:
    start(waiting, "VK_KHR_maintenance9")
    struct = "VkQueueFamilyOwnershipTransferPropertiesKHR"
    (family,) = waiting.ask(
        "vkGetPhysicalDeviceQueueFamilyProperties2",
        physicalDevice=PHYSICAL_DEVICE,
        pQueueFamilyPropertyCount=1,
        pQueueFamilyProperties=[{"pNext": [(struct, {})]}],
    )["pQueueFamilyProperties"]
    assert dict(family["pNext"])[struct]["optimalImageTransferToQueueFamilies"]


def test_memory_that_begins_as_zeros_is_offered_where_images_can_have_it(waiting: Guest) -> None:
    """All of lavapipe's memory is shared: tiled images that begin so have no place."""
    struct = "VkPhysicalDeviceZeroInitializeDeviceMemoryFeaturesEXT"
    got = waiting.ask(
        "vkGetPhysicalDeviceFeatures2",
        physicalDevice=PHYSICAL_DEVICE,
        pFeatures={"pNext": [(struct, {})]},
    )["pFeatures"]["pNext"]
    assert dict(got)[struct]["zeroInitializeDeviceMemory"] == 0
