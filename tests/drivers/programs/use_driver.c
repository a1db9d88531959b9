/* A Vulkan program with one small thing to do, named by its arguments; it prints what it is told. */
#define VK_ENABLE_BETA_EXTENSIONS
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vulkan/vulkan.h>

#define HOST VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT
#define OPAQUE VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT
#define DMA_BUF VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT
#define PAGES 65536

static VkInstance instance;
static VkPhysicalDevice physical;
static VkDevice device;
static VkQueue queue;
static char **words;

static const char *word(void) {
    if (!*words)
        exit(64);
    return *words++;
}
static int is(const char *text) { return *words && strcmp(*words, text) == 0 && words++; }

static void *get(const char *name) { return (void *)vkGetDeviceProcAddr(device, name); }

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

/* [host|opaque|dma-buf] */
static VkFlags handle_type(void) { return is("host") ? HOST : is("opaque") ? OPAQUE : is("dma-buf") ? DMA_BUF : 0; }

struct resource {
    VkBuffer buffer;
    VkImage image;
    VkMemoryRequirements needs;
    VkBool32 dedicated;
};

/* buffer|tiled|linear|attachment|depth|transient|levels|volume|sparse [host|opaque|dma-buf] */
static VkResult make(struct resource *made) {
    const char *kind = word();
    VkFlags handle = handle_type();
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
                                   .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT};
        result = vkCreateBuffer(device, &info, NULL, &made->buffer);
        VkBufferMemoryRequirementsInfo2 asked = {
            .sType = VK_STRUCTURE_TYPE_BUFFER_MEMORY_REQUIREMENTS_INFO_2, .buffer = made->buffer};
        if (result == VK_SUCCESS)
            vkGetBufferMemoryRequirements2(device, &asked, &needs);
    } else {
        VkExternalMemoryImageCreateInfo external = {
            .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO, .handleTypes = handle};
        VkImageCreateInfo info = {.sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO,
                                  .pNext = handle ? &external : NULL,
                                  .imageType = VK_IMAGE_TYPE_2D,
                                  .format = VK_FORMAT_R8G8B8A8_UNORM,
                                  .extent = {64, 64, 1},
                                  .mipLevels = 1,
                                  .arrayLayers = 1,
                                  .samples = VK_SAMPLE_COUNT_1_BIT,
                                  .tiling = VK_IMAGE_TILING_LINEAR,
                                  .usage = VK_IMAGE_USAGE_TRANSFER_SRC_BIT};
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

/* TYPE [imported OFFSET SIZE | exported HANDLE] [dedicated] */
static VkResult allocate(const struct resource *resource, VkDeviceMemory *memory) {
    VkMemoryAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                 .allocationSize = PAGES};
    VkImportMemoryHostPointerInfoEXT import = {
        .sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT, .handleType = HOST};
    VkExportMemoryAllocateInfo export = {.sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO};
    VkMemoryDedicatedAllocateInfo dedicated = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO,
        .image = resource ? resource->image : VK_NULL_HANDLE,
        .buffer = resource ? resource->buffer : VK_NULL_HANDLE};
    info.memoryTypeIndex = (uint32_t)atoi(word());
    if (is("imported")) {
        char *pages = aligned_alloc(PAGES, 2 * PAGES);
        import.pHostPointer = pages + atoi(word());
        info.allocationSize = (VkDeviceSize)atoi(word());
        info.pNext = &import;
    } else if (is("exported")) {
        export.handleTypes = handle_type();
        info.pNext = &export;
    }
    if (is("dedicated")) {
        dedicated.pNext = info.pNext;
        info.pNext = &dedicated;
    }
    return vkAllocateMemory(device, &info, NULL, memory);
}

static void types(void) {
    VkPhysicalDeviceMemoryProperties found;
    vkGetPhysicalDeviceMemoryProperties(physical, &found);
    for (uint32_t i = 0; i < found.memoryTypeCount; i++)
        printf("%u@%u ", found.memoryTypes[i].propertyFlags, found.memoryTypes[i].heapIndex);
    printf("heaps %u\n", found.memoryHeapCount);
}

