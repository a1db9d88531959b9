"""A Vulkan device to measure on: instance, device, queue, and what the loops work with."""

from __future__ import annotations

import ctypes
import time
from typing import Any

from hesper.bench.client.loops import Loops, VulkanError
from hesper.host.loader import find_loader
from hesper.kernel.views import Scratch, View
from hesper.kernel.vulkan import ProcTable, Vulkan
from hesper.vk.enumerants import (
    VK_API_VERSION_1_1,
    VK_BUFFER_USAGE_STORAGE_BUFFER_BIT,
    VK_BUFFER_USAGE_TRANSFER_DST_BIT,
    VK_BUFFER_USAGE_TRANSFER_SRC_BIT,
    VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
    VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT,
    VK_PHYSICAL_DEVICE_TYPE_CPU,
    VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU,
    VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU,
    VK_PHYSICAL_DEVICE_TYPE_OTHER,
    VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU,
    VK_QUEUE_COMPUTE_BIT,
    VK_QUEUE_GRAPHICS_BIT,
)

HOST_MEMORY = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT
USAGE = (
    VK_BUFFER_USAGE_TRANSFER_SRC_BIT
    | VK_BUFFER_USAGE_TRANSFER_DST_BIT
    | VK_BUFFER_USAGE_STORAGE_BUFFER_BIT
)

_BEST_FIRST = (
    VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU,
    VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU,
    VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU,
    VK_PHYSICAL_DEVICE_TYPE_OTHER,
    VK_PHYSICAL_DEVICE_TYPE_CPU,
)


