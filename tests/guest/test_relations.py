"""Relations on a real driver: what it has said of itself, and what is remembered of objects."""

from __future__ import annotations

from typing import Any

import pytest
from guest_client import DEVICE, PHYSICAL_DEVICE, QUEUE, Guest, MakeGuest

from hesper.kernel.errors import ProtocolError
from hesper.vk.enumerants import (
    VK_ATTACHMENT_LOAD_OP_CLEAR,
    VK_ATTACHMENT_LOAD_OP_DONT_CARE,
    VK_FORMAT_R8G8B8A8_UNORM,
    VK_IMAGE_ASPECT_COLOR_BIT,
    VK_IMAGE_TYPE_2D,
    VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT,
    VK_IMAGE_VIEW_TYPE_2D,
    VK_SEMAPHORE_TYPE_TIMELINE,
)

REMAINING = 0xFFFFFFFF
LEVELS, LAYERS, SIZE = 3, 2, 16


def recording(guest: Guest) -> int:
    """A command buffer that is being recorded."""
    pool, buffer = guest.create("CommandPool", {}), guest.new_id()
    info = {"commandPool": pool, "commandBufferCount": 1}
    guest.ask(
        "vkAllocateCommandBuffers", device=DEVICE, pAllocateInfo=info, pCommandBuffers=[buffer]
    )
    guest.ask("vkBeginCommandBuffer", commandBuffer=buffer, pBeginInfo={})
    return buffer


def image(guest: Guest) -> int:
    """An image with LEVELS and LAYERS, bound to memory."""
    made = guest.create(
        "Image",
        {
            "imageType": VK_IMAGE_TYPE_2D,
            "format": VK_FORMAT_R8G8B8A8_UNORM,
            "extent": {"width": SIZE, "height": SIZE, "depth": 1},
            "mipLevels": LEVELS,
            "arrayLayers": LAYERS,
            "samples": 1,
            "usage": VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT,
        },
    )
    _, memory = guest.allocate(1 << 16)
    guest.ask("vkBindImageMemory", device=DEVICE, image=made, memory=memory, memoryOffset=0)
    return made


def view_info(of: int, levels: tuple[int, int], layers: tuple[int, int]) -> dict[str, Any]:
    """`levels`, `layers`: the first one and how many."""
    return {
        "image": of,
        "viewType": VK_IMAGE_VIEW_TYPE_2D,
        "format": VK_FORMAT_R8G8B8A8_UNORM,
        "components": {},
        "subresourceRange": {
            "aspectMask": VK_IMAGE_ASPECT_COLOR_BIT,
            "baseMipLevel": levels[0],
            "levelCount": levels[1],
            "baseArrayLayer": layers[0],
            "layerCount": layers[1],
        },
    }


def render_pass(guest: Guest, load: int = VK_ATTACHMENT_LOAD_OP_CLEAR) -> int:
    """A render pass with one attachment and one subpass."""
    attachment = {"format": VK_FORMAT_R8G8B8A8_UNORM, "samples": 1, "loadOp": load}
    info = {
        "attachmentCount": 1,
        "pAttachments": [attachment | {"finalLayout": 2}],
        "subpassCount": 1,
        "pSubpasses": [
            {"colorAttachmentCount": 1, "pColorAttachments": [{"attachment": 0, "layout": 2}]}
        ],
    }
    return guest.create("RenderPass", info)


def framebuffer_info(guest: Guest, of: int, count: int) -> dict[str, Any]:
    target = guest.create("ImageView", view_info(image(guest), (0, 1), (0, 1)))
    return {
        "renderPass": of,
        "attachmentCount": count,
        "pAttachments": [target] * count,
        "width": SIZE,
        "height": SIZE,
        "layers": 1,
    }


