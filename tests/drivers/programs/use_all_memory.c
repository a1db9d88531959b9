/* Uses every memory type with everything that may lie in it.  Prints a line for each thing that was
   offered and then failed, and last how much has been tried. */
#include "program.h"

#include <unistd.h>

#define COLOUR 0xff00ff00u

static VkPhysicalDeviceMemoryProperties memory;
static VkCommandPool pool;
static int tried, descriptors;

static const char *const kinds[] = {"buffer", "linear", "attachment", "tiled", "depth"};
static const struct {
    const char *name;
    VkFlags type;
} handles[] = {{"unshared", 0}, {"opaque", OPAQUE}, {"dma-buf", DMA_BUF}};

static int failed(const char *kind, const char *handle, uint32_t type, const char *what,
                  VkResult result) {
    if (result != VK_SUCCESS)
        printf("%s, %s, in type %u: %s: %d\n", kind, handle, type, what, result);
    return result != VK_SUCCESS;
}

/* Whether the driver says that such things can be exported. */
static int is_exportable(const char *kind, VkFlags handle) {
    if (strcmp(kind, "buffer") == 0) {
        VkPhysicalDeviceExternalBufferInfo info = {
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_BUFFER_INFO,
            .usage = VK_BUFFER_USAGE_TRANSFER_DST_BIT,
            .handleType = (VkExternalMemoryHandleTypeFlagBits)handle};
        VkExternalBufferProperties found = {
            .sType = VK_STRUCTURE_TYPE_EXTERNAL_BUFFER_PROPERTIES};
        vkGetPhysicalDeviceExternalBufferProperties(physical, &info, &found);
        return found.externalMemoryProperties.externalMemoryFeatures &
               VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT;
    }
    VkImageCreateInfo image = image_info(kind, NULL);
    VkPhysicalDeviceExternalImageFormatInfo external = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_IMAGE_FORMAT_INFO,
        .handleType = (VkExternalMemoryHandleTypeFlagBits)handle};
    VkPhysicalDeviceImageFormatInfo2 info = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_FORMAT_INFO_2,
        .pNext = handle ? &external : NULL,
        .format = image.format,
        .type = image.imageType,
        .tiling = image.tiling,
        .usage = image.usage};
    VkExternalImageFormatProperties found = {
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_IMAGE_FORMAT_PROPERTIES};
    VkImageFormatProperties2 properties = {.sType = VK_STRUCTURE_TYPE_IMAGE_FORMAT_PROPERTIES_2,
                                           .pNext = handle ? &found : NULL};
    if (vkGetPhysicalDeviceImageFormatProperties2(physical, &info, &properties) != VK_SUCCESS)
        return 0;
    return !handle || (found.externalMemoryProperties.externalMemoryFeatures &
                       VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT);
}

/* Have the device write COLOUR into a buffer, or all over an image of colours. */
static VkResult write_colour(const struct resource *resource) {
    VkCommandBuffer commands;
    VkCommandBufferAllocateInfo allocate = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = pool,
        .commandBufferCount = 1};
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    check("vkAllocateCommandBuffers", vkAllocateCommandBuffers(device, &allocate, &commands));
    check("vkBeginCommandBuffer", vkBeginCommandBuffer(commands, &begin));
    if (resource->buffer) {
        vkCmdFillBuffer(commands, resource->buffer, 0, VK_WHOLE_SIZE, COLOUR);
    } else {
        VkClearColorValue green = {.float32 = {0, 1, 0, 1}};
        VkImageSubresourceRange all = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1};
        VkImageMemoryBarrier barrier = {.sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER,
                                        .dstAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT,
                                        .newLayout = VK_IMAGE_LAYOUT_GENERAL,
                                        .srcQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
                                        .dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
                                        .image = resource->image,
                                        .subresourceRange = all};
        vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT,
                             VK_PIPELINE_STAGE_TRANSFER_BIT, 0, 0, NULL, 0, NULL, 1, &barrier);
        vkCmdClearColorImage(commands, resource->image, VK_IMAGE_LAYOUT_GENERAL, &green, 1, &all);
    }
    check("vkEndCommandBuffer", vkEndCommandBuffer(commands));
    VkSubmitInfo submit = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                           .commandBufferCount = 1,
                           .pCommandBuffers = &commands};
    VkResult result = vkQueueSubmit(queue, 1, &submit, VK_NULL_HANDLE);
    return result == VK_SUCCESS ? vkQueueWaitIdle(queue) : result;
}

/* What the device has written is there; what is written here is there, too. */
static VkResult check_bytes(const struct resource *resource, const uint32_t *data) {
    size_t last = 999;
    if (resource->image) {
        VkImageSubresource first = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 0};
        VkSubresourceLayout layout;
        vkGetImageSubresourceLayout(device, resource->image, &first, &layout);
        data += layout.offset / 4;
        last = 63 * layout.rowPitch / 4 + 63;
    }
    return data[0] == COLOUR && data[last] == COLOUR ? VK_SUCCESS : VK_ERROR_UNKNOWN;
}

