"""Buffers, pipelines and a command buffer for the loops, and a proof that they work."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from hesper.bench.client.device import HOST_MEMORY, Device
from hesper.bench.client.loops import Scene, VulkanError
from hesper.bench.client.shaders import ARITHMETIC, CORNER, TRANSFORM
from hesper.vk.enumerants import (
    VK_ACCESS_HOST_READ_BIT,
    VK_ACCESS_SHADER_READ_BIT,
    VK_ACCESS_SHADER_WRITE_BIT,
    VK_ACCESS_TRANSFER_WRITE_BIT,
    VK_ATTACHMENT_LOAD_OP_CLEAR,
    VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT,
    VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
    VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
    VK_FORMAT_R8G8B8A8_UNORM,
    VK_IMAGE_ASPECT_COLOR_BIT,
    VK_IMAGE_LAYOUT_GENERAL,
    VK_IMAGE_TILING_LINEAR,
    VK_IMAGE_TILING_OPTIMAL,
    VK_IMAGE_TYPE_2D,
    VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT,
    VK_IMAGE_USAGE_TRANSFER_SRC_BIT,
    VK_IMAGE_VIEW_TYPE_2D,
    VK_PIPELINE_BIND_POINT_COMPUTE,
    VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
    VK_PIPELINE_STAGE_HOST_BIT,
    VK_PIPELINE_STAGE_TRANSFER_BIT,
    VK_PRIMITIVE_TOPOLOGY_TRIANGLE_LIST,
    VK_SAMPLE_COUNT_1_BIT,
    VK_SHADER_STAGE_ALL,
    VK_SHADER_STAGE_COMPUTE_BIT,
    VK_SHADER_STAGE_VERTEX_BIT,
)

if TYPE_CHECKING:
    from hesper.kernel.views import View


BUFFER_SIZE = 65536
IMAGE_SIZE = 64
PUSHED_SIZE = 64
GROUP_SIZE = 64
"""Invocations of a workgroup of both compute shaders."""


class Workplace:
    """Everything the loops work with, on one device."""

    def __init__(self, device: Device) -> None:
        """Make it, and see that copying and computing give the right bytes.

        Raises `VulkanError`.
        """
        self.device = device
        memory = device.memory
        self.set_layout = self._set_layout()
        self.layout = self._pipeline_layout()
        self.set = self._set()
        self.source, source_memory = device.buffer(BUFFER_SIZE, HOST_MEMORY)
        self.target, target_memory = device.buffer(BUFFER_SIZE, HOST_MEMORY)
        self.source_address = device.map(source_memory, BUFFER_SIZE)
        self.target_address = device.map(target_memory, BUFFER_SIZE)
        self.buffer_info = memory.array("VkDescriptorBufferInfo", 1)
        self.buffer_info[0].buffer = self.target
        self.buffer_info[0].range = 4096
        self.write = memory.array("VkWriteDescriptorSet", 1)
        self.write[0].dstSet = self.set
        self.write[0].descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER
        self.write[0].pBufferInfo = self.buffer_info
        self.write[0].descriptorCount = 1
        self.compute = self._compute_pipeline(TRANSFORM)
        self.command_buffer = self._command_buffer()
        self.submit = memory.array("VkSubmitInfo", 1)
        buffers = memory.array("VkCommandBuffer", 1)
        buffers[0] = self.command_buffer
        self.submit[0].pCommandBuffers = buffers
        self.submit[0].commandBufferCount = 1
        self.begin = memory.new(
            "VkCommandBufferBeginInfo", flags=VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT
        )
        self._describe_target(BUFFER_SIZE)
        self._prove()

    @property
    def submit_info(self) -> int:
        """Address of the VkSubmitInfo of the command buffer."""
        return self.submit.address_

    def scene(self) -> Scene:
        """What the command streams work on."""
        scene = Scene()
        render_pass = self._render_pass()
        scene.command_buffer = self.command_buffer
        scene.layout = self.layout
        scene.set = self.set
        scene.graphics = self._graphics_pipeline(render_pass)
        scene.compute = self.compute
        scene.source = self.source
        scene.target = self.target
        scene.begin = self.begin.address_
        scene.render_pass = self._pass_begin(render_pass).address_
        scene.submit = self.submit_info
        return scene

    def linear_image(self) -> int:
        """An image whose layout can be asked for."""
        return self._image(VK_IMAGE_TILING_LINEAR)

    def record_copy(self, source: int, target: int, size: int) -> None:
        """Record one copy between buffers."""
        region = self.device.memory.array("VkBufferCopy", 1)
        region[0].size = size
        self._begin()
        self._command("vkCmdCopyBuffer", source, target, 1, region)
        self._end()

    def record_arithmetic(self, pipeline: int, groups: int, steps: int) -> None:
        """Record one dispatch of what `arithmetic_pipeline` has given."""
        self._begin()
        self._dispatch(pipeline, groups, steps)
        self._end()

    def arithmetic_pipeline(self) -> int:
        """The pipeline that does nothing but multiply and add."""
        return self._compute_pipeline(ARITHMETIC)

    def _describe_target(self, size: int) -> None:
        self.buffer_info[0].range = size
        self.device.call("vkUpdateDescriptorSets", 1, self.write, 0, None)

    def _prove(self) -> None:
        """Copy, compute, and compare with what the processor makes of it."""
        words = BUFFER_SIZE // 4
        array = ctypes.c_uint32 * words
        given = array.from_address(self.source_address)
        given[:] = [index * 2654435761 & 0xFFFFFFFF for index in range(words)]
        ctypes.memset(self.target_address, 0, BUFFER_SIZE)
        region = self.device.memory.array("VkBufferCopy", 1)
        region[0].size = BUFFER_SIZE
        self._begin()
        self._command("vkCmdCopyBuffer", self.source, self.target, 1, region)
        self._barrier(
            (VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_WRITE_BIT),
            (
                VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT,
            ),
        )
        self._dispatch(self.compute, words // GROUP_SIZE, 7)
        self._barrier(
            (VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT),
            (VK_PIPELINE_STAGE_HOST_BIT, VK_ACCESS_HOST_READ_BIT),
        )
        self._end()
        self.device.loops.run(self.submit_info)
        got = list(array.from_address(self.target_address))
        if got != [(each * 3 + 7) & 0xFFFFFFFF for each in given]:
            raise VulkanError("a copy and a dispatch have given wrong bytes: measuring is no use")

    def _command(self, name: str, *arguments: object) -> None:
        self.device.table.call(name, self.command_buffer, *arguments)  # type: ignore[arg-type]

    def _begin(self) -> None:
        self._command("vkBeginCommandBuffer", self.begin)

    def _end(self) -> None:
        self._command("vkEndCommandBuffer")

    def _barrier(self, before: tuple[int, int], after: tuple[int, int]) -> None:
        barrier = self.device.memory.array("VkMemoryBarrier", 1)
        barrier[0].srcAccessMask = before[1]
        barrier[0].dstAccessMask = after[1]
        self._command("vkCmdPipelineBarrier", before[0], after[0], 0, 1, barrier, 0, None, 0, None)

    def _dispatch(self, pipeline: int, groups: int, pushed: int) -> None:
        point = VK_PIPELINE_BIND_POINT_COMPUTE
        values = self.device.memory.array("uint32_t", PUSHED_SIZE // 4)
        values[0] = pushed
        sets = self.device.memory.array("VkDescriptorSet", 1)
        sets[0] = self.set
        self._command("vkCmdBindPipeline", point, pipeline)
        self._command("vkCmdBindDescriptorSets", point, self.layout, 0, 1, sets, 0, None)
        self._command(
            "vkCmdPushConstants", self.layout, VK_SHADER_STAGE_ALL, 0, PUSHED_SIZE, values
        )
        self._command("vkCmdDispatch", groups, 1, 1)

    def _set_layout(self) -> int:
        bindings = self.device.memory.array("VkDescriptorSetLayoutBinding", 1)
        bindings[0].descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER
        bindings[0].stageFlags = VK_SHADER_STAGE_ALL
        bindings[0].descriptorCount = 1
        info = self.device.memory.new("VkDescriptorSetLayoutCreateInfo", pBindings=bindings)
        info.bindingCount = 1
        return self.device.create("vkCreateDescriptorSetLayout", info)

    def _pipeline_layout(self) -> int:
        ranges = self.device.memory.array("VkPushConstantRange", 1)
        ranges[0].stageFlags = VK_SHADER_STAGE_ALL
        ranges[0].size = PUSHED_SIZE
        layouts = self.device.memory.array("VkDescriptorSetLayout", 1)
        layouts[0] = self.set_layout
        info = self.device.memory.new("VkPipelineLayoutCreateInfo")
        info.pSetLayouts, info.setLayoutCount = layouts, 1
        info.pPushConstantRanges, info.pushConstantRangeCount = ranges, 1
        return self.device.create("vkCreatePipelineLayout", info)

    def _set(self) -> int:
        sizes = self.device.memory.array("VkDescriptorPoolSize", 1)
        sizes[0].type = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER
        sizes[0].descriptorCount = 1
        info = self.device.memory.new("VkDescriptorPoolCreateInfo", maxSets=1)
        info.pPoolSizes, info.poolSizeCount = sizes, 1
        pool = self.device.create("vkCreateDescriptorPool", info)
        layouts = self.device.memory.array("VkDescriptorSetLayout", 1)
        layouts[0] = self.set_layout
        wanted = self.device.memory.new("VkDescriptorSetAllocateInfo", descriptorPool=pool)
        wanted.pSetLayouts, wanted.descriptorSetCount = layouts, 1
        sets = self.device.memory.array("VkDescriptorSet", 1)
        self.device.call("vkAllocateDescriptorSets", wanted, sets)
        return int(sets[0])

    def _command_buffer(self) -> int:
        info = self.device.memory.new(
            "VkCommandPoolCreateInfo",
            flags=VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
            queueFamilyIndex=self.device.family,
        )
        pool = self.device.create("vkCreateCommandPool", info)
        wanted = self.device.memory.new(
            "VkCommandBufferAllocateInfo", commandPool=pool, commandBufferCount=1
        )
        buffers = self.device.memory.array("VkCommandBuffer", 1)
        self.device.call("vkAllocateCommandBuffers", wanted, buffers)
        return int(buffers[0])

    def _stage(self, words: tuple[int, ...], stage: int) -> View:
        return self.device.memory.new(
            "VkPipelineShaderStageCreateInfo",
            stage=stage,
            module=self.device.shader(words),
            pName="main",
        )

    def _pipelines(self, command: str, infos: object) -> int:
        made = self.device.memory.array("VkPipeline", 1)
        self.device.call(command, 0, 1, infos, None, made)
        return int(made[0])

    def _compute_pipeline(self, words: tuple[int, ...]) -> int:
        infos = self.device.memory.array("VkComputePipelineCreateInfo", 1)
        infos[0].stage = self._stage(words, VK_SHADER_STAGE_COMPUTE_BIT)
        infos[0].layout = self.layout
        return self._pipelines("vkCreateComputePipelines", infos)

    def _graphics_pipeline(self, render_pass: int) -> int:
        new, array = self.device.memory.new, self.device.memory.array
        stages = array("VkPipelineShaderStageCreateInfo", 1)
        stages[0].copy_(self._stage(CORNER, VK_SHADER_STAGE_VERTEX_BIT))
        viewports = array("VkViewport", 1)
        viewports[0].width = viewports[0].height = float(IMAGE_SIZE)
        viewports[0].maxDepth = 1.0
        scissors = array("VkRect2D", 1)
        scissors[0].extent.width = scissors[0].extent.height = IMAGE_SIZE
        viewport = new("VkPipelineViewportStateCreateInfo")
        viewport.pViewports, viewport.viewportCount = viewports, 1
        viewport.pScissors, viewport.scissorCount = scissors, 1
        infos = array("VkGraphicsPipelineCreateInfo", 1)
        info = infos[0]
        info.pStages, info.stageCount = stages, 1
        info.pVertexInputState = new("VkPipelineVertexInputStateCreateInfo")
        info.pInputAssemblyState = new(
            "VkPipelineInputAssemblyStateCreateInfo", topology=VK_PRIMITIVE_TOPOLOGY_TRIANGLE_LIST
        )
        info.pViewportState = viewport
        info.pRasterizationState = new(
            "VkPipelineRasterizationStateCreateInfo", rasterizerDiscardEnable=1, lineWidth=1.0
        )
        info.layout = self.layout
        info.renderPass = render_pass
        return self._pipelines("vkCreateGraphicsPipelines", infos)

    def _image(self, tiling: int) -> int:
        info = self.device.memory.new(
            "VkImageCreateInfo",
            imageType=VK_IMAGE_TYPE_2D,
            format=VK_FORMAT_R8G8B8A8_UNORM,
            mipLevels=1,
            arrayLayers=1,
            samples=VK_SAMPLE_COUNT_1_BIT,
            tiling=tiling,
            usage=VK_IMAGE_USAGE_TRANSFER_SRC_BIT
            | (VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT if tiling == VK_IMAGE_TILING_OPTIMAL else 0),
        )
        info.extent.width = info.extent.height = IMAGE_SIZE
        info.extent.depth = 1
        return self.device.create("vkCreateImage", info)

    def _render_pass(self) -> int:
        array = self.device.memory.array
        attachments = array("VkAttachmentDescription", 1)
        attachments[0].format = VK_FORMAT_R8G8B8A8_UNORM
        attachments[0].samples = VK_SAMPLE_COUNT_1_BIT
        attachments[0].loadOp = VK_ATTACHMENT_LOAD_OP_CLEAR
        attachments[0].finalLayout = VK_IMAGE_LAYOUT_GENERAL
        references = array("VkAttachmentReference", 1)
        references[0].layout = VK_IMAGE_LAYOUT_GENERAL
        subpasses = array("VkSubpassDescription", 1)
        subpasses[0].pColorAttachments = references
        subpasses[0].colorAttachmentCount = 1
        info = self.device.memory.new("VkRenderPassCreateInfo")
        info.pAttachments, info.attachmentCount = attachments, 1
        info.pSubpasses, info.subpassCount = subpasses, 1
        return self.device.create("vkCreateRenderPass", info)

    def _pass_begin(self, render_pass: int) -> View:
        """A VkRenderPassBeginInfo for an image of its own."""
        device, new = self.device, self.device.memory.new
        image = self._image(VK_IMAGE_TILING_OPTIMAL)
        needs = new("VkMemoryRequirements")
        device.call("vkGetImageMemoryRequirements", image, needs)
        device.call("vkBindImageMemory", image, device.allocate(needs, 0), 0)
        info = new(
            "VkImageViewCreateInfo",
            image=image,
            viewType=VK_IMAGE_VIEW_TYPE_2D,
            format=VK_FORMAT_R8G8B8A8_UNORM,
        )
        info.subresourceRange.aspectMask = VK_IMAGE_ASPECT_COLOR_BIT
        info.subresourceRange.levelCount = info.subresourceRange.layerCount = 1
        views = device.memory.array("VkImageView", 1)
        views[0] = device.create("vkCreateImageView", info)
        frame = new(
            "VkFramebufferCreateInfo",
            renderPass=render_pass,
            width=IMAGE_SIZE,
            height=IMAGE_SIZE,
            layers=1,
        )
        frame.pAttachments, frame.attachmentCount = views, 1
        clear = device.memory.array("VkClearValue", 1)
        begin = new(
            "VkRenderPassBeginInfo",
            renderPass=render_pass,
            framebuffer=device.create("vkCreateFramebuffer", frame),
        )
        begin.renderArea.extent.width = begin.renderArea.extent.height = IMAGE_SIZE
        begin.pClearValues, begin.clearValueCount = clear, 1
        return begin
