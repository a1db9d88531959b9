"""What the loops use of `vulkan_core.h`."""

from libc.stdint cimport int32_t, uint32_t, uint64_t


cdef extern from "vulkan_core.h" nogil:
    ctypedef void *VkDevice
    ctypedef void *VkQueue
    ctypedef void *VkCommandBuffer
    ctypedef void *VkFence
    ctypedef void *VkBuffer
    ctypedef void *VkImage
    ctypedef void *VkDeviceMemory
    ctypedef void *VkPipeline
    ctypedef void *VkPipelineCache
    ctypedef void *VkPipelineLayout
    ctypedef void *VkDescriptorSet
    ctypedef int32_t VkResult
    ctypedef uint64_t VkDeviceSize

    enum:
        VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO
        VK_SHADER_STAGE_ALL
        VK_PIPELINE_BIND_POINT_GRAPHICS
        VK_PIPELINE_BIND_POINT_COMPUTE
        VK_SUBPASS_CONTENTS_INLINE
        VK_IMAGE_ASPECT_COLOR_BIT

    ctypedef struct VkBufferCopy:
        VkDeviceSize srcOffset
        VkDeviceSize dstOffset
        VkDeviceSize size
    ctypedef struct VkMemoryAllocateInfo:
        int32_t sType
        const void *pNext
        VkDeviceSize allocationSize
        uint32_t memoryTypeIndex
    ctypedef struct VkDescriptorBufferInfo:
        VkBuffer buffer
        VkDeviceSize offset
        VkDeviceSize range
    ctypedef struct VkImageSubresource:
        uint32_t aspectMask
        uint32_t mipLevel
        uint32_t arrayLayer
    ctypedef struct VkSubresourceLayout:
        VkDeviceSize offset
    ctypedef struct VkSubmitInfo:
        pass
    ctypedef struct VkBufferCreateInfo:
        pass
    ctypedef struct VkWriteDescriptorSet:
        pass
    ctypedef struct VkCommandBufferBeginInfo:
        pass
    ctypedef struct VkRenderPassBeginInfo:
        pass

    ctypedef VkResult (*PFN_vkBeginCommandBuffer)(
        VkCommandBuffer, const VkCommandBufferBeginInfo *) noexcept nogil
    ctypedef VkResult (*PFN_vkEndCommandBuffer)(VkCommandBuffer) noexcept nogil
    ctypedef void (*PFN_vkCmdBeginRenderPass)(
        VkCommandBuffer, const VkRenderPassBeginInfo *, int) noexcept nogil
    ctypedef void (*PFN_vkCmdEndRenderPass)(VkCommandBuffer) noexcept nogil
    ctypedef void (*PFN_vkCmdBindPipeline)(VkCommandBuffer, int, VkPipeline) noexcept nogil
    ctypedef void (*PFN_vkCmdBindDescriptorSets)(
        VkCommandBuffer, int, VkPipelineLayout, uint32_t, uint32_t, const VkDescriptorSet *,
        uint32_t, const uint32_t *) noexcept nogil
    ctypedef void (*PFN_vkCmdPushConstants)(
        VkCommandBuffer, VkPipelineLayout, uint32_t, uint32_t, uint32_t,
        const void *) noexcept nogil
    ctypedef void (*PFN_vkCmdDraw)(
        VkCommandBuffer, uint32_t, uint32_t, uint32_t, uint32_t) noexcept nogil
    ctypedef void (*PFN_vkCmdDispatch)(
        VkCommandBuffer, uint32_t, uint32_t, uint32_t) noexcept nogil
    ctypedef void (*PFN_vkCmdCopyBuffer)(
        VkCommandBuffer, VkBuffer, VkBuffer, uint32_t, const VkBufferCopy *) noexcept nogil
    ctypedef VkResult (*PFN_vkQueueSubmit)(
        VkQueue, uint32_t, const VkSubmitInfo *, VkFence) noexcept nogil
    ctypedef VkResult (*PFN_vkWaitForFences)(
        VkDevice, uint32_t, const VkFence *, uint32_t, uint64_t) noexcept nogil
    ctypedef VkResult (*PFN_vkResetFences)(VkDevice, uint32_t, const VkFence *) noexcept nogil
    ctypedef VkResult (*PFN_vkGetPipelineCacheData)(
        VkDevice, VkPipelineCache, size_t *, void *) noexcept nogil
    ctypedef void (*PFN_vkGetImageSubresourceLayout)(
        VkDevice, VkImage, const VkImageSubresource *, VkSubresourceLayout *) noexcept nogil
    ctypedef VkResult (*PFN_vkAllocateMemory)(
        VkDevice, const VkMemoryAllocateInfo *, const void *, VkDeviceMemory *) noexcept nogil
    ctypedef void (*PFN_vkFreeMemory)(VkDevice, VkDeviceMemory, const void *) noexcept nogil
    ctypedef VkResult (*PFN_vkMapMemory)(
        VkDevice, VkDeviceMemory, VkDeviceSize, VkDeviceSize, uint32_t, void **) noexcept nogil
    ctypedef void (*PFN_vkUnmapMemory)(VkDevice, VkDeviceMemory) noexcept nogil
    ctypedef VkResult (*PFN_vkCreateBuffer)(
        VkDevice, const VkBufferCreateInfo *, const void *, VkBuffer *) noexcept nogil
    ctypedef void (*PFN_vkDestroyBuffer)(VkDevice, VkBuffer, const void *) noexcept nogil
    ctypedef void (*PFN_vkUpdateDescriptorSets)(
        VkDevice, uint32_t, const VkWriteDescriptorSet *, uint32_t, const void *) noexcept nogil
