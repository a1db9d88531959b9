/* A Vulkan driver of no-ops, in the same file as the loops: opened as a Vulkan library, it lets the
 * kernel be measured without a driver behind it.  It has the commands that are measured, no more. */
#include <stdint.h>
#include <string.h>

#include "vulkan_core.h"

#define EXPORT __attribute__((visibility("default")))

static void VKAPI_CALL draw(VkCommandBuffer commands, uint32_t vertices, uint32_t instances,
                            uint32_t first_vertex, uint32_t first_instance) {
    (void)commands, (void)vertices, (void)instances, (void)first_vertex, (void)first_instance;
}

static void VKAPI_CALL dispatch(VkCommandBuffer commands, uint32_t x, uint32_t y, uint32_t z) {
    (void)commands, (void)x, (void)y, (void)z;
}

static void VKAPI_CALL push_constants(VkCommandBuffer commands, VkPipelineLayout layout,
                                      VkShaderStageFlags stages, uint32_t offset, uint32_t size,
                                      const void *values) {
    (void)commands, (void)layout, (void)stages, (void)offset, (void)size, (void)values;
}

static void VKAPI_CALL copy_buffer(VkCommandBuffer commands, VkBuffer source, VkBuffer target,
                                   uint32_t count, const VkBufferCopy *regions) {
    (void)commands, (void)source, (void)target, (void)count, (void)regions;
}

static void VKAPI_CALL bind_pipeline(VkCommandBuffer commands, VkPipelineBindPoint point,
                                     VkPipeline pipeline) {
    (void)commands, (void)point, (void)pipeline;
}

static void VKAPI_CALL bind_sets(VkCommandBuffer commands, VkPipelineBindPoint point,
                                 VkPipelineLayout layout, uint32_t first, uint32_t count,
                                 const VkDescriptorSet *sets, uint32_t offset_count,
                                 const uint32_t *offsets) {
    (void)commands, (void)point, (void)layout, (void)first, (void)count, (void)sets;
    (void)offset_count, (void)offsets;
}

static void VKAPI_CALL update_sets(VkDevice device, uint32_t write_count,
                                   const VkWriteDescriptorSet *writes, uint32_t copy_count,
                                   const VkCopyDescriptorSet *copies) {
    (void)device, (void)write_count, (void)writes, (void)copy_count, (void)copies;
}

static VkResult VKAPI_CALL create_buffer(VkDevice device, const VkBufferCreateInfo *info,
                                         const VkAllocationCallbacks *allocator,
                                         VkBuffer *buffer) {
    (void)device, (void)info, (void)allocator;
    *buffer = (VkBuffer)(uintptr_t)1;
    return VK_SUCCESS;
}

static VkResult VKAPI_CALL create_set_layout(VkDevice device,
                                             const VkDescriptorSetLayoutCreateInfo *info,
                                             const VkAllocationCallbacks *allocator,
                                             VkDescriptorSetLayout *layout) {
    (void)device, (void)info, (void)allocator;
    *layout = (VkDescriptorSetLayout)(uintptr_t)1;
    return VK_SUCCESS;
}

static VkResult VKAPI_CALL create_pipeline_layout(VkDevice device,
                                                  const VkPipelineLayoutCreateInfo *info,
                                                  const VkAllocationCallbacks *allocator,
                                                  VkPipelineLayout *layout) {
    (void)device, (void)info, (void)allocator;
    *layout = (VkPipelineLayout)(uintptr_t)1;
    return VK_SUCCESS;
}

static VkResult VKAPI_CALL allocate_sets(VkDevice device, const VkDescriptorSetAllocateInfo *info,
                                         VkDescriptorSet *sets) {
    (void)device;
    for (uint32_t i = 0; i < info->descriptorSetCount; i++)
        sets[i] = (VkDescriptorSet)(uintptr_t)1;
    return VK_SUCCESS;
}

static void VKAPI_CALL destroy_buffer(VkDevice device, VkBuffer buffer,
                                      const VkAllocationCallbacks *allocator) {
    (void)device, (void)buffer, (void)allocator;
}

static VkResult VKAPI_CALL cache_data(VkDevice device, VkPipelineCache cache, size_t *size,
                                      void *data) {
    (void)device, (void)cache, (void)data;
    *size = 32;
    return VK_SUCCESS;
}

EXPORT PFN_vkVoidFunction VKAPI_CALL vkGetDeviceProcAddr(VkDevice device, const char *name);

static const struct {
    const char *name;
    PFN_vkVoidFunction function;
} commands[] = {
    {"vkGetDeviceProcAddr", (PFN_vkVoidFunction)vkGetDeviceProcAddr},
    {"vkCmdDraw", (PFN_vkVoidFunction)draw},
    {"vkCmdDispatch", (PFN_vkVoidFunction)dispatch},
    {"vkCmdPushConstants", (PFN_vkVoidFunction)push_constants},
    {"vkCmdCopyBuffer", (PFN_vkVoidFunction)copy_buffer},
    {"vkCmdBindPipeline", (PFN_vkVoidFunction)bind_pipeline},
    {"vkCmdBindDescriptorSets", (PFN_vkVoidFunction)bind_sets},
    {"vkUpdateDescriptorSets", (PFN_vkVoidFunction)update_sets},
    {"vkCreateBuffer", (PFN_vkVoidFunction)create_buffer},
    {"vkCreateDescriptorSetLayout", (PFN_vkVoidFunction)create_set_layout},
    {"vkCreatePipelineLayout", (PFN_vkVoidFunction)create_pipeline_layout},
    {"vkAllocateDescriptorSets", (PFN_vkVoidFunction)allocate_sets},
    {"vkDestroyBuffer", (PFN_vkVoidFunction)destroy_buffer},
    {"vkGetPipelineCacheData", (PFN_vkVoidFunction)cache_data},
};

EXPORT PFN_vkVoidFunction VKAPI_CALL vkGetDeviceProcAddr(VkDevice device, const char *name) {
    (void)device;
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
        if (!strcmp(commands[i].name, name))
            return commands[i].function;
    return NULL;
}

EXPORT PFN_vkVoidFunction VKAPI_CALL vkGetInstanceProcAddr(VkInstance instance, const char *name);

EXPORT PFN_vkVoidFunction VKAPI_CALL vkGetInstanceProcAddr(VkInstance instance, const char *name) {
    (void)instance;
    return vkGetDeviceProcAddr(NULL, name);
}

/* Where a profiler that counts instructions cuts: see tests/bench. */
unsigned hesper_bench_cut(void);

__attribute__((noinline)) unsigned hesper_bench_cut(void) {
    static volatile unsigned cuts;
    return ++cuts;
}
