"""What leaves a context: memory, images, fences and semaphores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from guest_client import DEVICE, PHYSICAL_DEVICE, QUEUE, Guest

from hesper.host.profile import Profile
from hesper.kernel.errors import ProtocolError
from hesper.portable import SharedMemory, page_size

MakeGuest = Callable[..., Guest]

DMA_BUF = 0x200
SYNC_FD_SEMAPHORE, SYNC_FD_FENCE = 0x10, 0x8
VK_ERROR_INVALID_EXTERNAL_HANDLE = -1000072003
VK_ERROR_FORMAT_NOT_SUPPORTED = -11
VK_ERROR_INVALID_PLANE_LAYOUT = -1000158000
VK_ERROR_UNKNOWN = -13
VK_NOT_READY = 1
LINEAR_TILING, MODIFIER_TILING = 1, 1000158000
R8G8B8A8 = 37
HOST_TRANSFER = 0x400000

IMAGE = {
    "imageType": 1,
    "format": R8G8B8A8,
    "extent": {"width": 64, "height": 16, "depth": 1},
    "mipLevels": 1,
    "arrayLayers": 1,
    "samples": 1,
    "usage": 0x7,
}


def imported(resource_id: int) -> list[Any]:
    """The chain of an allocation that imports a resource."""
    return [("VkImportMemoryResourceInfoMESA", {"resourceId": resource_id})]


def test_a_resource_can_be_imported_as_memory(guest: Guest) -> None:
    with SharedMemory.create(page_size(), "test") as memory:
        guest.context.import_resource(50, memory.fd, page_size())
        nothing: dict[str, object] = {}
        question = ("VkMemoryResourceAllocationSizePropertiesMESA", nothing)
        answer = guest.ask(
            "vkGetMemoryResourcePropertiesMESA",
            device=DEVICE,
            resourceId=50,
            pMemoryResourceProperties={"pNext": [question]},
        )["pMemoryResourceProperties"]
        assert answer["memoryTypeBits"] & 1
        assert answer["pNext"][0][1]["allocationSize"] == page_size()
        result, device_memory = guest.allocate(page_size(), chain=imported(50))
        assert result == 0
        buffer = guest.create("Buffer", {"size": 4096, "usage": 0x2})
        bind = {"device": DEVICE, "buffer": buffer, "memory": device_memory}
        guest.ask("vkBindBufferMemory", **bind, memoryOffset=0)
        _, blob = guest.blob(device_memory, page_size())
        memory.view[5] = 55
        with SharedMemory.from_fd(blob.fd, page_size()) as seen:
            assert seen.view[5] == 55


def test_an_import_that_is_too_large_or_unknown_fails(guest: Guest) -> None:
    resource_id, blob = guest.blob(0, 4096)
    too_much = guest.allocate(blob.size + 1, chain=imported(resource_id))
    assert too_much[0] == VK_ERROR_INVALID_EXTERNAL_HANDLE
    assert guest.allocate(4096, chain=imported(77))[0] == VK_ERROR_INVALID_EXTERNAL_HANDLE
    assert not guest.fatal


def test_memory_for_export_is_shared_memory_anyway(guest: Guest) -> None:
    chain = [("VkExportMemoryAllocateInfo", {"handleTypes": DMA_BUF})]
    result, memory = guest.allocate(4096, chain=chain)
    assert result == 0
    guest.blob(memory, 4096)


@pytest.mark.parametrize("resource_id", [0, 77, (1 << 32) - 1])
def test_a_resource_that_the_context_does_not_know_cannot_be_imported(
    guest: Guest, resource_id: int
) -> None:
    result, _ = guest.call(
        "vkGetMemoryResourcePropertiesMESA",
        device=DEVICE,
        resourceId=resource_id,
        pMemoryResourceProperties={},
    )
    assert result == VK_ERROR_INVALID_EXTERNAL_HANDLE
    assert guest.allocate(4096, chain=imported(resource_id))[0] == VK_ERROR_INVALID_EXTERNAL_HANDLE
    assert not guest.fatal


def test_a_resource_that_is_gone_cannot_be_imported(guest: Guest) -> None:
    resource_id, _ = guest.blob(0, 4096)
    guest.context.destroy_resource(resource_id)
    result, _ = guest.call(
        "vkGetMemoryResourcePropertiesMESA",
        device=DEVICE,
        resourceId=resource_id,
        pMemoryResourceProperties={},
    )
    assert result == VK_ERROR_INVALID_EXTERNAL_HANDLE


@pytest.mark.parametrize("size", [0, 1 << 47, (1 << 64) - 1])
def test_absurd_sizes_are_out_of_memory(guest: Guest, size: int) -> None:
    assert guest.allocate(size)[0] == -2
    assert not guest.fatal


def test_an_unknown_memory_type_is_refused(guest: Guest) -> None:
    assert guest.allocate(4096, type_=31)[0] == VK_ERROR_UNKNOWN
    assert guest.allocate(4096, type_=(1 << 32) - 1)[0] == VK_ERROR_UNKNOWN


def test_an_id_in_use_keeps_its_memory(guest: Guest) -> None:
    _, memory = guest.allocate(4096)
    before = guest.context.engine.devices.share_memory(memory)
    info = {"allocationSize": 4096}
    with pytest.raises(ProtocolError, match="taken"):
        guest.send("vkAllocateMemory", device=DEVICE, pAllocateInfo=info, pMemory=memory)
    assert guest.context.engine.devices.share_memory(memory).address == before.address


def buffer_sharing(guest: Guest, handle_type: int) -> dict[str, int]:
    """How buffers can be shared."""
    answer = guest.ask(
        "vkGetPhysicalDeviceExternalBufferProperties",
        physicalDevice=PHYSICAL_DEVICE,
        pExternalBufferInfo={"usage": 0x3, "handleType": handle_type},
        pExternalBufferProperties={},
    )
    found: dict[str, int] = answer["pExternalBufferProperties"]["externalMemoryProperties"]
    return found


def test_buffers_are_shared_as_dma_bufs_only(guest: Guest) -> None:
    assert buffer_sharing(guest, DMA_BUF) == {
        "externalMemoryFeatures": 0x6,
        "exportFromImportedHandleTypes": DMA_BUF,
        "compatibleHandleTypes": DMA_BUF,
    }
    assert set(buffer_sharing(guest, 0x1).values()) == {0}


def image_question(**other: Any) -> dict[str, Any]:
    """Whether an image can be, and how."""
    info = {"format": R8G8B8A8, "type": 1, "tiling": MODIFIER_TILING, "usage": 0x7}
    return {
        "physicalDevice": PHYSICAL_DEVICE,
        "pImageFormatInfo": info | other,
        "pImageFormatProperties": {},
    }


def modifier(value: int) -> tuple[str, dict[str, int]]:
    """The struct that asks about one modifier."""
    return ("VkPhysicalDeviceImageDrmFormatModifierInfoEXT", {"drmFormatModifier": value})


def test_the_linear_modifier_is_the_only_one(guest: Guest) -> None:
    command = "vkGetPhysicalDeviceImageFormatProperties2"
    linear = guest.ask(command, **image_question(tiling=LINEAR_TILING))
    assert guest.ask(command, **image_question(pNext=[modifier(0)])) == linear
    assert guest.call(command, **image_question(pNext=[modifier(1)]))[0] == -11
    assert guest.call(command, **image_question())[0] == VK_ERROR_FORMAT_NOT_SUPPORTED


LIST, WIDE_LIST = "VkDrmFormatModifierPropertiesListEXT", "VkDrmFormatModifierPropertiesList2EXT"


def format_answer(guest: Guest, format_: int, *chain: Any) -> tuple[int, dict[str, Any]]:
    """The features of linear images, and the structs of the answer's chain."""
    answer = guest.ask(
        "vkGetPhysicalDeviceFormatProperties2",
        physicalDevice=PHYSICAL_DEVICE,
        format=format_,
        pFormatProperties={"pNext": list(chain)},
    )["pFormatProperties"]
    return answer["formatProperties"]["linearTilingFeatures"], dict(answer["pNext"])


