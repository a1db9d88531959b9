/* Buffers and images: what memory they may lie in, and whether they are bound to such. */
#include "driver.h"

#define ALL ((1u << mode->type_count) - 1)
/* The same bit for buffers and images. */
#define SPARSE_BINDING VK_BUFFER_CREATE_SPARSE_BINDING_BIT

/* ---- what memory they may lie in ---- */

static uint32_t memory_types(const struct object *resource) {
    uint32_t types = ALL;
    if (mode->kind == MOLTENVK) {
        bool transient = resource->usage & VK_IMAGE_USAGE_TRANSIENT_ATTACHMENT_BIT;
        bool image = resource->kind == IMAGE;
        if (image && (is_depth_stencil(resource->format) ||
                      (resource->usage & VK_IMAGE_USAGE_DEPTH_STENCIL_ATTACHMENT_BIT)))
            types &= ~(1u << 1);
        if (image && (resource->usage & USAGE_HOST_TRANSFER))
            types &= 1u << 1;
        if (!image || !transient)
            types &= ~(1u << 2);
    }
    if (mode->kind == DISCRETE || mode->kind == DISCRETE_EXPORT) {
        if (resource->flags & SPARSE_BINDING)
            types &= 1u << 1;
        else if (resource->tiled)
            types &= 1u << 0 | 1u << 1;
        else if (resource->handles & HOST_HANDLES)
            types &= ~(1u << 4);
        if (resource->handles & FD_HANDLES)
            types &= mode->exported_types;
    }
    return types;
}

static bool requires_dedicated(const struct object *resource) {
    return resource->kind == IMAGE && (resource->handles & FD_HANDLES);
}

static VkDeviceSize alignment(const struct object *resource) {
    if (resource->kind == BUFFER && buffer_places)
        return buffer_places;
    return resource->tiled ? mode->tiled_alignment : mode->other_alignment;
}

static void requirements(const struct object *resource, VkMemoryRequirements2 *answer) {
    VkMemoryRequirements *found = &answer->memoryRequirements;
    VkDeviceSize wanted = alignment(resource);
    if (found->alignment < wanted || (resource->kind == BUFFER && buffer_places))
        found->alignment = wanted;
    found->size = (found->size + wanted - 1) / wanted * wanted;
    found->memoryTypeBits = memory_types(resource);
    VkMemoryDedicatedRequirements *dedicated = (void *)find_in_chain(
        answer->pNext, VK_STRUCTURE_TYPE_MEMORY_DEDICATED_REQUIREMENTS);
    if (dedicated && requires_dedicated(resource))
        dedicated->requiresDedicatedAllocation = dedicated->prefersDedicatedAllocation = VK_TRUE;
}

/* ---- creation ---- */

static struct object buffer_of(const VkBufferCreateInfo *info) {
    const VkExternalMemoryBufferCreateInfo *external =
        find_in_chain(info->pNext, VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO);
    return (struct object){.kind = BUFFER,
                           .handles = external ? external->handleTypes : 0,
                           .usage = info->usage,
                           .flags = info->flags};
}

static struct object image_of(const VkImageCreateInfo *info) {
    const VkExternalMemoryImageCreateInfo *external =
        find_in_chain(info->pNext, VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO);
    const VkImageStencilUsageCreateInfo *stencil =
        find_in_chain(info->pNext, VK_STRUCTURE_TYPE_IMAGE_STENCIL_USAGE_CREATE_INFO);
    if (external && external->handleTypes && info->initialLayout != VK_IMAGE_LAYOUT_UNDEFINED)
        broken("VUID-VkImageCreateInfo-pNext-01443", "an external image that begins in layout %d",
               info->initialLayout);
    return (struct object){.kind = IMAGE,
                           .handles = external ? external->handleTypes : 0,
                           .usage = info->usage | (stencil ? stencil->stencilUsage : 0),
                           .flags = info->flags,
                           .format = info->format,
                           .tiled = info->tiling == VK_IMAGE_TILING_OPTIMAL};
}

static VkResult check_handles(const struct object *resource) {
    VkFlags unknown = resource->handles & ~(VkFlags)(HOST_HANDLES | mode->exported_handles);
    if (!unknown)
        return VK_SUCCESS;
    return refused(VK_ERROR_FEATURE_NOT_PRESENT, "a %s for handle types %#x",
                   resource->kind == IMAGE ? "image" : "buffer", unknown);
}

