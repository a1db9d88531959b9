/* A Vulkan program with one small thing to do, named by its arguments; it prints what it is told. */
#include "program.h"

#include <inttypes.h>
#include <unistd.h>

static char **words;

static const char *word(void) {
    if (!*words)
        exit(64);
    return *words++;
}
static int is(const char *text) { return *words && strcmp(*words, text) == 0 && words++; }

/* [host|opaque|dma-buf] */
static VkFlags handle_type(void) {
    return is("host") ? HOST : is("opaque") ? OPAQUE : is("dma-buf") ? DMA_BUF : 0;
}

/* KIND [host|opaque|dma-buf] */
static VkResult make_named(struct resource *made) {
    const char *kind = word();
    return make(kind, handle_type(), made);
}

/* TYPE [imported OFFSET SIZE | exported HANDLE] [dedicated] [cleared] */
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
    VkMemoryAllocateFlagsInfo flags = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
                                       .pNext = info.pNext,
                                       .flags = 0x8}; /* ZERO_INITIALIZE_BIT_EXT */
    if (is("cleared"))
        info.pNext = &flags;
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
    printf("page %" PRIu64 " families %u type %d %s\n", host.minImportedHostPointerAlignment,
           families, found.properties.deviceType, found.properties.deviceName);
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
    check("create", make_named(&resource));
    check("vkAllocateMemory", allocate(&resource, &memory));
    printf("bind: %d\n", resource.image ? vkBindImageMemory(device, resource.image, memory, 0)
                                        : vkBindBufferMemory(device, resource.buffer, memory, 0));
}

/* RESOURCE MEMORY: make an image, allocate, bind, and make a view of it. */
static void view(void) {
    struct resource resource = {0};
    VkDeviceMemory memory;
    VkImageView made;
    check("create", make_named(&resource));
    check("vkAllocateMemory", allocate(&resource, &memory));
    check("bind", vkBindImageMemory(device, resource.image, memory, 0));
    VkImageViewCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_VIEW_CREATE_INFO,
        .image = resource.image,
        .viewType = VK_IMAGE_VIEW_TYPE_2D,
        .format = VK_FORMAT_R8G8B8A8_UNORM,
        .subresourceRange = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1}};
    printf("view: %d\n", vkCreateImageView(device, &info, NULL, &made));
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
    else if (is("view"))
        view();
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
        check("create", make_named(&resource));
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