def modifier_list(name: str, count: int) -> tuple[str, dict[str, Any]]:
    """An empty list of modifiers."""
    return name, {"drmFormatModifierCount": count, "pDrmFormatModifierProperties": [{}] * count}


@pytest.mark.parametrize("name", [LIST, WIDE_LIST])
@pytest.mark.parametrize("others", [[], [("VkFormatProperties3", {})]])
def test_formats_list_the_linear_modifier(guest: Guest, name: str, others: list[Any]) -> None:
    def ask(format_: int, count: int) -> tuple[int, dict[str, Any]]:
        linear, found = format_answer(guest, format_, modifier_list(name, count), *others)
        assert [*found] == [name, *(struct for struct, _ in others)]
        return linear, found[name]

    _, wide = format_answer(guest, R8G8B8A8, ("VkFormatProperties3", {}))
    assert ask(R8G8B8A8, 0)[1]["drmFormatModifierCount"] == 1
    linear, found = ask(R8G8B8A8, 1)
    more = wide["VkFormatProperties3"]["linearTilingFeatures"]
    assert more & linear == linear
    assert more >> 32, "the driver has features that 32 bits do not hold"
    assert found["pDrmFormatModifierProperties"] == [
        {
            "drmFormatModifier": 0,
            "drmFormatModifierPlaneCount": 1,
            "drmFormatModifierTilingFeatures": linear if name == LIST else more,
        }
    ]
    assert ask(126, 0)[1]["drmFormatModifierCount"] == 0  # D32_SFLOAT


