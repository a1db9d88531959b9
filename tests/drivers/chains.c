/* pNext chains. */
#include "driver.h"

#include <string.h>

#define SIZE(type, name) {VK_STRUCTURE_TYPE_##type, sizeof(name)}

static const struct {
    VkStructureType type;
    size_t size;
} sizes[] = {
    SIZE(MEMORY_DEDICATED_ALLOCATE_INFO, VkMemoryDedicatedAllocateInfo),
    SIZE(MEMORY_ALLOCATE_FLAGS_INFO, VkMemoryAllocateFlagsInfo),
    SIZE(EXPORT_MEMORY_ALLOCATE_INFO, VkExportMemoryAllocateInfo),
    SIZE(IMPORT_MEMORY_FD_INFO_KHR, VkImportMemoryFdInfoKHR),
    SIZE(IMPORT_MEMORY_HOST_POINTER_INFO_EXT, VkImportMemoryHostPointerInfoEXT),
    SIZE(MEMORY_OPAQUE_CAPTURE_ADDRESS_ALLOCATE_INFO, VkMemoryOpaqueCaptureAddressAllocateInfo),
    SIZE(MEMORY_PRIORITY_ALLOCATE_INFO_EXT, VkMemoryPriorityAllocateInfoEXT),
    SIZE(EXTERNAL_MEMORY_BUFFER_CREATE_INFO, VkExternalMemoryBufferCreateInfo),
    SIZE(BUFFER_OPAQUE_CAPTURE_ADDRESS_CREATE_INFO, VkBufferOpaqueCaptureAddressCreateInfo),
    /* VkBufferUsageFlags2CreateInfo; the type: newer than the oldest headers. */
    {(VkStructureType)1000470006, sizeof(VkBaseInStructure) + sizeof(uint64_t)},
    SIZE(EXTERNAL_MEMORY_IMAGE_CREATE_INFO, VkExternalMemoryImageCreateInfo),
    SIZE(IMAGE_FORMAT_LIST_CREATE_INFO, VkImageFormatListCreateInfo),
    SIZE(IMAGE_STENCIL_USAGE_CREATE_INFO, VkImageStencilUsageCreateInfo),
    SIZE(PHYSICAL_DEVICE_EXTERNAL_IMAGE_FORMAT_INFO, VkPhysicalDeviceExternalImageFormatInfo),
    SIZE(PHYSICAL_DEVICE_IMAGE_VIEW_IMAGE_FORMAT_INFO_EXT,
         VkPhysicalDeviceImageViewImageFormatInfoEXT),
};

const void *find_in_chain(const void *chain, VkStructureType type) {
    for (const VkBaseInStructure *at = chain; at; at = at->pNext)
        if (at->sType == type)
            return at;
    return NULL;
}

static size_t size_of(VkStructureType type) {
    for (size_t i = 0; i < COUNT(sizes); i++)
        if (sizes[i].type == type)
            return sizes[i].size;
    broken("of this driver", "chains.c does not know how large structs of type %d are", (int)type);
}

void *copy_chain(struct arena *arena, const void *chain, VkStructureType left_out) {
    VkBaseOutStructure *first = NULL, **end = &first;
    for (const VkBaseInStructure *at = chain; at; at = at->pNext) {
        if (at->sType == left_out)
            continue;
        size_t size = size_of(at->sType);
        if (arena->used + size + 16 > sizeof arena->bytes)
            broken("of this driver", "a pNext chain is too long for chains.c");
        VkBaseOutStructure *copy = (void *)(arena->bytes + arena->used);
        arena->used = (arena->used + size + 15) & ~(size_t)15;
        memcpy(copy, at, size);
        copy->pNext = NULL;
        *end = copy;
        end = &copy->pNext;
    }
    return first;
}
