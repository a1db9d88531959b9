# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, embedsignature=False
"""The loops that are timed; `loops.pyi` says what they offer.

Functions come straight from the driver (vkGetDeviceProcAddr).  Nothing in a loop touches Python.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from hesper.bench.client.vulkan cimport *

cdef extern from "threads.h" nogil:
    uint64_t hesper_now_ns()

cdef extern nogil:
    unsigned hesper_bench_cut()

ctypedef void *(*get_device_proc_addr)(VkDevice device, const char *name) noexcept nogil

cdef enum:
    WAIT_NS = 60000000000       # a fence that takes a minute never comes
    PUSHED_WORDS = 16           # of push constants

cdef enum Kind:
    KIND_PUSH = 0
    KIND_DRAW
    KIND_DISPATCH
    KIND_COPY
    KIND_MIXED
    KIND_BARE

PUSH, DRAW, DISPATCH, COPY, MIXED, BARE = range(KIND_BARE + 1)


class VulkanError(Exception):
    pass


cdef class Scene:
    cdef public uint64_t command_buffer
    cdef public uint64_t layout
    cdef public uint64_t set
    cdef public uint64_t graphics
    cdef public uint64_t compute
    cdef public uint64_t source
    cdef public uint64_t target
    cdef public uint64_t begin
    cdef public uint64_t render_pass
    cdef public uint64_t submit


cdef struct Times:
    uint64_t *first
    uint64_t *second


cdef object times_to_lists(Times times, size_t count, object pairs):
    """Take the times over into Python and free them."""
    first = [times.first[i] for i in range(count)]
    second = [times.second[i] for i in range(count)] if pairs else None
    free(times.first)
    free(times.second)
    return (first, second) if pairs else first


cdef Times new_times(size_t count, bint pairs) except *:
    cdef Times times
    # Cleared by writing, so that no page of it is touched first while the clock runs.
    times.first = <uint64_t *>calloc(count + 1, 8)
    times.second = <uint64_t *>calloc(count + 1 if pairs else 1, 8)
    if times.first == NULL or times.second == NULL:
        raise MemoryError
    for i in range(count):
        times.first[i] = 1
        if pairs:
            times.second[i] = 1
    return times


cdef int check(VkResult result, str what) except -1:
    if result < 0:
        raise VulkanError(f"{what} failed with VkResult {result}")
    return 0


cdef class Loops:
    cdef VkDevice device
    cdef VkQueue queue
    cdef VkFence fence
    cdef PFN_vkBeginCommandBuffer begin
    cdef PFN_vkEndCommandBuffer end
    cdef PFN_vkCmdBeginRenderPass begin_pass
    cdef PFN_vkCmdEndRenderPass end_pass
    cdef PFN_vkCmdBindPipeline bind_pipeline
    cdef PFN_vkCmdBindDescriptorSets bind_sets
    cdef PFN_vkCmdPushConstants push
    cdef PFN_vkCmdDraw draw
    cdef PFN_vkCmdDispatch dispatch
    cdef PFN_vkCmdCopyBuffer copy
    cdef PFN_vkQueueSubmit queue_submit
    cdef PFN_vkWaitForFences wait_fences
    cdef PFN_vkResetFences reset_fences
    cdef PFN_vkGetPipelineCacheData cache_data
    cdef PFN_vkGetImageSubresourceLayout image_layout
    cdef PFN_vkAllocateMemory allocate
    cdef PFN_vkFreeMemory release
    cdef PFN_vkMapMemory map
    cdef PFN_vkUnmapMemory unmap
    cdef PFN_vkCreateBuffer create_buffer
    cdef PFN_vkDestroyBuffer destroy_buffer
    cdef PFN_vkUpdateDescriptorSets update_sets

    def __init__(self, uint64_t get_proc_addr, uint64_t device, uint64_t queue, uint64_t fence):
        cdef get_device_proc_addr get = <get_device_proc_addr>get_proc_addr
        cdef VkDevice d = <VkDevice>device
        self.device = d
        self.queue = <VkQueue>queue
        self.fence = <VkFence>fence
        self.begin = <PFN_vkBeginCommandBuffer>get(d, b"vkBeginCommandBuffer")
        self.end = <PFN_vkEndCommandBuffer>get(d, b"vkEndCommandBuffer")
        self.begin_pass = <PFN_vkCmdBeginRenderPass>get(d, b"vkCmdBeginRenderPass")
        self.end_pass = <PFN_vkCmdEndRenderPass>get(d, b"vkCmdEndRenderPass")
        self.bind_pipeline = <PFN_vkCmdBindPipeline>get(d, b"vkCmdBindPipeline")
        self.bind_sets = <PFN_vkCmdBindDescriptorSets>get(d, b"vkCmdBindDescriptorSets")
        self.push = <PFN_vkCmdPushConstants>get(d, b"vkCmdPushConstants")
        self.draw = <PFN_vkCmdDraw>get(d, b"vkCmdDraw")
        self.dispatch = <PFN_vkCmdDispatch>get(d, b"vkCmdDispatch")
        self.copy = <PFN_vkCmdCopyBuffer>get(d, b"vkCmdCopyBuffer")
        self.queue_submit = <PFN_vkQueueSubmit>get(d, b"vkQueueSubmit")
        self.wait_fences = <PFN_vkWaitForFences>get(d, b"vkWaitForFences")
        self.reset_fences = <PFN_vkResetFences>get(d, b"vkResetFences")
        self.cache_data = <PFN_vkGetPipelineCacheData>get(d, b"vkGetPipelineCacheData")
        self.image_layout = <PFN_vkGetImageSubresourceLayout>get(d, b"vkGetImageSubresourceLayout")
        self.allocate = <PFN_vkAllocateMemory>get(d, b"vkAllocateMemory")
        self.release = <PFN_vkFreeMemory>get(d, b"vkFreeMemory")
        self.map = <PFN_vkMapMemory>get(d, b"vkMapMemory")
        self.unmap = <PFN_vkUnmapMemory>get(d, b"vkUnmapMemory")
        self.create_buffer = <PFN_vkCreateBuffer>get(d, b"vkCreateBuffer")
        self.destroy_buffer = <PFN_vkDestroyBuffer>get(d, b"vkDestroyBuffer")
        self.update_sets = <PFN_vkUpdateDescriptorSets>get(d, b"vkUpdateDescriptorSets")

    cdef VkResult record(self, int kind, uint32_t count, Scene scene) noexcept nogil:
        """Record `count` commands of one kind, and what they need around them."""
        cdef VkCommandBuffer commands = <VkCommandBuffer>scene.command_buffer
        cdef VkPipelineLayout layout = <VkPipelineLayout>scene.layout
        cdef VkDescriptorSet set = <VkDescriptorSet>scene.set
        cdef VkPipeline graphics = <VkPipeline>scene.graphics
        cdef VkBuffer source = <VkBuffer>scene.source
        cdef VkBuffer target = <VkBuffer>scene.target
        cdef uint32_t pushed[PUSHED_WORDS]
        cdef VkBufferCopy region
        cdef uint32_t i
        cdef uint32_t _i
        cdef bint drawing = kind == KIND_DRAW or kind == KIND_MIXED
        cdef VkResult result
        for i in range(PUSHED_WORDS):
            pushed[i] = 0
        region.srcOffset = 0
        region.size = 64
        result = self.begin(commands, <const VkCommandBufferBeginInfo *>scene.begin)
        if result < 0:
            return result
        if kind == KIND_DISPATCH:
            self.bind_pipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE,
                               <VkPipeline>scene.compute)
            self.bind_sets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, layout, 0, 1, &set, 0, NULL)
        if drawing:
            self.begin_pass(commands, <const VkRenderPassBeginInfo *>scene.render_pass,
                            VK_SUBPASS_CONTENTS_INLINE)
            self.bind_pipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, graphics)
            self.bind_sets(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, layout, 0, 1, &set, 0, NULL)
        if kind == KIND_PUSH:
            for i in range(count):
                pushed[0] = i
                self.push(commands, layout, VK_SHADER_STAGE_ALL, 0, sizeof(pushed), pushed)
        elif kind == KIND_DRAW:
            for _i in range(count):
                self.draw(commands, 3, 0, 0, 0)
        elif kind == KIND_DISPATCH:
            for _i in range(count):
                self.dispatch(commands, 0, 1, 1)
        elif kind == KIND_COPY:
            for i in range(count):
                region.dstOffset = (i & 1023) * 64
                self.copy(commands, source, target, 1, &region)
        elif kind == KIND_MIXED:
            for i in range(count // 4):
                pushed[0] = i
                self.bind_pipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, graphics)
                self.bind_sets(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, layout, 0, 1, &set, 0,
                               NULL)
                self.push(commands, layout, VK_SHADER_STAGE_ALL, 0, sizeof(pushed), pushed)
                self.draw(commands, 3, 0, 0, 0)
        if drawing:
            self.end_pass(commands)
        return self.end(commands)

    cdef VkResult submit_and_wait(self, const VkSubmitInfo *info, uint64_t *submitted,
                                  uint64_t *done) noexcept nogil:
        cdef VkResult result = self.queue_submit(self.queue, 1 if info != NULL else 0, info,
                                                 self.fence)
        submitted[0] = hesper_now_ns()
        if result < 0:
            return result
        result = self.wait_fences(self.device, 1, &self.fence, 1, WAIT_NS)
        done[0] = hesper_now_ns()
        if result != 0:
            return result if result < 0 else -4     # a time-out is VK_ERROR_DEVICE_LOST to us
        return self.reset_fences(self.device, 1, &self.fence)

    def stream(self, int kind, uint32_t count, Scene scene not None):
        cdef uint64_t start
        cdef uint64_t recorded
        cdef uint64_t submitted
        cdef uint64_t done
        cdef VkResult result
        with nogil:
            start = hesper_now_ns()
            result = self.record(kind, count, scene)
            recorded = hesper_now_ns()
            if result >= 0:
                result = self.submit_and_wait(<const VkSubmitInfo *>scene.submit, &submitted,
                                              &done)
        check(result, "a command stream")
        return recorded - start, done - start

    def record_only(self, int kind, uint32_t count, Scene scene not None):
        cdef VkResult result
        with nogil:
            result = self.record(kind, count, scene)
        check(result, "recording")

    def run(self, uint64_t submit):
        cdef uint64_t start
        cdef uint64_t submitted
        cdef uint64_t done
        cdef VkResult result
        with nogil:
            start = hesper_now_ns()
            result = self.submit_and_wait(<const VkSubmitInfo *>submit, &submitted, &done)
        check(result, "a submission")
        return done - start

    def submits(self, size_t count, uint64_t submit):
        cdef Times times = new_times(count, True)
        cdef uint64_t start
        cdef uint64_t submitted
        cdef uint64_t done
        cdef VkResult result = 0
        cdef size_t i
        with nogil:
            for i in range(count):
                start = hesper_now_ns()
                result = self.submit_and_wait(<const VkSubmitInfo *>submit, &submitted, &done)
                if result < 0:
                    break
                times.first[i] = submitted - start
                times.second[i] = done - submitted
        lists = times_to_lists(times, count, True)
        check(result, "a submission")
        return lists

    def round_trips(self, size_t count, uint64_t cache):
        cdef Times times = new_times(count, False)
        cdef uint64_t start
        cdef size_t size
        cdef size_t i
        cdef VkResult result = 0
        with nogil:
            for i in range(count):
                size = 0
                start = hesper_now_ns()
                result = self.cache_data(self.device, <VkPipelineCache>cache, &size, NULL)
                times.first[i] = hesper_now_ns() - start
                if result < 0:
                    break
        found = times_to_lists(times, count, False)
        check(result, "vkGetPipelineCacheData")
        return found

    def layouts(self, size_t count, uint64_t image):
        cdef Times times = new_times(count, False)
        cdef VkImageSubresource part
        cdef VkSubresourceLayout layout
        cdef uint64_t start
        cdef size_t i
        part.aspectMask = VK_IMAGE_ASPECT_COLOR_BIT
        part.mipLevel = 0
        part.arrayLayer = 0
        with nogil:
            for i in range(count):
                start = hesper_now_ns()
                self.image_layout(self.device, <VkImage>image, &part, &layout)
                times.first[i] = hesper_now_ns() - start
        return times_to_lists(times, count, False)

    def allocations(self, size_t count, uint64_t size, uint32_t memory_type, bint touch):
        cdef Times times = new_times(count, False)
        cdef VkMemoryAllocateInfo info
        cdef VkDeviceMemory memory
        cdef void *address
        cdef uint64_t start
        cdef size_t i
        cdef VkResult result = 0
        info.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO
        info.pNext = NULL
        info.allocationSize = size
        info.memoryTypeIndex = memory_type
        with nogil:
            for i in range(count):
                start = hesper_now_ns()
                result = self.allocate(self.device, &info, NULL, &memory)
                if result < 0:
                    break
                if touch:
                    result = self.map(self.device, memory, 0, size, 0, &address)
                    if result < 0:
                        break
                    (<volatile uint8_t *>address)[0] = 1
                    self.unmap(self.device, memory)
                self.release(self.device, memory, NULL)
                times.first[i] = hesper_now_ns() - start
        found = times_to_lists(times, count, False)
        check(result, "allocating memory")
        return found

    def buffers(self, size_t count, uint64_t info, uint64_t cache):
        cdef VkBuffer buffer
        cdef uint64_t start = hesper_now_ns()
        cdef size_t size = 0
        cdef size_t _i
        cdef VkResult result = 0
        with nogil:
            for _i in range(count):
                result = self.create_buffer(self.device, <const VkBufferCreateInfo *>info, NULL,
                                            &buffer)
                if result < 0:
                    break
                self.destroy_buffer(self.device, buffer, NULL)
            if result >= 0:
                result = self.cache_data(self.device, <VkPipelineCache>cache, &size, NULL)
        check(result, "creating buffers")
        return hesper_now_ns() - start

    def descriptors(self, size_t count, uint64_t write, uint64_t buffer_info, uint64_t cache):
        cdef VkDescriptorBufferInfo *info = <VkDescriptorBufferInfo *>buffer_info
        cdef uint64_t start = hesper_now_ns()
        cdef size_t size = 0
        cdef size_t i
        cdef VkResult result
        with nogil:
            for i in range(count):
                info.offset = (i & 15) * 256
                self.update_sets(self.device, 1, <const VkWriteDescriptorSet *>write, 0, NULL)
            result = self.cache_data(self.device, <VkPipelineCache>cache, &size, NULL)
        check(result, "updating descriptors")
        return hesper_now_ns() - start


def copy_bytes(uint64_t target, uint64_t source, size_t size):
    cdef uint64_t start
    cdef uint64_t end
    with nogil:
        start = hesper_now_ns()
        memcpy(<void *>target, <const void *>source, size)
        end = hesper_now_ns()
    return end - start


def cut():
    return hesper_bench_cut()