def test_an_image_with_a_modifier_is_linear(guest: Guest) -> None:
    modifiers = {"drmFormatModifierCount": 2, "pDrmFormatModifiers": [99, 0]}
    chain = [("VkImageDrmFormatModifierListCreateInfoEXT", modifiers)]
    image = guest.create("Image", IMAGE | {"tiling": MODIFIER_TILING, "pNext": chain})
    target = {"device": DEVICE, "image": image}
    answer = guest.ask("vkGetImageDrmFormatModifierPropertiesEXT", **target, pProperties={})
    assert answer["pProperties"]["drmFormatModifier"] == 0
    layout = guest.ask(
        "vkGetImageSubresourceLayout", **target, pSubresource={"aspectMask": 0x80}, pLayout={}
    )["pLayout"]
    assert layout["rowPitch"] >= 64 * 4
    for pitch, expected in ((layout["rowPitch"], 0), (12, VK_ERROR_INVALID_PLANE_LAYOUT)):
        plane = {
            "drmFormatModifierPlaneCount": 1,
            "pPlaneLayouts": [{"offset": layout["offset"], "rowPitch": pitch}],
        }
        chain = [("VkImageDrmFormatModifierExplicitCreateInfoEXT", plane)]
        info = IMAGE | {"tiling": MODIFIER_TILING, "pNext": chain}
        command = {"device": DEVICE, "pCreateInfo": info, "pImage": guest.new_id()}
        assert guest.call("vkCreateImage", **command)[0] == expected


def test_semaphores_are_shared_as_sync_files(guest: Guest) -> None:
    def ask(handle_type: int, chain: list[Any]) -> int:
        answer = guest.ask(
            "vkGetPhysicalDeviceExternalSemaphoreProperties",
            physicalDevice=PHYSICAL_DEVICE,
            pExternalSemaphoreInfo={"pNext": chain, "handleType": handle_type},
            pExternalSemaphoreProperties={},
        )
        features = answer["pExternalSemaphoreProperties"]["externalSemaphoreFeatures"]
        return int(features)

    assert ask(SYNC_FD_SEMAPHORE, []) == 3
    assert ask(SYNC_FD_SEMAPHORE, [("VkSemaphoreTypeCreateInfo", {"semaphoreType": 1})]) == 0
    assert ask(0x1, []) == 0