/* lavapipe lays external images out in its own way for descriptors; here all are host memory. */
static const void *without_descriptors(struct arena *arena, const struct object *resource,
                                       const void *chain, VkStructureType type) {
    return resource->handles & FD_HANDLES ? copy_chain(arena, chain, type) : chain;
}

static VKAPI_ATTR VkResult VKAPI_CALL create_buffer(VkDevice device,
                                                    const VkBufferCreateInfo *info,
                                                    const VkAllocationCallbacks *allocator,
                                                    VkBuffer *handle) {
    struct object buffer = buffer_of(info);
    struct arena arena = {0};
    VkBufferCreateInfo copy = *info;
    VkResult result = check_handles(&buffer);
    if (result != VK_SUCCESS)
        return result;
    if (!mode->sparse && (info->flags & VK_BUFFER_CREATE_SPARSE_BINDING_BIT))
        return refused(VK_ERROR_FEATURE_NOT_PRESENT, "vkCreateBuffer: a sparse buffer");
    copy.pNext = without_descriptors(&arena, &buffer, info->pNext,
                                     VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO);
    copy.queueFamilyIndexCount = 0;
    copy.sharingMode = VK_SHARING_MODE_EXCLUSIVE;
    result = real.vkCreateBuffer(device, &copy, allocator, handle);
    if (result == VK_SUCCESS) {
        buffer.handle = (uint64_t)*handle;
        add_object(&buffer);
    }
    return result;
}

static VKAPI_ATTR void VKAPI_CALL destroy_buffer(VkDevice device, VkBuffer handle,
                                                 const VkAllocationCallbacks *allocator) {
    struct object buffer;
    if (handle)
        take_object(BUFFER, (uint64_t)handle, &buffer);
    real.vkDestroyBuffer(device, handle, allocator);
}

static VkResult check_image(const VkImageCreateInfo *info) {
    if (!mode->sparse && (info->flags & VK_IMAGE_CREATE_SPARSE_BINDING_BIT))
        return refused(VK_ERROR_FEATURE_NOT_PRESENT, "vkCreateImage: a sparse image");
    if (info->tiling != VK_IMAGE_TILING_LINEAR ||
        (mode->kind != MOLTENVK && mode->kind != KOSMICKRISP))
        return VK_SUCCESS;
    VkResult result = mode->kind == MOLTENVK ? VK_ERROR_FEATURE_NOT_PRESENT
                                             : VK_ERROR_FORMAT_NOT_SUPPORTED;
    if (info->mipLevels > 1 || info->arrayLayers > 1 || info->samples > VK_SAMPLE_COUNT_1_BIT ||
        check_linear(info->format, info->imageType, info->usage) != VK_SUCCESS)
        return refused(result,
                       "vkCreateImage: a linear image of format %d, type %d, usage %#x,"
                       " %u levels, %u layers, %u samples",
                       info->format, info->imageType, info->usage, info->mipLevels,
                       info->arrayLayers, info->samples);
    return VK_SUCCESS;
}

static VKAPI_ATTR VkResult VKAPI_CALL create_image(VkDevice device, const VkImageCreateInfo *info,
                                                   const VkAllocationCallbacks *allocator,
                                                   VkImage *handle) {
    struct object image = image_of(info);
    struct arena arena = {0};
    VkImageCreateInfo copy = *info;
    VkResult result = check_handles(&image);
    if (result == VK_SUCCESS)
        result = check_image(info);
    if (result != VK_SUCCESS)
        return result;
    copy.pNext = without_descriptors(&arena, &image, info->pNext,
                                     VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO);
    copy.queueFamilyIndexCount = 0;
    copy.sharingMode = VK_SHARING_MODE_EXCLUSIVE;
    result = real.vkCreateImage(device, &copy, allocator, handle);
    /* Images of swapchains have their memory from lavapipe. */
    if (result == VK_SUCCESS &&
        !find_in_chain(info->pNext, VK_STRUCTURE_TYPE_IMAGE_SWAPCHAIN_CREATE_INFO_KHR)) {
        image.handle = (uint64_t)*handle;
        add_object(&image);
    }
    return result;
}

