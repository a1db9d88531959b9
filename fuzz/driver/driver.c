/* A Vulkan driver for fuzz targets: it draws nothing, believes nothing, and reads and writes all that
 * it may, under the address sanitizer.
 *
 * Here is what needs thought: what the device is, memory, and faults.  The rest is generated. */
#include <stdlib.h>

#include "driver.h"

#define EXPORT __attribute__((visibility("default")))
#define MEMORY_LIMIT (UINT64_C(64) << 20)

static uint64_t handles = 0x10000;
static int64_t calls_left;
static int32_t fault;
static volatile uint8_t seen;

/* From the `calls`th call on that can fail, all return `result`; a result of 0: none does. */
EXPORT void fuzz_fault(int64_t calls, int32_t result);

EXPORT void fuzz_fault(int64_t calls, int32_t result)
{
    __atomic_store_n(&fault, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&calls_left, calls, __ATOMIC_SEQ_CST);
    __atomic_store_n(&fault, result, __ATOMIC_SEQ_CST);
}

VkResult outcome(void)
{
    int32_t due = __atomic_load_n(&fault, __ATOMIC_SEQ_CST);
    if (due == 0 || __atomic_sub_fetch(&calls_left, 1, __ATOMIC_SEQ_CST) > 0)
        return VK_SUCCESS;
    return (VkResult)due;
}

void look_at(const void *data, uint64_t size)
{
    uint8_t sum = 0;
    for (uint64_t i = 0; i < size; i++)
        sum ^= ((const uint8_t *)data)[i];
    seen = sum;
}

void fill_in(void *data, uint64_t size)
{
    memset(data, 0x5a, size);
}

uint64_t fresh_handle(void)
{
    return __atomic_add_fetch(&handles, 16, __ATOMIC_SEQ_CST);
}

/* The device. */

static VkResult count_or_fill(uint32_t there, uint32_t *count, const void *data)
{
    VkResult result = data != NULL && *count < there ? VK_INCOMPLETE : VK_SUCCESS;
    if (data == NULL || *count > there)
        *count = there;
    return result;
}

static VkResult VKAPI_CALL instance_version(uint32_t *version)
{
    *version = VK_API_VERSION_1_4;
    return VK_SUCCESS;
}

static VkResult VKAPI_CALL instance_extensions(const char *layer, uint32_t *count,
                                               VkExtensionProperties *found)
{
    (void)layer;
    return count_or_fill(0, count, found);
}

static VkResult VKAPI_CALL physical_devices(VkInstance instance, uint32_t *count,
                                            VkPhysicalDevice *found)
{
    (void)instance;
    VkResult result = count_or_fill(1, count, found);
    if (found != NULL && *count)
        found[0] = (VkPhysicalDevice)(uintptr_t)0x1000;
    return result;
}

static VkResult VKAPI_CALL device_groups(VkInstance instance, uint32_t *count,
                                         VkPhysicalDeviceGroupProperties *found)
{
    (void)instance;
    VkResult result = count_or_fill(1, count, found);
    if (found != NULL && *count) {
        found[0].physicalDeviceCount = 1;
        found[0].physicalDevices[0] = (VkPhysicalDevice)(uintptr_t)0x1000;
    }
    return result;
}

static const char *const extensions[] = {
    "VK_EXT_external_memory_host", "VK_EXT_shader_object", "VK_EXT_mesh_shader",
    "VK_KHR_acceleration_structure", "VK_KHR_ray_tracing_pipeline", "VK_EXT_descriptor_buffer",
    "VK_EXT_transform_feedback", "VK_EXT_extended_dynamic_state3", "VK_KHR_push_descriptor",
    "VK_EXT_host_image_copy", "VK_KHR_deferred_host_operations",
};

static VkResult VKAPI_CALL device_extensions(VkPhysicalDevice device, const char *layer,
                                             uint32_t *count, VkExtensionProperties *found)
{
    (void)device, (void)layer;
    VkResult result = count_or_fill(sizeof(extensions) / sizeof(*extensions), count, found);
    for (uint32_t i = 0; found != NULL && i < *count; i++) {
        memset(&found[i], 0, sizeof(found[i]));
        strcpy(found[i].extensionName, extensions[i]);
        found[i].specVersion = 1;
    }
    return result;
}

static void VKAPI_CALL properties(VkPhysicalDevice device, VkPhysicalDeviceProperties *found)
{
    (void)device;
    memset(found, 0, sizeof(*found));
    found->apiVersion = VK_API_VERSION_1_4;
    found->deviceType = VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU;
    strcpy(found->deviceName, "fuzz");
    found->limits.maxMemoryAllocationCount = 4096;
    found->limits.nonCoherentAtomSize = 64;
    found->limits.minMemoryMapAlignment = 4096;
}

static void VKAPI_CALL properties2(VkPhysicalDevice device, VkPhysicalDeviceProperties2 *found)
{
    look_at_chain(found->pNext);
    properties(device, &found->properties);
}