def test_values_that_are_missing_are_zeros(make_guest: MakeGuest) -> None:
    feature = ("VkPhysicalDeviceTimelineSemaphoreFeatures", {"timelineSemaphore": 1})
    guest = make_guest().start(chain=[feature])
    kind = ("VkSemaphoreTypeCreateInfo", {"semaphoreType": VK_SEMAPHORE_TYPE_TIMELINE})
    semaphores = [guest.create("Semaphore", {"pNext": [kind]}) for _ in range(16)]
    values = {"signalSemaphoreValueCount": 1, "pSignalSemaphoreValues": [7]}
    batch = {
        "pNext": [("VkTimelineSemaphoreSubmitInfo", values)],
        "signalSemaphoreCount": len(semaphores),
        "pSignalSemaphores": semaphores,
    }
    guest.call("vkQueueSubmit", queue=QUEUE, submitCount=1, pSubmits=[batch], fence=0)
    for semaphore in semaphores:
        _, answer = guest.call(
            "vkGetSemaphoreCounterValue", device=DEVICE, semaphore=semaphore, pValue=0
        )
        assert answer["pValue"] in (0, 7)


@pytest.mark.parametrize("levels", [(0, LEVELS), (LEVELS - 1, 1), (1, REMAINING)])
@pytest.mark.parametrize("layers", [(0, 1), (LAYERS - 1, REMAINING)])
def test_views_of_what_there_is(
    guest: Guest, levels: tuple[int, int], layers: tuple[int, int]
) -> None:
    guest.create("ImageView", view_info(image(guest), levels, layers))


@pytest.mark.parametrize(
    ("levels", "layers"),
    [
        ((LEVELS, 1), (0, 1)),
        ((LEVELS, REMAINING), (0, 1)),
        ((1, LEVELS), (0, 1)),
        ((0, 1), (LAYERS, 1)),
        ((0, 1), (LAYERS, REMAINING)),
        ((0, 1), (0xFFFFFFFE, 3)),
    ],
)
def test_views_beyond_an_image_are_refused(
    guest: Guest, levels: tuple[int, int], layers: tuple[int, int]
) -> None:
    info = view_info(image(guest), levels, layers)
    with pytest.raises(ProtocolError, match=r"vkCreateImageView.*VkImageViewCreateInfo"):
        guest.create("ImageView", info)


def test_clear_values_that_are_missing_are_zeros(guest: Guest) -> None:
    made = render_pass(guest)
    target = guest.create("Framebuffer", framebuffer_info(guest, made, 1))
    guest.send(
        "vkCmdBeginRenderPass",
        commandBuffer=recording(guest),
        pRenderPassBegin={
            "renderPass": made,
            "framebuffer": target,
            "renderArea": {"offset": {}, "extent": {"width": SIZE, "height": SIZE}},
        },
        contents=0,
    )


def test_framebuffers_have_the_attachments_of_their_render_pass(guest: Guest) -> None:
    info = framebuffer_info(guest, render_pass(guest, VK_ATTACHMENT_LOAD_OP_DONT_CARE), 2)
    with pytest.raises(ProtocolError, match=r"renderPass\.attachments"):
        guest.create("Framebuffer", info)


def test_a_device_is_made_of_as_many_as_the_loader_has_room_for(make_guest: MakeGuest) -> None:
    """The loader copies them to its stack, however many there are."""
    guest = make_guest().start()
    group = {"physicalDeviceCount": 33, "pPhysicalDevices": [PHYSICAL_DEVICE] * 33}
    info = {
        "pNext": [("VkDeviceGroupDeviceCreateInfo", group)],
        "queueCreateInfoCount": 0,
        "enabledExtensionCount": 0,
    }
    with pytest.raises(ProtocolError, match="physicalDeviceCount <= VK_MAX_DEVICE_GROUP_SIZE"):
        guest.call(
            "vkCreateDevice",
            physicalDevice=PHYSICAL_DEVICE,
            pCreateInfo=info,
            pDevice=guest.new_id(),
        )


def test_views_are_those_that_the_driver_has(guest: Guest) -> None:
    """Drivers keep what is rendered to in arrays, one for each view."""
    subpass = {"viewMask": 1 << 31}
    info = {"attachmentCount": 0, "subpassCount": 1, "pSubpasses": [subpass]}
    with pytest.raises(ProtocolError, match=r"viewMask <= device.allViews.* \d+$"):
        guest.create("RenderPass2", info)


