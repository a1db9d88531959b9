"""What is made is within what the device can: descriptors, and the size of buffers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hesper.kernel.errors import ProtocolError
from hesper.protocol.codec import Codec
from hesper.vk import enumerants as vk
from kernel.conftest import COMMAND_BUFFER, Host

CODEC = Codec()
PIPELINE = 101
UPDATE_AFTER_BIND, PUSH = 2, 1  # VK_DESCRIPTOR_SET_LAYOUT_CREATE_...


def send(host: Host, name: str, **parameters: Any) -> None:
    host.engine.submit(CODEC.encode(name, parameters))


@pytest.fixture
def host(object_driver: Path) -> Iterator[Host]:
    host = Host(object_driver)
    yield host
    host.engine.stop()


def layout(host: Host, id_: int, type_: int, count: int, flags: int = 0) -> None:
    one = {"binding": 0, "descriptorType": type_, "descriptorCount": count, "stageFlags": 1}
    info = {"flags": flags, "bindingCount": 1, "pBindings": [one]}
    send(host, "vkCreateDescriptorSetLayout", device=3, pCreateInfo=info, pSetLayout=id_)


def pipeline_layout(host: Host, *layouts: int) -> None:
    info = {"setLayoutCount": len(layouts), "pSetLayouts": [*layouts], "pushConstantRangeCount": 0}
    send(host, "vkCreatePipelineLayout", device=3, pCreateInfo=info, pPipelineLayout=PIPELINE)
    send(host, "vkDestroyPipelineLayout", device=3, pipelineLayout=PIPELINE)


@pytest.fixture
def dynamic(host: Host, know: Callable[..., None]) -> Host:
    """A device with 5 dynamic descriptors, and 7 where some may be updated after they are bound."""
    know(
        host,
        maxBoundDescriptorSets=9,
        maxDescriptorSetUniformBuffersDynamic=3,
        maxDescriptorSetStorageBuffersDynamic=2,
        maxUpdateAfterBindDynamic=7,
    )
    layout(host, 200, vk.VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER_DYNAMIC, 3)
    layout(host, 201, vk.VK_DESCRIPTOR_TYPE_STORAGE_BUFFER_DYNAMIC, 2)
    layout(host, 202, vk.VK_DESCRIPTOR_TYPE_STORAGE_BUFFER_DYNAMIC, 2, UPDATE_AFTER_BIND)
    layout(host, 203, vk.VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER_DYNAMIC, 7, UPDATE_AFTER_BIND)
    return host


def test_as_many_dynamic_descriptors_as_there_may_be(dynamic: Host) -> None:
    pipeline_layout(dynamic, 200, 201)
    pipeline_layout(dynamic, 200, 201, 202)
    pipeline_layout(dynamic, 203)
    assert dynamic.fatal == []


@pytest.mark.parametrize(
    ("layouts", "sentence"),
    [
        ((200, 200), "6 dynamic descriptors, where the device has at most 5"),
        ((200, 203), "10 dynamic descriptors, where the device has at most 7"),
        ((203, 201), "9 dynamic descriptors, where the device has at most 7"),
    ],
)
def test_more_dynamic_descriptors(dynamic: Host, layouts: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(ProtocolError, match=sentence):
        pipeline_layout(dynamic, *layouts)


def test_without_updates_after_binding_the_other_limit_is_for_all(
    dynamic: Host, know: Callable[..., None]
) -> None:
    know(
        dynamic,
        maxBoundDescriptorSets=9,
        maxDescriptorSetUniformBuffersDynamic=3,
        maxDescriptorSetStorageBuffersDynamic=2,
    )
    with pytest.raises(
        ProtocolError, match="7 dynamic descriptors, where the device has at most 5"
    ):
        pipeline_layout(dynamic, 203)


def test_as_many_descriptors_as_can_be_pushed(host: Host, know: Callable[..., None]) -> None:
    know(host, maxPushDescriptors=32)
    layout(host, 200, vk.VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 32, PUSH)
    layout(host, 201, vk.VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 33)
    with pytest.raises(ProtocolError, match="33 breaks the relation"):
        layout(host, 202, vk.VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 33, PUSH)


def test_a_buffer_larger_than_the_device_has_any_fails(
    host: Host, know: Callable[..., None]
) -> None:
    know(host, maxBufferMebibytes=64)
    for id_, size in ((200, 64 << 20), (201, (64 << 20) + 1), (202, (1 << 64) - 1)):
        info = {"size": size, "usage": 3}
        send(host, "vkCreateBuffer", device=3, pCreateInfo=info, pBuffer=id_)
    assert host.engine.objects.lookup(200) is not None
    out_of_memory = vk.VK_ERROR_OUT_OF_DEVICE_MEMORY
    assert [host.engine.objects.failure(id_) for id_ in (201, 202)] == [out_of_memory] * 2
    assert host.fatal == []


def push_data(host: Host, offset: int, size: int) -> None:
    info = {"offset": offset, "data": {"size": size, "address": bytes(size)}}
    send(host, "vkCmdPushDataEXT", commandBuffer=COMMAND_BUFFER, pPushDataInfo=info)


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 257), (200, 57), (256, 4), (0xFFFFFFFC, 4), (0xFFFFFFFF, 256)]
)
def test_data_that_is_pushed_has_room(
    host: Host, know: Callable[..., None], offset: int, size: int
) -> None:
    """For shaders with descriptor heaps; drivers copy it to where they keep it while recording."""
    know(host, maxPushDataSize=256)
    for good_offset, good_size in ((0, 256), (200, 56), (256, 0)):
        push_data(host, good_offset, good_size)
    with pytest.raises(ProtocolError, match=r"offset \+ data\.size <= device\.maxPushDataSize"):
        push_data(host, offset, size)


def image_again(host: Host, size: int | None) -> None:
    """An image that is to lie where one with those capture data did."""
    data = None if size is None else {"size": size, "address": bytes(size)}
    info = {
        "pNext": [("VkOpaqueCaptureDataCreateInfoEXT", {"pData": data})],
        "imageType": vk.VK_IMAGE_TYPE_2D,
        "format": vk.VK_FORMAT_R8G8B8A8_UNORM,
        "extent": {"width": 4, "height": 4, "depth": 1},
        "mipLevels": 1,
        "arrayLayers": 1,
        "samples": 1,
    }
    send(host, "vkCreateImage", device=3, pCreateInfo=info, pImage=200)
    send(host, "vkDestroyImage", device=3, image=200)


@pytest.mark.parametrize("size", [0, 1, 15])
def test_capture_data_are_as_long_as_the_driver_has_them(
    host: Host, know: Callable[..., None], size: int
) -> None:
    """It reads as much, however many bytes the guest has sent."""
    know(host, opaqueCaptureDataSize=16)
    for good in (None, 16, 20):
        image_again(host, good)
    with pytest.raises(ProtocolError, match=r"pData\.size >= device\.opaqueCaptureDataSize"):
        image_again(host, size)


def continue_rendering(host: Host, samples: int, flags: int = 2, render_pass: int = 0) -> None:
    chained = {"rasterizationSamples": samples, "colorAttachmentCount": 0}
    chain = [("VkCommandBufferInheritanceRenderingInfo", chained)]
    info = {"flags": flags, "pInheritanceInfo": {"pNext": chain, "renderPass": render_pass}}
    send(host, "vkBeginCommandBuffer", commandBuffer=COMMAND_BUFFER, pBeginInfo=info)


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [(3, "in 0"), (0x40000000, "in 0"), (16, "<= device.maxSamples"), (64, "<= device.maxSamples")],
)
def test_commands_that_go_on_rendering_have_samples_that_there_are(
    host: Host, know: Callable[..., None], samples: int, sentence: str
) -> None:
    know(host, maxSamples=8)
    for good in (0, 1, 8):
        continue_rendering(host, good)
    continue_rendering(host, 0x40000000, flags=0)
    host.engine.objects.add(300, "VkRenderPass", 70, device=3)
    continue_rendering(host, 3, render_pass=300)
    with pytest.raises(ProtocolError, match=re.escape(f"rasterizationSamples {sentence}")):
        continue_rendering(host, samples)