static void VKAPI_CALL features(VkPhysicalDevice device, VkPhysicalDeviceFeatures *found)
{
    (void)device;
    VkBool32 *each = (VkBool32 *)found;
    for (size_t i = 0; i < sizeof(*found) / sizeof(*each); i++)
        each[i] = VK_TRUE;
}

static void VKAPI_CALL features2(VkPhysicalDevice device, VkPhysicalDeviceFeatures2 *found)
{
    look_at_chain(found->pNext);
    features(device, &found->features);
}

static void VKAPI_CALL families(VkPhysicalDevice device, uint32_t *count,
                                VkQueueFamilyProperties *found)
{
    (void)device;
    count_or_fill(1, count, found);
    if (found != NULL && *count)
        found[0] = (VkQueueFamilyProperties){
            .queueFlags = VK_QUEUE_GRAPHICS_BIT | VK_QUEUE_COMPUTE_BIT | VK_QUEUE_TRANSFER_BIT
                          | VK_QUEUE_SPARSE_BINDING_BIT,
            .queueCount = 4, .timestampValidBits = 64};
}

static void VKAPI_CALL families2(VkPhysicalDevice device, uint32_t *count,
                                 VkQueueFamilyProperties2 *found)
{
    uint32_t one = 1;
    count_or_fill(1, count, found);
    if (found != NULL && *count) {
        look_at_chain(found[0].pNext);
        families(device, &one, &found[0].queueFamilyProperties);
    }
}

static void VKAPI_CALL memory_types(VkPhysicalDevice device,
                                    VkPhysicalDeviceMemoryProperties *found)
{
    (void)device;
    memset(found, 0, sizeof(*found));
    found->memoryTypeCount = 2;
    found->memoryTypes[0].propertyFlags = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
    found->memoryTypes[1].propertyFlags = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT
        | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT | VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    found->memoryHeapCount = 1;
    found->memoryHeaps[0] = (VkMemoryHeap){UINT64_C(1) << 30, VK_MEMORY_HEAP_DEVICE_LOCAL_BIT};
}

static void VKAPI_CALL memory_types2(VkPhysicalDevice device,
                                     VkPhysicalDeviceMemoryProperties2 *found)
{
    look_at_chain(found->pNext);
    memory_types(device, &found->memoryProperties);
}

static VkResult VKAPI_CALL image_format(VkPhysicalDevice device,
                                        const VkPhysicalDeviceImageFormatInfo2 *info,
                                        VkImageFormatProperties2 *found)
{
    (void)device;
    look_at_chain(info->pNext);
    look_at_chain(found->pNext);
    found->imageFormatProperties =
        (VkImageFormatProperties){{4096, 4096, 256}, 12, 256, 15, UINT64_C(1) << 31};
    return outcome();
}

static void VKAPI_CALL external_buffer(VkPhysicalDevice device,
                                       const VkPhysicalDeviceExternalBufferInfo *info,
                                       VkExternalBufferProperties *found)
{
    (void)device;
    look_at_chain(info->pNext);
    found->externalMemoryProperties.externalMemoryFeatures =
        VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT;
}

/* Memory. */

typedef struct {
    void *data;
    uint64_t size;
    int is_own;
} Memory;

static VkResult VKAPI_CALL allocate_memory(VkDevice device, const VkMemoryAllocateInfo *info,
                                           const VkAllocationCallbacks *allocator,
                                           VkDeviceMemory *made)
{
    (void)device, (void)allocator;
    look_at_chain(info);
    VkResult result = outcome();
    if (result == VK_SUCCESS && info->allocationSize > MEMORY_LIMIT)
        result = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    if (result != VK_SUCCESS)
        return result;
    Memory *memory = calloc(1, sizeof(*memory));
    memory->size = info->allocationSize;
    for (const VkBaseInStructure *next = info->pNext; next != NULL; next = next->pNext)
        if (next->sType == VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT)
            memory->data = ((const VkImportMemoryHostPointerInfoEXT *)next)->pHostPointer;
    if (memory->data == NULL && info->memoryTypeIndex == 1) {
        memory->data = calloc(1, memory->size);
        memory->is_own = 1;
    } else if (memory->data != NULL) {
        /* All of it is there, to be read and written. */
        fill_in(memory->data, memory->size);
    }
    *made = (VkDeviceMemory)(uintptr_t)memory;
    return VK_SUCCESS;
}

static void VKAPI_CALL free_memory(VkDevice device, VkDeviceMemory it,
                                   const VkAllocationCallbacks *allocator)
{
    (void)device, (void)allocator;
    Memory *memory = (Memory *)(uintptr_t)it;
    if (memory == NULL)
        return;
    if (memory->is_own)
        free(memory->data);
    else if (memory->data != NULL)
        fill_in(memory->data, memory->size); /* it is the owner's until now */
    free(memory);
}

