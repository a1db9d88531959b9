/* Null handles: what a driver without nullDescriptor takes for objects. */
#include "driver.h"

static bool is_null(const VkWriteDescriptorSet *write, uint32_t i) {
    switch (write->descriptorType) {
    case VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER:
    case VK_DESCRIPTOR_TYPE_SAMPLED_IMAGE:
    case VK_DESCRIPTOR_TYPE_STORAGE_IMAGE:
    case VK_DESCRIPTOR_TYPE_INPUT_ATTACHMENT:
        return !write->pImageInfo[i].imageView;
    case VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER:
    case VK_DESCRIPTOR_TYPE_STORAGE_BUFFER:
    case VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER_DYNAMIC:
    case VK_DESCRIPTOR_TYPE_STORAGE_BUFFER_DYNAMIC:
        return !write->pBufferInfo[i].buffer;
    case VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER:
    case VK_DESCRIPTOR_TYPE_STORAGE_TEXEL_BUFFER:
        return !write->pTexelBufferView[i];
    default:
        return false;
    }
}

static void check_writes(uint32_t count, const VkWriteDescriptorSet *writes) {
    for (uint32_t i = 0; mode->no_null && i < count; i++)
        for (uint32_t j = 0; j < writes[i].descriptorCount; j++)
            if (is_null(&writes[i], j))
                broken("VUID-VkWriteDescriptorSet-descriptorType-02994",
                       "a null descriptor of type %d", writes[i].descriptorType);
}

static void check_vertices(uint32_t count, const VkBuffer *buffers) {
    for (uint32_t i = 0; mode->no_null && i < count; i++)
        if (!buffers[i])
            broken("VUID-vkCmdBindVertexBuffers-pBuffers-04001", "a null vertex buffer");
}

static VKAPI_ATTR void VKAPI_CALL update(VkDevice device, uint32_t count,
                                         const VkWriteDescriptorSet *writes, uint32_t copy_count,
                                         const VkCopyDescriptorSet *copies) {
    check_writes(count, writes);
    real.vkUpdateDescriptorSets(device, count, writes, copy_count, copies);
}

static VKAPI_ATTR void VKAPI_CALL push(VkCommandBuffer commands, VkPipelineBindPoint point,
                                       VkPipelineLayout layout, uint32_t set, uint32_t count,
                                       const VkWriteDescriptorSet *writes) {
    check_writes(count, writes);
    real.push_set(commands, point, layout, set, count, writes);
}

static VKAPI_ATTR void VKAPI_CALL push2(VkCommandBuffer commands, const struct push_info *info) {
    check_writes(info->count, info->writes);
    real.push_set2(commands, info);
}

static VKAPI_ATTR void VKAPI_CALL vertices(VkCommandBuffer commands, uint32_t first,
                                           uint32_t count, const VkBuffer *buffers,
                                           const VkDeviceSize *offsets) {
    check_vertices(count, buffers);
    real.vkCmdBindVertexBuffers(commands, first, count, buffers, offsets);
}

static VKAPI_ATTR void VKAPI_CALL vertices2(VkCommandBuffer commands, uint32_t first,
                                            uint32_t count, const VkBuffer *buffers,
                                            const VkDeviceSize *offsets, const VkDeviceSize *sizes,
                                            const VkDeviceSize *strides) {
    check_vertices(count, buffers);
    real.vkCmdBindVertexBuffers2(commands, first, count, buffers, offsets, sizes, strides);
}

const struct override null_overrides[] = {
    OVERRIDE("vkUpdateDescriptorSets", update),
    OVERRIDE("vkCmdPushDescriptorSet", push),
    OVERRIDE("vkCmdPushDescriptorSetKHR", push),
    OVERRIDE("vkCmdPushDescriptorSet2", push2),
    OVERRIDE("vkCmdPushDescriptorSet2KHR", push2),
    OVERRIDE("vkCmdBindVertexBuffers", vertices),
    OVERRIDE("vkCmdBindVertexBuffers2", vertices2),
    OVERRIDE("vkCmdBindVertexBuffers2EXT", vertices2),
    {NULL, NULL},
};