def test_limits_are_the_drivers(guest: Guest) -> None:
    viewports = [{"width": 1.0, "height": 1.0, "maxDepth": 1.0}]
    buffer = recording(guest)
    guest.send(
        "vkCmdSetViewport",
        commandBuffer=buffer, firstViewport=15, viewportCount=1, pViewports=viewports,
    )  # fmt: skip
    with pytest.raises(ProtocolError, match=r"limits.maxViewports.* 16$"):
        guest.send(
            "vkCmdSetViewport",
            commandBuffer=buffer, firstViewport=16, viewportCount=1, pViewports=viewports,
        )  # fmt: skip


VERTICES = [
    *(0x07230203, 0x00010000, 0, 8, 0),
    *(0x20011, 1, 0x3000E, 0, 1, 0x5000F, 0, 1, 0x6E69616D, 0),
    *(0x20013, 2, 0x30021, 3, 2, 0x50036, 2, 1, 0, 3, 0x200F8, 4, 0x100FD, 0x10038),
]
"""A SPIR-V module: a vertex shader that does nothing."""


def sampled_at(count: int, width: int) -> list[Any]:
    """What a pipeline says of `count` samples' places in a row of so many pixels."""
    places = [{"x": 0.5, "y": 0.5}] * (count * width)
    info: dict[str, Any] = {"sampleLocationsPerPixel": count, "sampleLocationsCount": len(places)}
    info |= {"sampleLocationGridSize": {"width": width, "height": 1}, "pSampleLocations": places}
    values = {"sampleLocationsEnable": 1, "sampleLocationsInfo": info}
    return [("VkPipelineSampleLocationsStateCreateInfoEXT", values)]


def pipeline_info(guest: Guest, multisample: dict[str, Any]) -> dict[str, Any]:
    module = guest.create("ShaderModule", {"codeSize": 4 * len(VERTICES), "pCode": VERTICES})
    one = {"width": 1, "height": 1}
    viewport = {"width": 1.0, "height": 1.0, "maxDepth": 1.0}
    return {
        "pNext": [("VkPipelineRenderingCreateInfo", {})],
        "stageCount": 1,
        "pStages": [{"stage": 1, "module": module, "pName": b"main\0"}],
        "pVertexInputState": {},
        "pInputAssemblyState": {"topology": 3},
        "pViewportState": {
            "viewportCount": 1, "pViewports": [viewport],
            "scissorCount": 1, "pScissors": [{"extent": one}],
        },
        "pRasterizationState": {"lineWidth": 1.0},
        "pMultisampleState": {"rasterizationSamples": 1} | multisample,
        "pColorBlendState": {"blendConstants": [0.0] * 4},
        "layout": guest.create("PipelineLayout", {}),
        "basePipelineIndex": -1,
    }  # fmt: skip


def test_samples_lie_where_the_driver_has_room_for_them(make_guest: MakeGuest) -> None:
    """Mesa copies them to an array of 32, whether or not the driver lets them be chosen."""
    features = ("VkPhysicalDeviceDynamicRenderingFeatures", {"dynamicRendering": 1})
    guest = make_guest().start(chain=[features])
    values: dict[str, Any] = {"device": DEVICE, "pipelineCache": 0, "createInfoCount": 1}
    for places in ([], sampled_at(1, 1)):
        info = pipeline_info(guest, {"pNext": places})
        ids = [guest.new_id()]
        guest.ask("vkCreateGraphicsPipelines", **values, pCreateInfos=[info], pPipelines=ids)
    info = pipeline_info(guest, {"pNext": sampled_at(64, 16)})
    with pytest.raises(ProtocolError, match=r"sampleLocationsCount <= device\.maxSampleLocations"):
        guest.call(
            "vkCreateGraphicsPipelines", **values, pCreateInfos=[info], pPipelines=[guest.new_id()]
        )


def test_no_more_samples_are_drawn_than_the_driver_can(make_guest: MakeGuest) -> None:
    features = ("VkPhysicalDeviceDynamicRenderingFeatures", {"dynamicRendering": 1})
    guest = make_guest().start(chain=[features])
    info = pipeline_info(guest, {"rasterizationSamples": 64})
    with pytest.raises(ProtocolError, match=r"rasterizationSamples <= device\.maxSamples"):
        guest.call(
            "vkCreateGraphicsPipelines",
            device=DEVICE, pipelineCache=0, createInfoCount=1, pCreateInfos=[info],
            pPipelines=[guest.new_id()],
        )  # fmt: skip