static VkResult VKAPI_CALL map_memory(VkDevice device, VkDeviceMemory it, VkDeviceSize offset,
                                      VkDeviceSize size, VkMemoryMapFlags flags, void **data)
{
    (void)device, (void)size, (void)flags;
    Memory *memory = (Memory *)(uintptr_t)it;
    if (memory->data == NULL)
        return VK_ERROR_MEMORY_MAP_FAILED;
    *data = (char *)memory->data + offset;
    return outcome();
}

static VkResult VKAPI_CALL host_pointer(VkDevice device, VkExternalMemoryHandleTypeFlagBits type,
                                        const void *pointer,
                                        VkMemoryHostPointerPropertiesEXT *found)
{
    (void)device, (void)type, (void)pointer;
    found->memoryTypeBits = 2;
    return VK_SUCCESS;
}

static void VKAPI_CALL needs(VkDevice device, uint64_t object, VkMemoryRequirements *found)
{
    (void)device, (void)object;
    *found = (VkMemoryRequirements){65536, 4096, 3};
}

static void VKAPI_CALL needs2(VkDevice device, const VkBaseInStructure *info,
                              VkMemoryRequirements2 *found)
{
    look_at_chain(info);
    look_at_chain(found->pNext);
    needs(device, 0, &found->memoryRequirements);
}

static VkResult VKAPI_CALL data_of_size(VkDevice device, uint64_t object, size_t *size, void *data)
{
    (void)device, (void)object;
    if (data == NULL)
        *size = 64;
    else
        fill_in(data, *size);
    return outcome();
}

/* A query that is not there is given no more than it has room for. */
static void VKAPI_CALL image_layout(VkDevice device, uint64_t image, const void *what,
                                    VkSubresourceLayout *found)
{
    (void)device, (void)image;
    look_at(what, sizeof(VkImageSubresource));
    *found = (VkSubresourceLayout){0, 65536, 256, 65536, 65536};
}

#define COMMAND(name, function) {#name, (PFN_vkVoidFunction)(function)}
static const Command commands[] = {
    COMMAND(vkEnumerateInstanceVersion, instance_version),
    COMMAND(vkEnumerateInstanceExtensionProperties, instance_extensions),
    COMMAND(vkEnumeratePhysicalDevices, physical_devices),
    COMMAND(vkEnumeratePhysicalDeviceGroups, device_groups),
    COMMAND(vkEnumerateDeviceExtensionProperties, device_extensions),
    COMMAND(vkGetPhysicalDeviceProperties, properties),
    COMMAND(vkGetPhysicalDeviceProperties2, properties2),
    COMMAND(vkGetPhysicalDeviceFeatures, features),
    COMMAND(vkGetPhysicalDeviceFeatures2, features2),
    COMMAND(vkGetPhysicalDeviceQueueFamilyProperties, families),
    COMMAND(vkGetPhysicalDeviceQueueFamilyProperties2, families2),
    COMMAND(vkGetPhysicalDeviceMemoryProperties, memory_types),
    COMMAND(vkGetPhysicalDeviceMemoryProperties2, memory_types2),
    COMMAND(vkGetPhysicalDeviceImageFormatProperties2, image_format),
    COMMAND(vkGetPhysicalDeviceExternalBufferProperties, external_buffer),
    COMMAND(vkAllocateMemory, allocate_memory),
    COMMAND(vkFreeMemory, free_memory),
    COMMAND(vkMapMemory, map_memory),
    COMMAND(vkGetMemoryHostPointerPropertiesEXT, host_pointer),
    COMMAND(vkGetBufferMemoryRequirements, needs),
    COMMAND(vkGetImageMemoryRequirements, needs),
    COMMAND(vkGetBufferMemoryRequirements2, needs2),
    COMMAND(vkGetImageMemoryRequirements2, needs2),
    COMMAND(vkGetDeviceBufferMemoryRequirements, needs2),
    COMMAND(vkGetDeviceImageMemoryRequirements, needs2),
    COMMAND(vkGetPipelineCacheData, data_of_size),
    COMMAND(vkGetValidationCacheDataEXT, data_of_size),
    COMMAND(vkGetImageSubresourceLayout, image_layout),
};

EXPORT PFN_vkVoidFunction VKAPI_CALL vkGetDeviceProcAddr(VkDevice device, const char *name)
{
    (void)device;
    if (!strcmp(name, "vkGetDeviceProcAddr"))
        return (PFN_vkVoidFunction)vkGetDeviceProcAddr;
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
        if (!strcmp(commands[i].name, name))
            return commands[i].function;
    for (size_t i = 0; i < generated_command_count; i++)
        if (!strcmp(generated_commands[i].name, name))
            return generated_commands[i].function;
    return NULL;
}

EXPORT PFN_vkVoidFunction VKAPI_CALL vkGetInstanceProcAddr(VkInstance instance, const char *name)
{
    (void)instance;
    return vkGetDeviceProcAddr(NULL, name);
}