static void host_pointer(void) {
    VkMemoryHostPointerPropertiesEXT found = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_HOST_POINTER_PROPERTIES_EXT};
    PFN_vkGetMemoryHostPointerPropertiesEXT ask = get("vkGetMemoryHostPointerPropertiesEXT");
    VkResult result = ask(device, HOST, aligned_alloc(PAGES, PAGES), &found);
    printf("%d %u\n", result, found.memoryTypeBits);
}

static void limits(void) {
    VkPhysicalDeviceExternalMemoryHostPropertiesEXT host = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT};
    VkPhysicalDeviceProperties2 found = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                         .pNext = &host};
    uint32_t families = 0;
    vkGetPhysicalDeviceProperties2(physical, &found);
    vkGetPhysicalDeviceQueueFamilyProperties(physical, &families, NULL);
    printf("page %" PRIu64 " families %u type %d\n", host.minImportedHostPointerAlignment, families,
           found.properties.deviceType);
}

/* What formats say: tiled|linear USAGE [host|opaque|dma-buf] */
static void format(void) {
    int linear = is("linear") || !is("tiled");
    VkPhysicalDeviceExternalImageFormatInfo external = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_IMAGE_FORMAT_INFO};
    VkPhysicalDeviceImageFormatInfo2 info = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_FORMAT_INFO_2,
        .format = VK_FORMAT_B8G8R8A8_UNORM,
        .type = VK_IMAGE_TYPE_2D,
        .tiling = linear ? VK_IMAGE_TILING_LINEAR : VK_IMAGE_TILING_OPTIMAL,
        .usage = (VkFlags)atoi(word())};
    VkExternalImageFormatProperties found = {
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_IMAGE_FORMAT_PROPERTIES};
    VkImageFormatProperties2 properties = {.sType = VK_STRUCTURE_TYPE_IMAGE_FORMAT_PROPERTIES_2};
    if ((external.handleType = handle_type())) {
        info.pNext = &external;
        properties.pNext = &found;
    }
    VkResult result = vkGetPhysicalDeviceImageFormatProperties2(physical, &info, &properties);
    VkFormatProperties features;
    vkGetPhysicalDeviceFormatProperties(physical, info.format, &features);
    int renders = !!(features.linearTilingFeatures & VK_FORMAT_FEATURE_COLOR_ATTACHMENT_BIT);
    printf("%d levels %u external %u linear-attachments %d\n", result,
           properties.imageFormatProperties.maxMipLevels,
           found.externalMemoryProperties.externalMemoryFeatures, renders);
}

/* RESOURCE MEMORY: make, allocate, bind. */
static void bind(void) {
    struct resource resource = {0};
    VkDeviceMemory memory;
    check("create", make(&resource));
    check("vkAllocateMemory", allocate(&resource, &memory));
    printf("bind: %d\n", resource.image ? vkBindImageMemory(device, resource.image, memory, 0)
                                        : vkBindBufferMemory(device, resource.buffer, memory, 0));
}

static void map(void) {
    VkDeviceMemory memory;
    void *data;
    check("vkAllocateMemory", allocate(NULL, &memory));
    printf("map: %d", vkMapMemory(device, memory, 0, VK_WHOLE_SIZE, 0, &data));
    printf(" %d\n", vkMapMemory(device, memory, 0, VK_WHOLE_SIZE, 0, &data));
}