static VKAPI_ATTR void VKAPI_CALL destroy_image(VkDevice device, VkImage handle,
                                                const VkAllocationCallbacks *allocator) {
    struct object image;
    if (handle)
        take_object(IMAGE, (uint64_t)handle, &image);
    real.vkDestroyImage(device, handle, allocator);
}

/* ---- requirements ---- */

static VKAPI_ATTR void VKAPI_CALL buffer2(VkDevice device,
                                          const VkBufferMemoryRequirementsInfo2 *info,
                                          VkMemoryRequirements2 *answer) {
    struct object buffer;
    real.vkGetBufferMemoryRequirements2(device, info, answer);
    if (get_object(BUFFER, (uint64_t)info->buffer, &buffer))
        requirements(&buffer, answer);
}

static VKAPI_ATTR void VKAPI_CALL buffer1(VkDevice device, VkBuffer handle,
                                          VkMemoryRequirements *answer) {
    VkBufferMemoryRequirementsInfo2 info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_MEMORY_REQUIREMENTS_INFO_2, .buffer = handle};
    VkMemoryRequirements2 all = {.sType = VK_STRUCTURE_TYPE_MEMORY_REQUIREMENTS_2};
    buffer2(device, &info, &all);
    *answer = all.memoryRequirements;
}

static VKAPI_ATTR void VKAPI_CALL buffer_to_be(VkDevice device,
                                               const VkDeviceBufferMemoryRequirements *info,
                                               VkMemoryRequirements2 *answer) {
    struct object buffer = buffer_of(info->pCreateInfo);
    struct arena arena = {0};
    VkBufferCreateInfo copy = *info->pCreateInfo;
    VkDeviceBufferMemoryRequirements asked = *info;
    copy.pNext = without_descriptors(&arena, &buffer, copy.pNext,
                                     VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO);
    asked.pCreateInfo = &copy;
    real.vkGetDeviceBufferMemoryRequirements(device, &asked, answer);
    requirements(&buffer, answer);
}

static VKAPI_ATTR void VKAPI_CALL image2(VkDevice device,
                                         const VkImageMemoryRequirementsInfo2 *info,
                                         VkMemoryRequirements2 *answer) {
    struct object image;
    real.vkGetImageMemoryRequirements2(device, info, answer);
    if (get_object(IMAGE, (uint64_t)info->image, &image))
        requirements(&image, answer);
}

static VKAPI_ATTR void VKAPI_CALL image1(VkDevice device, VkImage handle,
                                         VkMemoryRequirements *answer) {
    VkImageMemoryRequirementsInfo2 info = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_REQUIREMENTS_INFO_2, .image = handle};
    VkMemoryRequirements2 all = {.sType = VK_STRUCTURE_TYPE_MEMORY_REQUIREMENTS_2};
    image2(device, &info, &all);
    *answer = all.memoryRequirements;
}

static VKAPI_ATTR void VKAPI_CALL image_to_be(VkDevice device,
                                              const VkDeviceImageMemoryRequirements *info,
                                              VkMemoryRequirements2 *answer) {
    struct object image = image_of(info->pCreateInfo);
    struct arena arena = {0};
    VkImageCreateInfo copy = *info->pCreateInfo;
    VkDeviceImageMemoryRequirements asked = *info;
    copy.pNext = without_descriptors(&arena, &image, copy.pNext,
                                     VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO);
    asked.pCreateInfo = &copy;
    real.vkGetDeviceImageMemoryRequirements(device, &asked, answer);
    requirements(&image, answer);
}

/* ---- binding ---- */