static void use(const char *kind, const char *name, VkFlags handle, uint32_t type) {
    struct resource resource = {0};
    VkDeviceMemory allocated;
    uint32_t *data = NULL;
    if (failed(kind, name, type, "create", make(kind, handle, &resource)))
        return;
    int visible = memory.memoryTypes[type].propertyFlags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT;
    int readable = visible && strcmp(kind, "tiled") != 0 && strcmp(kind, "depth") != 0;
    VkMemoryDedicatedAllocateInfo dedicated = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO,
        .image = resource.image,
        .buffer = resource.buffer};
    VkExportMemoryAllocateInfo export = {.sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO,
                                         .pNext = resource.dedicated ? &dedicated : NULL,
                                         .handleTypes = handle};
    VkMemoryAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                 .pNext = handle ? (void *)&export : (void *)export.pNext,
                                 .allocationSize = resource.needs.size,
                                 .memoryTypeIndex = type};
    tried++;
    if (failed(kind, name, type, "vkAllocateMemory",
               vkAllocateMemory(device, &info, NULL, &allocated)))
        return;
    VkResult result = resource.image ? vkBindImageMemory(device, resource.image, allocated, 0)
                                     : vkBindBufferMemory(device, resource.buffer, allocated, 0);
    if (failed(kind, name, type, "bind", result))
        return;
    if (strcmp(kind, "depth") != 0 &&
        failed(kind, name, type, "write", write_colour(&resource)))
        return;
    if (visible && failed(kind, name, type, "vkMapMemory",
                          vkMapMemory(device, allocated, 0, VK_WHOLE_SIZE, 0, (void **)&data)))
        return;
    if (readable)
        failed(kind, name, type, "the mapped bytes", check_bytes(&resource, data));
    if (handle) {
        int descriptor = -1;
        VkMemoryGetFdInfoKHR get_info = {.sType = VK_STRUCTURE_TYPE_MEMORY_GET_FD_INFO_KHR,
                                         .memory = allocated,
                                         .handleType = (VkExternalMemoryHandleTypeFlagBits)handle};
        PFN_vkGetMemoryFdKHR ask = get("vkGetMemoryFdKHR");
        if (failed(kind, name, type, "vkGetMemoryFdKHR", ask(device, &get_info, &descriptor)))
            return;
        descriptors++;
        size_t length = (size_t)resource.needs.size;
        void *shared = mmap(NULL, length, PROT_READ, MAP_SHARED, descriptor, 0);
        if (shared != MAP_FAILED && readable && handle == DMA_BUF)
            failed(kind, name, type, "the shared bytes", check_bytes(&resource, shared));
        if (shared != MAP_FAILED)
            munmap(shared, length);
        close(descriptor);
    }
    vkDestroyBuffer(device, resource.buffer, NULL);
    vkDestroyImage(device, resource.image, NULL);
    vkFreeMemory(device, allocated, NULL);
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    open_device();
    vkGetPhysicalDeviceMemoryProperties(physical, &memory);
    VkCommandPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO};
    uint32_t families = 0;
    vkGetPhysicalDeviceQueueFamilyProperties(physical, &families, NULL);
    info.queueFamilyIndex = families - 1;
    check("vkCreateCommandPool", vkCreateCommandPool(device, &info, NULL, &pool));
    int visible = 0;
    for (uint32_t i = 0; i < memory.memoryTypeCount; i++) {
        const VkMemoryPropertyFlags wanted =
            VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
        visible += (memory.memoryTypes[i].propertyFlags & wanted) == wanted;
    }
    for (size_t h = 0; h < sizeof handles / sizeof *handles; h++) {
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            struct resource resource = {0};
            if ((handles[h].type && !offered("VK_KHR_external_memory_fd")) ||
                ((handles[h].type || k > 0) && !is_exportable(kinds[k], handles[h].type)))
                continue;
            if (failed(kinds[k], handles[h].name, 0, "create",
                       make(kinds[k], handles[h].type, &resource)))
                continue;
            if (!resource.needs.memoryTypeBits)
                failed(kinds[k], handles[h].name, 0, "no memory type", VK_ERROR_UNKNOWN);
            for (uint32_t type = 0; type < memory.memoryTypeCount; type++)
                if (resource.needs.memoryTypeBits >> type & 1)
                    use(kinds[k], handles[h].name, handles[h].type, type);
        }
    }
    printf("types %u visible %d tried %d descriptors %d\n", memory.memoryTypeCount, visible, tried,
           descriptors);
    return 0;
}
