/* What the Vulkan programs of these tests share.  Everything that fails ends the program. */
#ifndef VULKAN_PROGRAM_H
#define VULKAN_PROGRAM_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vulkan/vulkan.h>

#define CHECK(call)                                                              \
    do {                                                                         \
        VkResult result_ = (call);                                               \
        if (result_ < 0) {                                                       \
            fprintf(stderr, "%s:%d: %s = %d\n", __FILE__, __LINE__, #call, result_); \
            exit(2);                                                             \
        }                                                                        \
    } while (0)

#define HOST_MEMORY \
    (VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT)
#define SECONDS 1000000000ull

struct gpu {
    VkInstance instance;
    VkPhysicalDevice physical;
    VkPhysicalDeviceMemoryProperties memory;
    VkDevice device;
    VkQueue queue;
    VkCommandPool pool;
    VkCommandBuffer commands;
    VkFence fence;
};

/* Opens the first device, with `extensions`. */
static inline void open_gpu(struct gpu *gpu, uint32_t count, const char *const *extensions)
{
    VkApplicationInfo application = {
        .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .apiVersion = VK_API_VERSION_1_1};
    VkInstanceCreateInfo instance = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                     .pApplicationInfo = &application};
    CHECK(vkCreateInstance(&instance, NULL, &gpu->instance));
    uint32_t one = 1;
    CHECK(vkEnumeratePhysicalDevices(gpu->instance, &one, &gpu->physical));
    if (one == 0) {
        fprintf(stderr, "no device\n");
        exit(2);
    }
    VkPhysicalDeviceProperties properties;
    vkGetPhysicalDeviceProperties(gpu->physical, &properties);
    printf("device: %s\n", properties.deviceName);
    vkGetPhysicalDeviceMemoryProperties(gpu->physical, &gpu->memory);
    float priority = 1;
    VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                     .queueCount = 1,
                                     .pQueuePriorities = &priority};
    VkDeviceCreateInfo device = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                 .queueCreateInfoCount = 1,
                                 .pQueueCreateInfos = &queue,
                                 .enabledExtensionCount = count,
                                 .ppEnabledExtensionNames = extensions};
    CHECK(vkCreateDevice(gpu->physical, &device, NULL, &gpu->device));
    vkGetDeviceQueue(gpu->device, 0, 0, &gpu->queue);
    VkCommandPoolCreateInfo pool = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT};
    CHECK(vkCreateCommandPool(gpu->device, &pool, NULL, &gpu->pool));
    VkCommandBufferAllocateInfo buffer = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = gpu->pool,
        .commandBufferCount = 1};
    CHECK(vkAllocateCommandBuffers(gpu->device, &buffer, &gpu->commands));
    VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    CHECK(vkCreateFence(gpu->device, &fence, NULL, &gpu->fence));
}

static inline uint32_t memory_type(const struct gpu *gpu, uint32_t bits, VkFlags wanted)
{
    for (uint32_t i = 0; i < gpu->memory.memoryTypeCount; i++) {
        VkFlags flags = gpu->memory.memoryTypes[i].propertyFlags;
        if ((bits >> i & 1) && (flags & wanted) == wanted)
            return i;
    }
    fprintf(stderr, "no memory type with %#x of %#x\n", wanted, bits);
    exit(2);
}

/* A buffer in host-visible memory, mapped at `*data`. */
static inline VkBuffer host_buffer(struct gpu *gpu, VkDeviceSize size, void **data)
{
    VkBufferCreateInfo create = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                 .size = size,
                                 .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                                          VK_BUFFER_USAGE_TRANSFER_DST_BIT |
                                          VK_BUFFER_USAGE_STORAGE_BUFFER_BIT};
    VkBuffer buffer;
    CHECK(vkCreateBuffer(gpu->device, &create, NULL, &buffer));
    VkMemoryRequirements needs;
    vkGetBufferMemoryRequirements(gpu->device, buffer, &needs);
    VkMemoryAllocateInfo allocate = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .allocationSize = needs.size,
        .memoryTypeIndex = memory_type(gpu, needs.memoryTypeBits, HOST_MEMORY)};
    VkDeviceMemory memory;
    CHECK(vkAllocateMemory(gpu->device, &allocate, NULL, &memory));
    CHECK(vkBindBufferMemory(gpu->device, buffer, memory, 0));
    CHECK(vkMapMemory(gpu->device, memory, 0, VK_WHOLE_SIZE, 0, data));
    return buffer;
}

static inline void begin(struct gpu *gpu)
{
    VkCommandBufferBeginInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    CHECK(vkBeginCommandBuffer(gpu->commands, &info));
}

/* Ends the commands, runs them and waits for them. */
static inline void run(struct gpu *gpu)
{
    VkMemoryBarrier barrier = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                               .srcAccessMask = VK_ACCESS_MEMORY_WRITE_BIT,
                               .dstAccessMask = VK_ACCESS_HOST_READ_BIT};
    vkCmdPipelineBarrier(gpu->commands, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT,
                         VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &barrier, 0, NULL, 0, NULL);
    CHECK(vkEndCommandBuffer(gpu->commands));
    VkSubmitInfo submit = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                           .commandBufferCount = 1,
                           .pCommandBuffers = &gpu->commands};
    CHECK(vkQueueSubmit(gpu->queue, 1, &submit, gpu->fence));
    VkResult result = vkWaitForFences(gpu->device, 1, &gpu->fence, VK_TRUE, 120 * SECONDS);
    if (result != VK_SUCCESS) {
        fprintf(stderr, "vkWaitForFences = %d\n", result);
        exit(2);
    }
    CHECK(vkResetFences(gpu->device, 1, &gpu->fence));
}

static inline VkShaderModule shader(struct gpu *gpu, const uint32_t *code, size_t size)
{
    VkShaderModuleCreateInfo create = {.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                       .codeSize = size,
                                       .pCode = code};
    VkShaderModule module;
    CHECK(vkCreateShaderModule(gpu->device, &create, NULL, &module));
    return module;
}

/* FNV-1a, to compare results across machines. */
static inline uint64_t digest(const void *data, size_t size)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ ((const uint8_t *)data)[i]) * 0x100000001b3;
    return hash;
}

#endif