static VkResult check_bind(const struct object *resource, uint64_t memory_handle,
                           VkDeviceSize offset, VkDeviceSize size, bool sparse) {
    struct object memory;
    bool image = resource->kind == IMAGE;
    if (!get_object(MEMORY, memory_handle, &memory))
        return VK_SUCCESS;
    if (!(memory_types(resource) >> memory.type & 1))
        broken(sparse  ? "VUID-VkSparseMemoryBind-memory-01096"
               : image ? "VUID-VkBindImageMemoryInfo-pNext-01615"
                       : "VUID-VkBindBufferMemoryInfo-memory-01035",
               "memory type %u, where bits %#x are offered", memory.type, memory_types(resource));
    if (memory.imported && !(resource->handles & memory.imported))
        broken(sparse  ? "VUID-VkSparseMemoryBind-memory-02731"
               : image ? "VUID-VkBindImageMemoryInfo-memory-02989"
                       : "VUID-VkBindBufferMemoryInfo-memory-02985",
               "memory imported as %#x, the resource made for %#x", memory.imported,
               resource->handles);
    if (memory.exported && !(resource->handles & memory.exported))
        broken(sparse  ? "VUID-VkSparseMemoryBind-memory-02730"
               : image ? "VUID-VkBindImageMemoryInfo-memory-02728"
                       : "VUID-VkBindBufferMemoryInfo-memory-02726",
               "memory to be exported as %#x, the resource made for %#x", memory.exported,
               resource->handles);
    if (offset % alignment(resource) || offset + size > memory.size)
        broken(image ? "VUID-VkBindImageMemoryInfo-pNext-01616/01617"
                     : "VUID-VkBindBufferMemoryInfo-memoryOffset-01036",
               "%#llx bytes at %#llx of memory of %#llx bytes", (unsigned long long)size,
               (unsigned long long)offset, (unsigned long long)memory.size);
    if (memory.dedicated && memory.dedicated != resource->handle &&
        !(resource->flags & VK_IMAGE_CREATE_ALIAS_BIT))
        broken(image ? "VUID-VkBindImageMemoryInfo-memory-02628"
                     : "VUID-VkBindBufferMemoryInfo-memory-01508",
               "the memory is dedicated to another");
    if (requires_dedicated(resource) && memory.dedicated != resource->handle)
        broken("VUID-VkBindImageMemoryInfo-image-01445", "the image needs a dedicated allocation");
    if (image && resource->tiled && (memory.imported & HOST_HANDLES)) {
        if (mode->kind == KOSMICKRISP)
            broken("kk_image_plane_bind", "a tiled image, and imported memory has no heap");
        return refused(VK_ERROR_OUT_OF_DEVICE_MEMORY, "a tiled image bound to imported memory");
    }
    return VK_SUCCESS;
}

static VKAPI_ATTR VkResult VKAPI_CALL bind_buffers(VkDevice device, uint32_t count,
                                                   const VkBindBufferMemoryInfo *infos) {
    for (uint32_t i = 0; i < count; i++) {
        struct object buffer;
        VkMemoryRequirements wanted;
        if (!get_object(BUFFER, (uint64_t)infos[i].buffer, &buffer))
            continue;
        buffer1(device, infos[i].buffer, &wanted);
        VkResult result = check_bind(&buffer, (uint64_t)infos[i].memory, infos[i].memoryOffset,
                                     wanted.size, false);
        if (result != VK_SUCCESS)
            return result;
    }
    return real.vkBindBufferMemory2(device, count, infos);
}

static VKAPI_ATTR VkResult VKAPI_CALL bind_buffer(VkDevice device, VkBuffer buffer,
                                                  VkDeviceMemory memory, VkDeviceSize offset) {
    VkBindBufferMemoryInfo info = {.sType = VK_STRUCTURE_TYPE_BIND_BUFFER_MEMORY_INFO,
                                   .buffer = buffer,
                                   .memory = memory,
                                   .memoryOffset = offset};
    return bind_buffers(device, 1, &info);
}

static VKAPI_ATTR VkResult VKAPI_CALL bind_images(VkDevice device, uint32_t count,
                                                  const VkBindImageMemoryInfo *infos) {
    for (uint32_t i = 0; i < count; i++) {
        struct object image;
        VkMemoryRequirements wanted = {0};
        if (!get_object(IMAGE, (uint64_t)infos[i].image, &image))
            continue;
        if (!(image.flags & VK_IMAGE_CREATE_DISJOINT_BIT))
            image1(device, infos[i].image, &wanted);
        VkResult result = check_bind(&image, (uint64_t)infos[i].memory, infos[i].memoryOffset,
                                     wanted.size, false);
        if (result != VK_SUCCESS)
            return result;
    }
    return real.vkBindImageMemory2(device, count, infos);
}

