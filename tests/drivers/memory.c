/* Memory: allocated, imported, exported, mapped.  All of it is of lavapipe's one type. */
#include "driver.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define ZERO_INITIALIZE 0x8u /* VK_MEMORY_ALLOCATE_ZERO_INITIALIZE_BIT_EXT, newer than some headers */

static bool has(const struct object *memory, VkMemoryPropertyFlags flag) {
    return mode->types[memory->type].propertyFlags & flag;
}

/* ---- imports ---- */

static VkResult check_host_import(const struct object *memory,
                                  const VkImportMemoryHostPointerInfoEXT *import) {
    if (!(import->handleType & HOST_HANDLES))
        return refused(VK_ERROR_INVALID_EXTERNAL_HANDLE, "vkAllocateMemory: handle type %#x",
                       import->handleType);
    if (memory->dedicated)
        broken("VUID-VkMemoryAllocateInfo-pNext-02806",
               "a dedicated allocation of an imported host pointer");
    if (!(mode->imported_types >> memory->type & 1))
        return refused(VK_ERROR_INVALID_EXTERNAL_HANDLE,
                       "vkAllocateMemory: memory type %u imports no host pointer", memory->type);
    if ((uintptr_t)import->pHostPointer % mode->page || memory->size % mode->page)
        return refused(mode->misaligned,
                       "vkAllocateMemory: imports are of whole pages of %llu bytes, not %p + %#llx",
                       (unsigned long long)mode->page, import->pHostPointer,
                       (unsigned long long)memory->size);
    return VK_SUCCESS;
}

/* ---- descriptors: memory files that lavapipe gets as host pointers ---- */

