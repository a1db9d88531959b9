"""A device to try things on: what `hesper.host.trial` makes and destroys again."""

from __future__ import annotations

import contextlib

from hesper.kernel.views import Scratch
from hesper.vk.enumerants import (
    VK_ACCESS_TRANSFER_WRITE_BIT,
    VK_BUFFER_USAGE_STORAGE_BUFFER_BIT,
    VK_BUFFER_USAGE_TRANSFER_DST_BIT,
    VK_BUFFER_USAGE_TRANSFER_SRC_BIT,
    VK_BUFFER_USAGE_VERTEX_BUFFER_BIT,
    VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT,
    VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT,
    VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT,
    VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT,
    VK_FORMAT_R8G8B8A8_UNORM,
    VK_IMAGE_LAYOUT_GENERAL,
    VK_IMAGE_TILING_LINEAR,
    VK_IMAGE_TILING_OPTIMAL,
    VK_IMAGE_TYPE_2D,
    VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT,
    VK_IMAGE_USAGE_SAMPLED_BIT,
    VK_IMAGE_USAGE_TRANSFER_DST_BIT,
    VK_IMAGE_USAGE_TRANSFER_SRC_BIT,
    VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT,
    VK_PIPELINE_STAGE_TRANSFER_BIT,
    VK_QUEUE_SPARSE_BINDING_BIT,
    VK_SAMPLE_COUNT_1_BIT,
    VK_SUCCESS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from hesper.kernel.views import View
    from hesper.kernel.vulkan import ProcTable, Vulkan
    from hesper.portable import SharedMemory

    Made = tuple[int, tuple[int, int, int]]
    """Handle, and the size, alignment and memory types it needs."""

SUCCESS = VK_SUCCESS
HOST_POINTER = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT
OPAQUE_FD = VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT
DMA_BUF = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT
TRANSFERS = VK_IMAGE_USAGE_TRANSFER_SRC_BIT | VK_IMAGE_USAGE_TRANSFER_DST_BIT
SAMPLED, ATTACHMENT = VK_IMAGE_USAGE_SAMPLED_BIT, VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT
BUFFER_USAGE = (
    VK_BUFFER_USAGE_TRANSFER_SRC_BIT
    | VK_BUFFER_USAGE_TRANSFER_DST_BIT
    | VK_BUFFER_USAGE_STORAGE_BUFFER_BIT
    | VK_BUFFER_USAGE_VERTEX_BUFFER_BIT
)
BUFFER_SIZE = 65536
OPTIMAL, LINEAR = VK_IMAGE_TILING_OPTIMAL, VK_IMAGE_TILING_LINEAR
R8G8B8A8 = VK_FORMAT_R8G8B8A8_UNORM

_IMAGE_SIDE = 64
_SECOND = 10**9


class TrialDevice:
    """A VkDevice.  Handles are the host's.  Life: a context manager, once."""

    def __init__(
        self, vulkan: Vulkan, instance: ProcTable, physical: int, extensions: list[str]
    ) -> None:
        """Make one of `physical` with `extensions`, as `with` begins."""
        self._vulkan = vulkan
        self._physical = physical
        self.instance = instance
        self.extensions = extensions
        self.sparse_family = self._find_sparse_family()
        """A queue family that binds sparse memory; -1: none does."""
        self.handle = 0
        self.table = instance

    def __enter__(self) -> TrialDevice:
        """Make the device.  Raises `RuntimeError`."""
        scratch = Scratch()
        families = sorted({0, max(self.sparse_family, 0)})
        queues = scratch.array("VkDeviceQueueCreateInfo", len(families))
        for place, family in enumerate(families):
            queues[place].queueFamilyIndex = family
            queues[place].pQueuePriorities = [1.0]
        info = scratch.new("VkDeviceCreateInfo")
        info.pQueueCreateInfos = queues
        info.queueCreateInfoCount = len(families)
        info.ppEnabledExtensionNames = self.extensions
        if self.sparse_family >= 0:
            info.pEnabledFeatures = scratch.new("VkPhysicalDeviceFeatures", sparseBinding=1)
        made = scratch.array("VkDevice", 1)
        check(self.instance.call("vkCreateDevice", self._physical, info, None, made), "Device")
        self.handle = made[0]
        self.table = self._vulkan.device_table(self.instance, self.handle)
        return self

    def __exit__(self, *_: object) -> None:
        """Destroy it."""
        self.table.call("vkDestroyDevice", self.handle, None)

    # Questions.

    def ask(self, command: str, *arguments: int | View) -> int:
        """Call a command about the physical device; return its VkResult."""
        return self.instance.call(command, self._physical, *arguments)

    def memory_types(self) -> list[tuple[int, int]]:
        """VkMemoryPropertyFlags and heap of each memory type."""
        answer = Scratch().new("VkPhysicalDeviceMemoryProperties")
        self.ask("vkGetPhysicalDeviceMemoryProperties", answer)
        found = [answer.memoryTypes[i] for i in range(answer.memoryTypeCount)]
        return [(each.propertyFlags, each.heapIndex) for each in found]

    def _find_sparse_family(self) -> int:
        scratch = Scratch()
        command = "vkGetPhysicalDeviceQueueFamilyProperties"
        count = scratch.array("uint32_t", 1)
        self.instance.call(command, self._physical, count, None)
        found = scratch.array("VkQueueFamilyProperties", count[0])
        self.instance.call(command, self._physical, count, found)
        features = scratch.new("VkPhysicalDeviceFeatures")
        self.ask("vkGetPhysicalDeviceFeatures", features)
        able = [i for i in range(count[0]) if found[i].queueFlags & VK_QUEUE_SPARSE_BINDING_BIT]
        return able[0] if able and features.sparseBinding else -1

    def states_buffers(self, handle_type: int) -> bool:
        """Whether the driver says that buffers can lie in imported memory."""
        scratch = Scratch()
        question = scratch.new(
            "VkPhysicalDeviceExternalBufferInfo", usage=BUFFER_USAGE, handleType=handle_type
        )
        answer = scratch.new("VkExternalBufferProperties")
        self.ask("vkGetPhysicalDeviceExternalBufferProperties", question, answer)
        return bool(
            answer.externalMemoryProperties.externalMemoryFeatures
            & VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT
        )

    def states_images(self, handle_type: int, tiling: int, usage: int) -> bool:
        """The same of 2D images."""
        scratch = Scratch()
        question = scratch.new(
            "VkPhysicalDeviceImageFormatInfo2",
            format=R8G8B8A8,
            type=VK_IMAGE_TYPE_2D,
            tiling=tiling,
            usage=usage,
        )
        question.push_("VkPhysicalDeviceExternalImageFormatInfo", handleType=handle_type)
        answer = scratch.new("VkImageFormatProperties2")
        external = answer.push_("VkExternalImageFormatProperties")
        if self.ask("vkGetPhysicalDeviceImageFormatProperties2", question, answer) != SUCCESS:
            return False
        return bool(
            external.externalMemoryProperties.externalMemoryFeatures
            & VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT
        )

    # Memory.

    @contextlib.contextmanager
    def allocated(self, info: View) -> Iterator[int]:
        """A VkDeviceMemory, or 0."""
        made = Scratch().array("VkDeviceMemory", 1)
        if self.table.call("vkAllocateMemory", self.handle, info, None, made) != SUCCESS:
            yield 0
            return
        try:
            yield int(made[0])
        finally:
            self.table.call("vkFreeMemory", self.handle, made[0], None)

    @contextlib.contextmanager
    def imported(self, memory: SharedMemory, type_: int) -> Iterator[int]:
        """A VkDeviceMemory of `type_` that lies in `memory`, or 0."""
        info = Scratch().new(
            "VkMemoryAllocateInfo", allocationSize=memory.size, memoryTypeIndex=type_
        )
        info.push_(
            "VkImportMemoryHostPointerInfoEXT",
            handleType=HOST_POINTER,
            pHostPointer=memory.address,
        )
        with self.allocated(info) as made:
            yield made

    # Buffers and images.

    @contextlib.contextmanager
    def buffer(self, handle_type: int, flags: int = 0) -> Iterator[Made]:
        """A buffer, stated for `handle_type` unless that is 0.  Raises `RuntimeError`."""
        info = Scratch().new(
            "VkBufferCreateInfo", size=BUFFER_SIZE, usage=BUFFER_USAGE, flags=flags
        )
        if handle_type:
            info.push_("VkExternalMemoryBufferCreateInfo", handleTypes=handle_type)
        with self._object("Buffer", info) as made:
            yield made

    @contextlib.contextmanager
    def image(
        self, handle_type: int, tiling: int, usage: int = TRANSFERS | SAMPLED
    ) -> Iterator[Made]:
        """A small image, stated for `handle_type` unless that is 0.  Raises `RuntimeError`."""
        info = Scratch().new(
            "VkImageCreateInfo",
            imageType=VK_IMAGE_TYPE_2D,
            format=R8G8B8A8,
            mipLevels=1,
            arrayLayers=1,
            samples=VK_SAMPLE_COUNT_1_BIT,
            tiling=tiling,
            usage=usage,
        )
        info.extent.width = info.extent.height = _IMAGE_SIDE
        info.extent.depth = 1
        if handle_type:
            info.push_("VkExternalMemoryImageCreateInfo", handleTypes=handle_type)
        with self._object("Image", info) as made:
            yield made

    @contextlib.contextmanager
    def _object(self, kind: str, info: View) -> Iterator[Made]:
        scratch = Scratch()
        made = scratch.array(f"Vk{kind}", 1)
        check(self.table.call(f"vkCreate{kind}", self.handle, info, None, made), kind)
        try:
            needs = scratch.new("VkMemoryRequirements")
            self.table.call(f"vkGet{kind}MemoryRequirements", self.handle, made[0], needs)
            yield made[0], (needs.size, needs.alignment, needs.memoryTypeBits)
        finally:
            self.table.call(f"vkDestroy{kind}", self.handle, made[0], None)

    # Work.

    def queue(self, family: int) -> int:
        """The first queue of `family`, which is 0 or the sparse one."""
        found = Scratch().array("VkQueue", 1)
        self.table.call("vkGetDeviceQueue", self.handle, family, 0, found)
        return int(found[0])

    def fill(self, family: int, buffer: int, pattern: int) -> bool:
        """Fill a buffer with a 32-bit `pattern`; whether that was done.  Raises `RuntimeError`."""
        with self._recording(family) as commands:
            self.table.call("vkCmdFillBuffer", commands, buffer, 0, BUFFER_SIZE, pattern)
            return self._run(family, commands)

    def clear(self, image: int) -> bool:
        """Clear a new colour image, to no zeros; whether that was done.  Raises `RuntimeError`."""
        scratch = Scratch()
        whole = scratch.array("VkImageSubresourceRange", 1)
        whole[0].aspectMask = whole[0].levelCount = whole[0].layerCount = 1
        barrier = scratch.array("VkImageMemoryBarrier", 1)
        barrier[0].newLayout = VK_IMAGE_LAYOUT_GENERAL
        barrier[0].dstAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT
        barrier[0].image = image
        barrier[0].subresourceRange.copy_(whole[0])
        colour = scratch.array("float", 4)
        for channel in range(4):
            colour[channel] = 1.0
        with self._recording(0) as commands:
            stages = (VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT, VK_PIPELINE_STAGE_TRANSFER_BIT)
            self.table.call(
                "vkCmdPipelineBarrier", commands, *stages, 0, 0, None, 0, None, 1, barrier
            )
            arguments = (commands, image, VK_IMAGE_LAYOUT_GENERAL, colour, 1, whole)
            self.table.call("vkCmdClearColorImage", *arguments)
            return self._run(0, commands)

    def _run(self, family: int, commands: int) -> bool:
        """End a command buffer and have it done."""
        if self.table.call("vkEndCommandBuffer", commands) != SUCCESS:
            return False
        submit = Scratch().new("VkSubmitInfo")
        submit.pCommandBuffers = [commands]
        with self.fence() as done:
            result = self.table.call("vkQueueSubmit", self.queue(family), 1, submit, done)
            return result == SUCCESS and self.is_signalled(done)

    @contextlib.contextmanager
    def _recording(self, family: int) -> Iterator[int]:
        """A command buffer that was begun.  Raises `RuntimeError`."""
        scratch = Scratch()
        pool = scratch.array("VkCommandPool", 1)
        info = scratch.new("VkCommandPoolCreateInfo", queueFamilyIndex=family)
        check(self.table.call("vkCreateCommandPool", self.handle, info, None, pool), "CommandPool")
        try:
            wanted = scratch.new(
                "VkCommandBufferAllocateInfo", commandPool=pool[0], commandBufferCount=1
            )
            made = scratch.array("VkCommandBuffer", 1)
            self.table.call("vkAllocateCommandBuffers", self.handle, wanted, made)
            begin = scratch.new("VkCommandBufferBeginInfo")
            self.table.call("vkBeginCommandBuffer", made[0], begin)
            yield int(made[0])
        finally:
            self.table.call("vkDestroyCommandPool", self.handle, pool[0], None)

    @contextlib.contextmanager
    def fence(self) -> Iterator[int]:
        """A fence.  Raises `RuntimeError`."""
        scratch = Scratch()
        made = scratch.array("VkFence", 1)
        info = scratch.new("VkFenceCreateInfo")
        check(self.table.call("vkCreateFence", self.handle, info, None, made), "Fence")
        try:
            yield int(made[0])
        finally:
            self.table.call("vkDestroyFence", self.handle, made[0], None)

    def is_signalled(self, fence: int) -> bool:
        """Whether `fence` is within a second."""
        fences = Scratch().array("VkFence", 1)
        fences[0] = fence
        return self.table.call("vkWaitForFences", self.handle, 1, fences, 1, _SECOND) == SUCCESS


def check(result: int, kind: str) -> None:
    """Raise `RuntimeError` unless `result` of vkCreate`kind` is a success."""
    if result != SUCCESS:
        raise RuntimeError(f"vkCreate{kind} failed with VkResult {result}")
