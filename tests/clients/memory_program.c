/* A Vulkan program that runs out of memory, and then goes on in the way that its argument names.
 *
 * It allocates pieces of 16 MiB until something fails, at most 64, frees what has failed and one that
 * has not, and does the same with one more piece.  It prints how many pieces there were, what has
 * failed, and what the last one and a submission said. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vulkan/vulkan.h>

enum { PIECES = 64, BYTES = 16 << 20 };

static VkDevice device;
static VkQueue queue;
static VkCommandPool pool;
static uint32_t type;
static const char *way;

static void check(const char *what, VkResult result) {
    if (result != VK_SUCCESS) {
        printf("%s: %d\n", what, result);
        exit(1);
    }
}

static void start(void) {
    const VkApplicationInfo application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                           .apiVersion = VK_API_VERSION_1_1};
    const VkInstanceCreateInfo instance_info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                                .pApplicationInfo = &application};
    VkInstance instance;
    check("vkCreateInstance", vkCreateInstance(&instance_info, NULL, &instance));
    uint32_t count = 1;
    VkPhysicalDevice physical;
    VkResult result = vkEnumeratePhysicalDevices(instance, &count, &physical);
    check("vkEnumeratePhysicalDevices", result == VK_INCOMPLETE ? VK_SUCCESS : result);
    const char *names[] = {"VK_KHR_external_memory_fd"};
    const float priority = 1;
    const VkDeviceQueueCreateInfo queue_info = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                                .queueCount = 1,
                                                .pQueuePriorities = &priority};
    const VkDeviceCreateInfo device_info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                            .queueCreateInfoCount = 1,
                                            .pQueueCreateInfos = &queue_info,
                                            .enabledExtensionCount = 1,
                                            .ppEnabledExtensionNames = names};
    check("vkCreateDevice", vkCreateDevice(physical, &device_info, NULL, &device));
    vkGetDeviceQueue(device, 0, 0, &queue);
    const VkCommandPoolCreateInfo pool_info = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO};
    check("vkCreateCommandPool", vkCreateCommandPool(device, &pool_info, NULL, &pool));
    VkPhysicalDeviceMemoryProperties memory;
    vkGetPhysicalDeviceMemoryProperties(physical, &memory);
    while (!(memory.memoryTypes[type].propertyFlags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT))
        type++;
}

/* Submit `commands`, or nothing, and wait. */
static VkResult work(VkCommandBuffer commands) {
    const VkFenceCreateInfo fence_info = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    const VkSubmitInfo info = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                               .commandBufferCount = commands ? 1 : 0,
                               .pCommandBuffers = &commands};
    VkFence fence;
    check("vkCreateFence", vkCreateFence(device, &fence_info, NULL, &fence));
    VkResult result = vkQueueSubmit(queue, 1, &info, fence);
    if (result == VK_SUCCESS)
        result = vkWaitForFences(device, 1, &fence, VK_TRUE, UINT64_MAX);
    vkDestroyFence(device, fence, NULL);
    return result;
}

static VkResult bind(VkDeviceMemory memory) {
    const VkBufferCreateInfo buffer_info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                            .size = BYTES,
                                            .usage = VK_BUFFER_USAGE_TRANSFER_DST_BIT};
    VkBuffer buffer;
    check("vkCreateBuffer", vkCreateBuffer(device, &buffer_info, NULL, &buffer));
    VkResult result = vkBindBufferMemory(device, buffer, memory, 0);
    if (result != VK_SUCCESS)
        return result;
    const VkCommandBufferAllocateInfo allocate_info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = pool,
        .commandBufferCount = 1};
    VkCommandBuffer commands;
    check("vkAllocateCommandBuffers", vkAllocateCommandBuffers(device, &allocate_info, &commands));
    const VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    check("vkBeginCommandBuffer", vkBeginCommandBuffer(commands, &begin));
    vkCmdFillBuffer(commands, buffer, 0, VK_WHOLE_SIZE, 1);
    result = vkEndCommandBuffer(commands);
    return result == VK_SUCCESS ? work(commands) : result;
}

/* Allocate a piece and use it; what failed. */
static VkResult allocate(VkDeviceMemory *memory) {
    const int exports = strcmp(way, "export") == 0;
    const VkExportMemoryAllocateInfo export_info = {
        .sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO,
        .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT};
    const VkMemoryAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                       .pNext = exports ? &export_info : NULL,
                                       .allocationSize = BYTES,
                                       .memoryTypeIndex = type};
    *memory = VK_NULL_HANDLE;
    VkResult result = vkAllocateMemory(device, &info, NULL, memory);
    if (result != VK_SUCCESS)
        return result;
    void *data;
    if (strcmp(way, "map") == 0 || exports)
        result = vkMapMemory(device, *memory, 0, VK_WHOLE_SIZE, 0, &data);
    if (result == VK_SUCCESS && (strcmp(way, "map") == 0 || exports))
        memset(data, 1, 4096);
    if (strcmp(way, "bind") == 0)
        result = bind(*memory);
    return result;
}

int main(int count, char **words) {
    VkDeviceMemory pieces[PIECES];
    int made = 0;
    if (count != 2)
        return 64;
    way = words[1];
    setvbuf(stdout, NULL, _IOLBF, 0);
    start();
    VkResult result = VK_SUCCESS;
    while (made < PIECES && (result = allocate(&pieces[made])) == VK_SUCCESS)
        made++;
    printf("%d\n%d\n", made, result);
    if (made < PIECES)
        vkFreeMemory(device, pieces[made], NULL);
    if (made == 0)
        return 0;
    vkFreeMemory(device, pieces[--made], NULL);
    printf("%d\n", allocate(&pieces[made]));
    printf("%d\n", work(NULL));
    while (made >= 0)
        vkFreeMemory(device, pieces[made--], NULL);
    return 0;
}