static VKAPI_ATTR VkResult VKAPI_CALL bind_image(VkDevice device, VkImage image,
                                                 VkDeviceMemory memory, VkDeviceSize offset) {
    VkBindImageMemoryInfo info = {.sType = VK_STRUCTURE_TYPE_BIND_IMAGE_MEMORY_INFO,
                                  .image = image,
                                  .memory = memory,
                                  .memoryOffset = offset};
    return bind_images(device, 1, &info);
}

/* ---- sparse binding ---- */

static VkResult check_sparse(enum object_kind kind, uint64_t handle, VkDeviceMemory memory,
                             VkDeviceSize offset) {
    struct object resource;
    if (!memory || !get_object(kind, handle, &resource))
        return VK_SUCCESS;
    return check_bind(&resource, (uint64_t)memory, offset, 0, true);
}

static VKAPI_ATTR VkResult VKAPI_CALL bind_sparse(VkQueue queue, uint32_t count,
                                                  const VkBindSparseInfo *infos, VkFence fence) {
    VkResult result = VK_SUCCESS;
    for (const VkBindSparseInfo *info = infos; info < infos + count; info++) {
        for (uint32_t i = 0; i < info->bufferBindCount; i++)
            for (uint32_t j = 0; j < info->pBufferBinds[i].bindCount && result == VK_SUCCESS; j++)
                result = check_sparse(BUFFER, (uint64_t)info->pBufferBinds[i].buffer,
                                      info->pBufferBinds[i].pBinds[j].memory,
                                      info->pBufferBinds[i].pBinds[j].memoryOffset);
        for (uint32_t i = 0; i < info->imageOpaqueBindCount; i++)
            for (uint32_t j = 0; j < info->pImageOpaqueBinds[i].bindCount && result == VK_SUCCESS;
                 j++)
                result = check_sparse(IMAGE, (uint64_t)info->pImageOpaqueBinds[i].image,
                                      info->pImageOpaqueBinds[i].pBinds[j].memory,
                                      info->pImageOpaqueBinds[i].pBinds[j].memoryOffset);
        for (uint32_t i = 0; i < info->imageBindCount; i++)
            for (uint32_t j = 0; j < info->pImageBinds[i].bindCount && result == VK_SUCCESS; j++)
                result = check_sparse(IMAGE, (uint64_t)info->pImageBinds[i].image,
                                      info->pImageBinds[i].pBinds[j].memory,
                                      info->pImageBinds[i].pBinds[j].memoryOffset);
    }
    return result == VK_SUCCESS ? real.vkQueueBindSparse(queue, count, infos, fence) : result;
}

const struct override resource_overrides[] = {
    OVERRIDE("vkCreateBuffer", create_buffer),
    OVERRIDE("vkDestroyBuffer", destroy_buffer),
    OVERRIDE("vkCreateImage", create_image),
    OVERRIDE("vkDestroyImage", destroy_image),
    OVERRIDE("vkGetBufferMemoryRequirements", buffer1),
    OVERRIDE("vkGetBufferMemoryRequirements2", buffer2),
    OVERRIDE("vkGetBufferMemoryRequirements2KHR", buffer2),
    OVERRIDE("vkGetDeviceBufferMemoryRequirements", buffer_to_be),
    OVERRIDE("vkGetDeviceBufferMemoryRequirementsKHR", buffer_to_be),
    OVERRIDE("vkGetImageMemoryRequirements", image1),
    OVERRIDE("vkGetImageMemoryRequirements2", image2),
    OVERRIDE("vkGetImageMemoryRequirements2KHR", image2),
    OVERRIDE("vkGetDeviceImageMemoryRequirements", image_to_be),
    OVERRIDE("vkGetDeviceImageMemoryRequirementsKHR", image_to_be),
    OVERRIDE("vkBindBufferMemory", bind_buffer),
    OVERRIDE("vkBindBufferMemory2", bind_buffers),
    OVERRIDE("vkBindBufferMemory2KHR", bind_buffers),
    OVERRIDE("vkBindImageMemory", bind_image),
    OVERRIDE("vkBindImageMemory2", bind_images),
    OVERRIDE("vkBindImageMemory2KHR", bind_images),
    OVERRIDE("vkQueueBindSparse", bind_sparse),
    {NULL, NULL},
};