class Device:
    """The best physical device of the environment's driver, and a logical one on it.

    Life: construct, use, `close` or leave to the end of the process.
    """

    def __init__(self) -> None:
        """Make instance and device.  Raises `VulkanError` when there is none to be had."""
        library = find_loader()
        if library is None:
            raise VulkanError("there is no Vulkan loader")
        self.memory = Scratch()
        vulkan = Vulkan(library)
        application = self.memory.new(
            "VkApplicationInfo", pApplicationName="hesper bench", apiVersion=VK_API_VERSION_1_1
        )
        create = self.memory.new("VkInstanceCreateInfo", pApplicationInfo=application)
        start = time.perf_counter_ns()
        self.instance: int = self._create(vulkan.globals, "vkCreateInstance", create, "VkInstance")
        self.instance_ms = (time.perf_counter_ns() - start) / 1e6
        self.instance_table = vulkan.instance_table(self.instance)
        self.physical, properties = self._choose()
        self.name: str = properties.deviceName
        self.family = self._queue_family()
        start = time.perf_counter_ns()
        self.handle = self._create_device()
        self.device_ms = (time.perf_counter_ns() - start) / 1e6
        self.table = vulkan.device_table(self.instance_table, self.handle)
        self.queue = self._queue()
        self.fence = self.create("vkCreateFence", self.memory.new("VkFenceCreateInfo"))
        self.cache = self.create(
            "vkCreatePipelineCache", self.memory.new("VkPipelineCacheCreateInfo")
        )
        self.loops = Loops(self._get_proc_addr(library), self.handle, self.queue, self.fence)
        types = self.memory.new("VkPhysicalDeviceMemoryProperties")
        self.instance_table.call("vkGetPhysicalDeviceMemoryProperties", self.physical, types)
        self._memory_types = [
            types.memoryTypes[index].propertyFlags for index in range(types.memoryTypeCount)
        ]

    def close(self) -> None:
        """Destroy all that the constructor has made.  Nothing else may be left."""
        self.call("vkDestroyPipelineCache", self.cache, None)
        self.call("vkDestroyFence", self.fence, None)
        self.call("vkDestroyDevice", None)
        self.instance_table.call("vkDestroyInstance", self.instance, None)

    def create(self, command: str, info: View) -> int:
        """Call `vkCreateX` of the device; returns the handle."""
        return self._create(self.table, command, info, "VkBuffer", self.handle)

    def call(self, command: str, *arguments: Any) -> None:
        """Call a command of the device with the device in front."""
        self._checked(command, self.table.call(command, self.handle, *arguments))

    def memory_type(self, allowed: int, wanted: int) -> int:
        """The first memory type of those `allowed` (bits) that has the flags `wanted`."""
        for index, flags in enumerate(self._memory_types):
            if allowed >> index & 1 and flags & wanted == wanted:
                return index
        raise VulkanError(f"no memory type among {allowed:#x} has the properties {wanted:#x}")

    def buffer(self, size: int, wanted: int) -> tuple[int, int]:
        """A buffer with memory that has the properties `wanted`; returns both handles."""
        buffer = self.create(
            "vkCreateBuffer", self.memory.new("VkBufferCreateInfo", size=size, usage=USAGE)
        )
        needs = self.memory.new("VkMemoryRequirements")
        self.call("vkGetBufferMemoryRequirements", buffer, needs)
        memory = self.allocate(needs, wanted)
        self.call("vkBindBufferMemory", buffer, memory, 0)
        return buffer, memory

    def allocate(self, needs: View, wanted: int) -> int:
        """Memory for a VkMemoryRequirements."""
        info = self.memory.new(
            "VkMemoryAllocateInfo",
            allocationSize=needs.size,
            memoryTypeIndex=self.memory_type(needs.memoryTypeBits, wanted),
        )
        return self.create("vkAllocateMemory", info)

    def map(self, memory: int, size: int) -> int:
        """Map memory; returns the address."""
        address = self.memory.array("uint64_t", 1)
        self.call("vkMapMemory", memory, 0, size, 0, address)
        return int(address[0])

    def free_buffer(self, buffer: int, memory: int) -> None:
        """Destroy what `buffer` has made."""
        self.call("vkDestroyBuffer", buffer, None)
        self.call("vkFreeMemory", memory, None)

    def shader(self, words: tuple[int, ...]) -> int:
        """A shader module."""
        code = self.memory.array("uint32_t", len(words))
        for index, word in enumerate(words):
            code[index] = word
        info = self.memory.new("VkShaderModuleCreateInfo", pCode=code)
        info.codeSize = 4 * len(words)
        return self.create("vkCreateShaderModule", info)

    def _create(self, table: ProcTable, command: str, info: View, kind: str, *owner: int) -> int:
        made = self.memory.array(kind, 1)
        self._checked(command, table.call(command, *owner, info, None, made))
        return int(made[0])

    @staticmethod
    def _checked(command: str, result: int) -> None:
        if result < 0:
            raise VulkanError(f"{command} failed with VkResult {result}")

    def _choose(self) -> tuple[int, View]:
        """The physical device that programs would take, and its properties."""
        call, count = self.instance_table.call, self.memory.array("uint32_t", 1)
        self._checked("", call("vkEnumeratePhysicalDevices", self.instance, count, None))
        found = self.memory.array("VkPhysicalDevice", count[0])
        self._checked("", call("vkEnumeratePhysicalDevices", self.instance, count, found))
        described = []
        for handle in found:
            properties = self.memory.new("VkPhysicalDeviceProperties")
            call("vkGetPhysicalDeviceProperties", handle, properties)
            described.append((int(handle), properties))
        if not described:
            raise VulkanError("the driver has no device")
        return min(described, key=lambda each: _BEST_FIRST.index(each[1].deviceType))

    def _queue_family(self) -> int:
        """A queue family that draws and computes."""
        count = self.memory.array("uint32_t", 1)
        command = "vkGetPhysicalDeviceQueueFamilyProperties"
        self.instance_table.call(command, self.physical, count, None)
        families = self.memory.array("VkQueueFamilyProperties", count[0])
        self.instance_table.call(command, self.physical, count, families)
        wanted = VK_QUEUE_GRAPHICS_BIT | VK_QUEUE_COMPUTE_BIT
        for index in range(count[0]):
            if families[index].queueFlags & wanted == wanted:
                return index
        raise VulkanError(f"{self.name} has no queue family that draws and computes")

    def _create_device(self) -> int:
        queues = self.memory.array("VkDeviceQueueCreateInfo", 1)
        queues[0].queueFamilyIndex = self.family
        queues[0].pQueuePriorities = [1.0]
        info = self.memory.new("VkDeviceCreateInfo", pQueueCreateInfos=queues)
        info.queueCreateInfoCount = 1
        table = self.instance_table
        return self._create(table, "vkCreateDevice", info, "VkDevice", self.physical)

    def _queue(self) -> int:
        queue = self.memory.array("VkQueue", 1)
        self.table.call("vkGetDeviceQueue", self.handle, self.family, 0, queue)
        return int(queue[0])

    def _get_proc_addr(self, library: str) -> int:
        """The address of this instance's vkGetDeviceProcAddr."""
        get = ctypes.CDLL(library).vkGetInstanceProcAddr
        get.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        get.restype = ctypes.c_void_p
        return int(get(self.instance, b"vkGetDeviceProcAddr"))
