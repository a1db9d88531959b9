/* What the programs share: a device, and small buffers and images. */
#define VK_ENABLE_BETA_EXTENSIONS
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <vulkan/vulkan.h>

#define HOST VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT
#define OPAQUE VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT
#define DMA_BUF VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT
#define PAGES 65536

static VkInstance instance;
static VkPhysicalDevice physical;
static VkDevice device;
static VkQueue queue;

static inline void *get(const char *name) { return (void *)vkGetDeviceProcAddr(device, name); }

static void check(const char *what, VkResult result) {
    if (result != VK_SUCCESS) {
        printf("%s: %d\n", what, result);
        exit(0);
    }
}

static int offered(const char *name) {
    static VkExtensionProperties found[512];
    uint32_t count = 512;
    vkEnumerateDeviceExtensionProperties(physical, NULL, &count, found);
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(found[i].extensionName, name) == 0)
            return 1;
    return 0;
}

static void open_device(void) {
    static const char *const wanted[] = {"VK_EXT_external_memory_host", "VK_KHR_external_memory_fd",
                                         "VK_EXT_external_memory_dma_buf",
                                         "VK_KHR_portability_subset"};
    const char *names[4];
    uint32_t one = 1, count = 0;
    VkApplicationInfo application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                     .apiVersion = VK_API_VERSION_1_3};
    VkInstanceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                 .pApplicationInfo = &application};
    check("vkCreateInstance", vkCreateInstance(&info, NULL, &instance));
    check("vkEnumeratePhysicalDevices", vkEnumeratePhysicalDevices(instance, &one, &physical));
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (offered(wanted[i]))
            names[count++] = wanted[i];
    float priority = 1;
    VkDeviceQueueCreateInfo queues[4];
    uint32_t families = 4;
    VkQueueFamilyProperties properties[4];
    vkGetPhysicalDeviceQueueFamilyProperties(physical, &families, properties);
    for (uint32_t i = 0; i < families; i++)
        queues[i] = (VkDeviceQueueCreateInfo){.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                              .queueFamilyIndex = i,
                                              .queueCount = 1,
                                              .pQueuePriorities = &priority};
    VkDeviceCreateInfo create = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                 .queueCreateInfoCount = families,
                                 .pQueueCreateInfos = queues,
                                 .enabledExtensionCount = count,
                                 .ppEnabledExtensionNames = names};
    check("vkCreateDevice", vkCreateDevice(physical, &create, NULL, &device));
    vkGetDeviceQueue(device, families - 1, 0, &queue);
}

struct resource {
    VkBuffer buffer;
    VkImage image;
    VkMemoryRequirements needs;
    VkBool32 dedicated;
};

static inline VkImageCreateInfo image_info(const char *kind, const void *chain) {
    VkImageCreateInfo info = {.sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO,
                              .pNext = chain,
                              .imageType = VK_IMAGE_TYPE_2D,
                              .format = VK_FORMAT_R8G8B8A8_UNORM,
                              .extent = {64, 64, 1},
                              .mipLevels = 1,
                              .arrayLayers = 1,
                              .samples = VK_SAMPLE_COUNT_1_BIT,
                              .tiling = VK_IMAGE_TILING_LINEAR,
                              .usage = VK_IMAGE_USAGE_TRANSFER_DST_BIT};
    if (strcmp(kind, "tiled") == 0)
        info.tiling = VK_IMAGE_TILING_OPTIMAL;
    else if (strcmp(kind, "attachment") == 0)
        info.usage |= VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT;
    else if (strcmp(kind, "levels") == 0)
        info.mipLevels = 2;
    else if (strcmp(kind, "volume") == 0)
        info.imageType = VK_IMAGE_TYPE_3D;
    else if (strcmp(kind, "depth") == 0) {
        info.tiling = VK_IMAGE_TILING_OPTIMAL;
        info.format = VK_FORMAT_D32_SFLOAT;
        info.usage = VK_IMAGE_USAGE_DEPTH_STENCIL_ATTACHMENT_BIT;
    } else if (strcmp(kind, "transient") == 0) {
        info.tiling = VK_IMAGE_TILING_OPTIMAL;
        info.usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT | VK_IMAGE_USAGE_TRANSIENT_ATTACHMENT_BIT;
    } else if (strcmp(kind, "sparse") == 0) {
        info.tiling = VK_IMAGE_TILING_OPTIMAL;
        info.flags = VK_IMAGE_CREATE_SPARSE_BINDING_BIT;
    }
    return info;
}

/* buffer|tiled|linear|attachment|depth|transient|levels|volume|sparse, for a handle type or none */
static inline VkResult make(const char *kind, VkFlags handle, struct resource *made) {
    VkMemoryDedicatedRequirements dedicated = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_REQUIREMENTS};
    VkMemoryRequirements2 needs = {.sType = VK_STRUCTURE_TYPE_MEMORY_REQUIREMENTS_2,
                                   .pNext = &dedicated};
    VkResult result;
    if (strcmp(kind, "buffer") == 0) {
        VkExternalMemoryBufferCreateInfo external = {
            .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO, .handleTypes = handle};
        VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                   .pNext = handle ? &external : NULL,
                                   .size = 4000,
                                   .usage = VK_BUFFER_USAGE_TRANSFER_DST_BIT};
        result = vkCreateBuffer(device, &info, NULL, &made->buffer);
        VkBufferMemoryRequirementsInfo2 asked = {
            .sType = VK_STRUCTURE_TYPE_BUFFER_MEMORY_REQUIREMENTS_INFO_2, .buffer = made->buffer};
        if (result == VK_SUCCESS)
            vkGetBufferMemoryRequirements2(device, &asked, &needs);
    } else {
        VkExternalMemoryImageCreateInfo external = {
            .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO, .handleTypes = handle};
        VkImageCreateInfo info = image_info(kind, handle ? &external : NULL);
        result = vkCreateImage(device, &info, NULL, &made->image);
        VkImageMemoryRequirementsInfo2 asked = {
            .sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_REQUIREMENTS_INFO_2, .image = made->image};
        if (result == VK_SUCCESS)
            vkGetImageMemoryRequirements2(device, &asked, &needs);
    }
    made->needs = needs.memoryRequirements;
    made->dedicated = dedicated.requiresDedicatedAllocation;
    return result;
}