@pytest.fixture(params=["as the driver can", "emulated"])
def sharing(request: pytest.FixtureRequest, make_guest: MakeGuest) -> Guest:
    """A guest, with and without a host that knows sync files."""
    without = {"VK_KHR_external_fence_fd", "VK_KHR_external_semaphore_fd"}
    hidden = frozenset(without if request.param == "emulated" else ())
    return make_guest(profile=Profile(name="test", hidden_extensions=hidden)).start()


def submit(guest: Guest, *, wait: int = 0, signal: int = 0, fence: int = 0) -> None:
    """Submit a batch without commands."""
    batch: dict[str, Any] = {}
    if wait:
        batch |= {"waitSemaphoreCount": 1, "pWaitSemaphores": [wait]}
        batch |= {"pWaitDstStageMask": [0x10000]}
    if signal:
        batch |= {"signalSemaphoreCount": 1, "pSignalSemaphores": [signal]}
    guest.ask("vkQueueSubmit", queue=QUEUE, submitCount=1, pSubmits=[batch], fence=fence)


def test_an_imported_semaphore_is_signalled(sharing: Guest) -> None:
    chain = [("VkExportSemaphoreCreateInfo", {"handleTypes": SYNC_FD_SEMAPHORE})]
    semaphore = sharing.create("Semaphore", {"pNext": chain})
    for _ in range(3):
        info = {"semaphore": semaphore, "resourceId": 0}
        sharing.send(
            "vkImportSemaphoreResourceMESA", device=DEVICE, pImportSemaphoreResourceInfo=info
        )
        submit(sharing, wait=semaphore)
    sharing.wait_for_queue()


def test_an_exported_semaphore_is_unsignalled(sharing: Guest) -> None:
    chain = [("VkExportSemaphoreCreateInfo", {"handleTypes": SYNC_FD_SEMAPHORE})]
    semaphore = sharing.create("Semaphore", {"pNext": chain})
    for _ in range(3):
        submit(sharing, signal=semaphore)
        sharing.send("vkWaitSemaphoreResourceMESA", device=DEVICE, semaphore=semaphore)
    sharing.wait_for_queue()


def test_semaphore_payloads_lie_in_no_resource(guest: Guest) -> None:
    info = {"semaphore": guest.create("Semaphore", {}), "resourceId": 1}
    with pytest.raises(ProtocolError, match="resources"):
        guest.send(
            "vkImportSemaphoreResourceMESA", device=DEVICE, pImportSemaphoreResourceInfo=info
        )


def test_an_exported_fence_is_unsignalled(sharing: Guest) -> None:
    chain = [("VkExportFenceCreateInfo", {"handleTypes": SYNC_FD_FENCE})]
    fence = sharing.create("Fence", {"pNext": chain})
    for _ in range(100):
        submit(sharing, fence=fence)
        sharing.send("vkResetFenceResourceMESA", device=DEVICE, fence=fence)
        assert sharing.call("vkGetFenceStatus", device=DEVICE, fence=fence)[0] == VK_NOT_READY
    submit(sharing, fence=fence)
    wait = {"device": DEVICE, "fenceCount": 1, "pFences": [fence], "waitAll": 1}
    sharing.ask("vkWaitForFences", **wait, timeout=10**10)


@pytest.fixture
def copying(make_guest: MakeGuest) -> tuple[Guest, int]:
    """A guest with an image for host copies in its general layout."""
    features = ("VkPhysicalDeviceHostImageCopyFeatures", {"hostImageCopy": 1})
    guest = make_guest().start([b"VK_EXT_host_image_copy"], [features])
    image = guest.create("Image", IMAGE | {"usage": HOST_TRANSFER | 0x4})
    _, memory = guest.allocate(1 << 20)
    guest.ask("vkBindImageMemory", device=DEVICE, image=image, memory=memory, memoryOffset=0)
    whole = {"aspectMask": 1, "levelCount": 1, "layerCount": 1}
    transition = {"image": image, "newLayout": 1, "subresourceRange": whole}
    guest.ask(
        "vkTransitionImageLayout", device=DEVICE, transitionCount=1, pTransitions=[transition]
    )
    return guest, image