/* TYPE exported HANDLE: whether the descriptor, the mapping and an import show the same bytes. */
static void export(void) {
    VkDeviceMemory memory, other;
    int descriptor = -1;
    char *data, *again;
    check("vkAllocateMemory", allocate(NULL, &memory));
    VkFlags handle = strcmp(words[-1], "opaque") == 0 ? OPAQUE : DMA_BUF;
    VkMemoryGetFdInfoKHR info = {.sType = VK_STRUCTURE_TYPE_MEMORY_GET_FD_INFO_KHR,
                                 .memory = memory,
                                 .handleType = (VkExternalMemoryHandleTypeFlagBits)handle};
    PFN_vkGetMemoryFdKHR ask = get("vkGetMemoryFdKHR");
    check("vkGetMemoryFdKHR", ask(device, &info, &descriptor));
    char *seen = mmap(NULL, PAGES, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (seen == MAP_FAILED) {
        printf("the descriptor cannot be mapped\n");
        return;
    }
    check("vkMapMemory", vkMapMemory(device, memory, 0, VK_WHOLE_SIZE, 0, (void **)&data));
    strcpy(data + 5000, "by the driver");
    VkImportMemoryFdInfoKHR import = {.sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR,
                                      .handleType = info.handleType,
                                      .fd = descriptor};
    VkMemoryAllocateInfo allocate_info = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                          .pNext = &import,
                                          .allocationSize = PAGES,
                                          .memoryTypeIndex = 4};
    check("import", vkAllocateMemory(device, &allocate_info, NULL, &other));
    check("vkMapMemory", vkMapMemory(device, other, 0, VK_WHOLE_SIZE, 0, (void **)&again));
    printf("%s, %s\n", seen + 5000, again + 5000);
    vkFreeMemory(device, memory, NULL);
    vkFreeMemory(device, other, NULL);
}

static VkFence submit(VkResult *result) {
    VkFence fence;
    VkFenceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    check("vkCreateFence", vkCreateFence(device, &info, NULL, &fence));
    VkSubmitInfo nothing = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO};
    *result = vkQueueSubmit(queue, 1, &nothing, fence);
    return fence;
}

/* COUNT: submit and wait so often. */
static void work(void) {
    int count = atoi(word());
    for (int i = 0; i < count; i++) {
        VkResult result;
        VkFence fence = submit(&result);
        VkResult waited = vkWaitForFences(device, 1, &fence, VK_TRUE, 200 * 1000 * 1000);
        printf("%d %d %d\n", result, waited, vkGetFenceStatus(device, fence));
        vkDestroyFence(device, fence, NULL);
    }
    printf("idle %d\n", vkDeviceWaitIdle(device));
}

/* Wait for ever for a submission, and say when that has begun. */
static void wait(void) {
    VkResult result;
    VkFence fence = submit(&result);
    printf("%d\n", result);
    printf("%d\n", vkWaitForFences(device, 1, &fence, VK_TRUE, UINT64_MAX));
    printf("%d\n", vkQueueWaitIdle(queue));
}

/* SIZE COUNT */
static void allocations(void) {
    VkDeviceMemory memory;
    VkMemoryAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO};
    info.allocationSize = (VkDeviceSize)atoll(word());
    for (int count = atoi(word()); count > 0; count--)
        printf("%d\n", vkAllocateMemory(device, &info, NULL, &memory));
}

/* Create instances, one for each line that comes in. */
static void instances(void) {
    char line[16];
    while (fgets(line, sizeof line, stdin)) {
        VkInstance made = VK_NULL_HANDLE;
        VkInstanceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO};
        printf("%d\n", vkCreateInstance(&info, NULL, &made));
        if (made)
            vkDestroyInstance(made, NULL);
    }
}

int main(int count, char **arguments) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    words = arguments + (count > 1);
    if (is("instances")) {
        instances();
        return 0;
    }
    open_device();
    if (is("types"))
        types();
    else if (is("limits"))
        limits();
    else if (is("host-pointer"))
        host_pointer();
    else if (is("format"))
        format();
    else if (is("bind"))
        bind();
    else if (is("map"))
        map();
    else if (is("export"))
        export();
    else if (is("work"))
        work();
    else if (is("wait"))
        wait();
    else if (is("allocations"))
        allocations();
    else if (is("offered"))
        printf("%d\n", offered(word()));
    else if (is("needs")) {
        struct resource resource = {0};
        check("create", make(&resource));
        printf("types %u alignment %" PRIu64 " dedicated %u\n", resource.needs.memoryTypeBits,
               resource.needs.alignment, resource.dedicated);
    } else if (is("allocate")) {
        VkDeviceMemory memory;
        printf("%d\n", allocate(NULL, &memory));
    } else {
        return 64;
    }
    vkDestroyDevice(device, NULL);
    vkDestroyInstance(instance, NULL);
    return 0;
}