static VkResult map_file(struct object *memory, int file) {
    long page = sysconf(_SC_PAGESIZE);
    memory->length = (memory->size + (VkDeviceSize)page - 1) & ~(VkDeviceSize)(page - 1);
    struct stat status;
    if (fstat(file, &status) < 0 || (VkDeviceSize)status.st_size < memory->length)
        return refused(VK_ERROR_INVALID_EXTERNAL_HANDLE, "descriptor %d is no memory of %#llx bytes",
                       file, (unsigned long long)memory->size);
    void *pages = mmap(NULL, memory->length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (pages == MAP_FAILED)
        return refused(VK_ERROR_INVALID_EXTERNAL_HANDLE, "descriptor %d: %s", file,
                       strerror(errno));
    memory->pages = pages;
    memory->fd = file;
    return VK_SUCCESS;
}

static VkResult make_export(struct object *memory) {
    if (memory->exported & ~mode->exported_handles || !(mode->exported_types >> memory->type & 1))
        return refused(mode->kind == MOLTENVK ? VK_ERROR_INITIALIZATION_FAILED
                                              : VK_ERROR_INVALID_EXTERNAL_HANDLE,
                       "vkAllocateMemory: type %u cannot be exported as %#x", memory->type,
                       memory->exported);
    if (!mode->exports_map)
        return VK_SUCCESS;
    int file = memfd_create("fake driver", MFD_CLOEXEC);
    long page = sysconf(_SC_PAGESIZE);
    VkDeviceSize length = (memory->size + (VkDeviceSize)page - 1) & ~(VkDeviceSize)(page - 1);
    if (file < 0 || ftruncate(file, (off_t)length) < 0 || map_file(memory, file) != VK_SUCCESS) {
        if (file >= 0)
            close(file);
        return VK_ERROR_OUT_OF_DEVICE_MEMORY;
    }
    return VK_SUCCESS;
}

static VkResult import_descriptor(struct object *memory, const VkImportMemoryFdInfoKHR *import) {
    if (!mode->exports_map || !(import->handleType & mode->exported_handles) ||
        !(mode->exported_types >> memory->type & 1))
        return refused(VK_ERROR_INVALID_EXTERNAL_HANDLE,
                       "vkAllocateMemory: type %u imports no descriptor as %#x", memory->type,
                       import->handleType);
    return map_file(memory, import->fd);
}

static void release_pages(struct object *memory) {
    if (!memory->pages)
        return;
    munmap(memory->pages, memory->length);
    close(memory->fd);
}

/* ---- vkAllocateMemory and vkFreeMemory ---- */

static VKAPI_ATTR VkResult VKAPI_CALL allocate(VkDevice device, const VkMemoryAllocateInfo *info,
                                               const VkAllocationCallbacks *allocator,
                                               VkDeviceMemory *handle) {
    struct object memory = {.kind = MEMORY, .type = info->memoryTypeIndex,
                            .size = info->allocationSize};
    const VkMemoryDedicatedAllocateInfo *dedicated =
        find_in_chain(info->pNext, VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO);
    const VkImportMemoryHostPointerInfoEXT *host =
        find_in_chain(info->pNext, VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT);
    const VkImportMemoryFdInfoKHR *descriptor =
        find_in_chain(info->pNext, VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR);
    const VkExportMemoryAllocateInfo *export =
        find_in_chain(info->pNext, VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO);
    const VkMemoryAllocateFlagsInfo *flags =
        find_in_chain(info->pNext, VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO);
    VkResult result = VK_SUCCESS;
    if (flags && flags->flags & ZERO_INITIALIZE &&
        ((host && host->handleType) || (descriptor && descriptor->handleType)))
        broken("VUID-VkMemoryAllocateFlagsInfo-flags-10760", "an import that is to be cleared");
    if (memory.type >= mode->type_count)
        broken("VUID-vkAllocateMemory-pAllocateInfo-01714", "memory type %u of %u", memory.type,
               mode->type_count);
    if (dedicated)
        memory.dedicated = dedicated->image ? (uint64_t)dedicated->image
                                            : (uint64_t)dedicated->buffer;
    if (export)
        memory.exported = export->handleTypes;
    if (host && host->handleType) {
        memory.imported = host->handleType;
        result = check_host_import(&memory, host);
    } else if (descriptor && descriptor->handleType) {
        memory.imported = descriptor->handleType;
        result = import_descriptor(&memory, descriptor);
    } else if (memory.exported) {
        result = make_export(&memory);
    }
    if (result != VK_SUCCESS)
        return result;

    struct arena arena = {0}, rest = {0};
    VkMemoryAllocateInfo copy = *info;
    VkImportMemoryHostPointerInfoEXT pages = {
        .sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT,
        .handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT,
        .pHostPointer = memory.pages,
    };
    copy.memoryTypeIndex = 0;
    if (export)
        copy.pNext = copy_chain(&arena, copy.pNext, export->sType);
    if (descriptor)
        copy.pNext = copy_chain(&rest, copy.pNext, descriptor->sType);
    if (memory.pages) {
        pages.pNext = copy.pNext;
        copy.pNext = &pages;
        copy.allocationSize = memory.length;
    }
    result = real.vkAllocateMemory(device, &copy, allocator, handle);
    if (result == VK_SUCCESS) {
        memory.handle = (uint64_t)*handle;
        add_object(&memory);
    } else {
        if (descriptor) /* it stays the program's */
            memory.fd = -1;
        release_pages(&memory);
    }
    return result;
}

static VKAPI_ATTR void VKAPI_CALL release(VkDevice device, VkDeviceMemory handle,
                                          const VkAllocationCallbacks *allocator) {
    struct object memory;
    bool known = handle && take_object(MEMORY, (uint64_t)handle, &memory);
    real.vkFreeMemory(device, handle, allocator);
    if (known)
        release_pages(&memory);
}

/* ---- mapping ---- */

static VkResult check_map(VkDeviceMemory handle) {
    struct object memory;
    if (!get_object(MEMORY, (uint64_t)handle, &memory))
        return VK_SUCCESS;
    if (!has(&memory, VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT))
        return refused(VK_ERROR_MEMORY_MAP_FAILED,
                       "VUID-vkMapMemory-memory-00682: memory type %u is not host-visible",
                       memory.type);
    if (memory.mapped)
        return refused(VK_ERROR_MEMORY_MAP_FAILED,
                       "VUID-vkMapMemory-memory-00678: the memory is mapped already");
    return VK_SUCCESS;
}

static VKAPI_ATTR VkResult VKAPI_CALL map(VkDevice device, VkDeviceMemory handle,
                                          VkDeviceSize offset, VkDeviceSize size,
                                          VkMemoryMapFlags flags, void **data) {
    VkResult result = check_map(handle);
    if (result == VK_SUCCESS)
        result = real.vkMapMemory(device, handle, offset, size, flags, data);
    if (result == VK_SUCCESS)
        set_mapped((uint64_t)handle, true);
    return result;
}

static VKAPI_ATTR VkResult VKAPI_CALL map2(VkDevice device, const struct map_info *info,
                                           void **data) {
    VkResult result = check_map(info->memory);
    if (result == VK_SUCCESS)
        result = real.vkMapMemory2(device, info, data);
    if (result == VK_SUCCESS)
        set_mapped((uint64_t)info->memory, true);
    return result;
}

static VKAPI_ATTR void VKAPI_CALL unmap(VkDevice device, VkDeviceMemory handle) {
    set_mapped((uint64_t)handle, false);
    real.vkUnmapMemory(device, handle);
}

struct unmap_info { /* VkMemoryUnmapInfo */
    VkStructureType sType;
    const void *pNext;
    VkFlags flags;
    VkDeviceMemory memory;
};

static VKAPI_ATTR VkResult VKAPI_CALL unmap2(VkDevice device, const struct unmap_info *info) {
    unmap(device, info->memory);
    return VK_SUCCESS;
}

/* ---- what can be imported and exported ---- */

static VKAPI_ATTR VkResult VKAPI_CALL host_pointer(VkDevice device,
                                                   VkExternalMemoryHandleTypeFlagBits handle,
                                                   const void *pointer,
                                                   VkMemoryHostPointerPropertiesEXT *properties) {
    (void)device;
    properties->memoryTypeBits = 0;
    if (!(handle & HOST_HANDLES))
        return mode->kind == MOLTENVK ? VK_SUCCESS : VK_ERROR_INVALID_EXTERNAL_HANDLE;
    if ((uintptr_t)pointer % mode->page && mode->kind != MOLTENVK && mode->kind != KOSMICKRISP)
        return refused(VK_ERROR_INVALID_EXTERNAL_HANDLE, "host pointer %p", pointer);
    properties->memoryTypeBits = mode->imported_types;
    return VK_SUCCESS;
}

static VKAPI_ATTR VkResult VKAPI_CALL get_descriptor(VkDevice device,
                                                     const VkMemoryGetFdInfoKHR *info,
                                                     int *descriptor) {
    struct object memory;
    (void)device;
    if (!get_object(MEMORY, (uint64_t)info->memory, &memory) ||
        !((memory.exported | memory.imported) & info->handleType & mode->exported_handles))
        broken("VUID-VkMemoryGetFdInfoKHR-handleType-00671",
               "the memory was not made to be exported as %#x", info->handleType);
    /* Where exports cannot be mapped: something that is no memory. */
    *descriptor = memory.pages ? dup(memory.fd) : eventfd(0, EFD_CLOEXEC);
    return *descriptor < 0 ? VK_ERROR_TOO_MANY_OBJECTS : VK_SUCCESS;
}

static VKAPI_ATTR VkResult VKAPI_CALL descriptor_properties(
    VkDevice device, VkExternalMemoryHandleTypeFlagBits handle, int descriptor,
    VkMemoryFdPropertiesKHR *properties) {
    struct stat status;
    (void)device;
    properties->memoryTypeBits = 0;
    if (!mode->exports_map || !(handle & mode->exported_handles) ||
        fstat(descriptor, &status) < 0 || !S_ISREG(status.st_mode))
        return VK_ERROR_INVALID_EXTERNAL_HANDLE;
    properties->memoryTypeBits = mode->exported_types;
    return VK_SUCCESS;
}

const struct override memory_overrides[] = {
    OVERRIDE("vkAllocateMemory", allocate),
    OVERRIDE("vkFreeMemory", release),
    OVERRIDE("vkMapMemory", map),
    OVERRIDE("vkMapMemory2", map2),
    OVERRIDE("vkMapMemory2KHR", map2),
    OVERRIDE("vkUnmapMemory", unmap),
    OVERRIDE("vkUnmapMemory2", unmap2),
    OVERRIDE("vkUnmapMemory2KHR", unmap2),
    OVERRIDE("vkGetMemoryHostPointerPropertiesEXT", host_pointer),
    OVERRIDE("vkGetMemoryFdKHR", get_descriptor),
    OVERRIDE("vkGetMemoryFdPropertiesKHR", descriptor_properties),
    {NULL, NULL},
};