def region(**other: Any) -> dict[str, Any]:
    """The whole image."""
    place = {"aspectMask": 1, "mipLevel": 0, "baseArrayLayer": 0, "layerCount": 1}
    extent = {"width": 64, "height": 16, "depth": 1}
    return {"imageSubresource": place, "imageExtent": extent} | other


def write_image(guest: Guest, image: int, data: bytes, **other: Any) -> int:
    """Copy to the image; return the VkResult."""
    regions = [region(dataSize=len(data), pData=data, **other)]
    info = {"dstImage": image, "dstImageLayout": 1, "regionCount": 1, "pRegions": regions}
    result, _ = guest.call("vkCopyMemoryToImageMESA", device=DEVICE, pCopyMemoryToImageInfo=info)
    return result


def read_image(guest: Guest, image: int, size: int, **other: Any) -> tuple[int, bytes]:
    """Copy from the image; return the VkResult and the data."""
    info = region(srcImage=image, srcImageLayout=1, **other)
    result, outputs = guest.call(
        "vkCopyImageToMemoryMESA",
        device=DEVICE,
        pCopyImageToMemoryInfo=info,
        dataSize=size,
        pData=size,
    )
    return result, outputs["pData"]


def test_what_was_copied_to_an_image_comes_back(copying: tuple[Guest, int]) -> None:
    guest, image = copying
    data = bytes(range(256)) * 16
    assert write_image(guest, image, data) == 0
    assert read_image(guest, image, len(data)) == (0, data)
    size = 15 * 100 * 4 + 64 * 4  # rows of 100 texels, the last one of 64
    result, wide = read_image(guest, image, size, memoryRowLength=100)
    assert result == 0
    assert wide[400:656] == data[256:512]


def test_copies_with_too_little_memory_are_refused(copying: tuple[Guest, int]) -> None:
    guest, image = copying
    assert write_image(guest, image, bytes(64 * 16 * 4 - 1)) == VK_ERROR_UNKNOWN
    assert read_image(guest, image, 64 * 16 * 4 - 1)[0] == VK_ERROR_UNKNOWN
    assert read_image(guest, image, 4096, memoryRowLength=65)[0] == VK_ERROR_UNKNOWN
    assert not guest.fatal


@pytest.mark.parametrize("part", [{"layerCount": 2}, {"layerCount": 1, "mipLevel": 1}])
def test_copies_of_what_an_image_has_not_are_refused(
    copying: tuple[Guest, int], part: dict[str, int]
) -> None:
    guest, image = copying
    with pytest.raises(ProtocolError, match="vkCopyImageToMemoryMESA"):
        read_image(guest, image, 8192, imageSubresource={"aspectMask": 1, **part})


def test_images_that_are_not_made_for_it_are_not_copied(copying: tuple[Guest, int]) -> None:
    guest, _ = copying
    image = guest.create("Image", IMAGE)
    assert read_image(guest, image, 4096)[0] == VK_ERROR_UNKNOWN


@pytest.mark.parametrize(
    ("command", "parameters"),
    [
        (
            "vkWriteResourceDescriptorMESA",
            {"pResource": {"type": 6, "data": (6, None)}, "dataSize": 8, "pData": 8},
        ),
        ("vkWriteSamplerDescriptorMESA", {"pSampler": {}, "dataSize": 8, "pData": 8}),
    ],
)
def test_a_device_without_descriptor_heaps_writes_no_descriptors(
    make_guest: MakeGuest, command: str, parameters: dict[str, Any]
) -> None:
    hidden = frozenset({"VK_EXT_descriptor_heap"})
    guest = make_guest(profile=Profile(name="without", hidden_extensions=hidden)).start()
    with pytest.raises(ProtocolError, match=r"the device has no vk\w+: its ext"):
        guest.call(command, device=DEVICE, **parameters)
    assert "internal error" not in guest.fatal[0]
