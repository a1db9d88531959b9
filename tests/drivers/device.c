/* Devices: what they say of themselves, their queues and queue families. */
#include "driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool matches(const char *const *list, const char *name) {
    for (; *list; list++) {
        const char *star = strchr(*list, '*');
        if (star ? strncmp(*list, name, (size_t)(star - *list)) == 0 : strcmp(*list, name) == 0)
            return true;
    }
    return false;
}

/* ---- devices and queues ---- */

static VKAPI_ATTR VkResult VKAPI_CALL create_device(VkPhysicalDevice physical,
                                                    const VkDeviceCreateInfo *info,
                                                    const VkAllocationCallbacks *allocator,
                                                    VkDevice *device) {
    const char *names[512];
    VkDeviceQueueCreateInfo queue = info->pQueueCreateInfos[0];
    VkDeviceCreateInfo copy = *info;
    copy.ppEnabledExtensionNames = names;
    copy.enabledExtensionCount = 0;
    for (uint32_t i = 0; i < info->enabledExtensionCount; i++) {
        const char *name = info->ppEnabledExtensionNames[i];
        if (matches(mode->hidden, name))
            return refused(VK_ERROR_EXTENSION_NOT_PRESENT, "vkCreateDevice: %s", name);
        if (!matches(mode->added, name) && copy.enabledExtensionCount < COUNT(names))
            names[copy.enabledExtensionCount++] = name;
    }
    for (uint32_t i = 0; i < info->queueCreateInfoCount; i++) {
        const VkDeviceQueueCreateInfo *wanted = &info->pQueueCreateInfos[i];
        if (wanted->queueFamilyIndex >= mode->queue_families || wanted->queueCount != 1)
            broken("VUID-VkDeviceQueueCreateInfo-queueFamilyIndex-00381",
                   "%u queues of family %u", wanted->queueCount, wanted->queueFamilyIndex);
    }
    const VkPhysicalDeviceRobustness2FeaturesEXT *robustness = find_in_chain(
        info->pNext, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ROBUSTNESS_2_FEATURES_EXT);
    if (mode->no_null && robustness &&
        (robustness->nullDescriptor || robustness->robustBufferAccess2))
        return refused(VK_ERROR_FEATURE_NOT_PRESENT, "vkCreateDevice: robustness2");
    queue.queueFamilyIndex = 0; /* lavapipe has one, with one queue */
    copy.pQueueCreateInfos = &queue;
    copy.queueCreateInfoCount = 1;
    return real.vkCreateDevice(physical, &copy, allocator, device);
}

static VKAPI_ATTR void VKAPI_CALL destroy_device(VkDevice device,
                                                 const VkAllocationCallbacks *allocator) {
    if (device)
        forget_device(device);
    real.vkDestroyDevice(device, allocator);
}

static VKAPI_ATTR void VKAPI_CALL get_queue(VkDevice device, uint32_t family, uint32_t index,
                                            VkQueue *queue) {
    if (family >= mode->queue_families || index != 0)
        broken("VUID-vkGetDeviceQueue-queueFamilyIndex-00384", "queue %u of family %u", index,
               family);
    real.vkGetDeviceQueue(device, 0, 0, queue);
    note_queue(device, *queue);
}

static VKAPI_ATTR void VKAPI_CALL get_queue2(VkDevice device, const VkDeviceQueueInfo2 *info,
                                             VkQueue *queue) {
    VkDeviceQueueInfo2 copy = *info;
    copy.queueFamilyIndex = 0;
    real.vkGetDeviceQueue2(device, &copy, queue);
    note_queue(device, *queue);
}

static VKAPI_ATTR VkResult VKAPI_CALL create_pool(VkDevice device,
                                                  const VkCommandPoolCreateInfo *info,
                                                  const VkAllocationCallbacks *allocator,
                                                  VkCommandPool *pool) {
    VkCommandPoolCreateInfo copy = *info;
    copy.queueFamilyIndex = 0;
    return real.vkCreateCommandPool(device, &copy, allocator, pool);
}

const struct override device_overrides[] = {
    OVERRIDE("vkCreateDevice", create_device),
    OVERRIDE("vkDestroyDevice", destroy_device),
    OVERRIDE("vkGetDeviceQueue", get_queue),
    OVERRIDE("vkGetDeviceQueue2", get_queue2),
    OVERRIDE("vkCreateCommandPool", create_pool),
    {NULL, NULL},
};

/* ---- what physical devices say ---- */

static VKAPI_ATTR VkResult VKAPI_CALL extensions(VkPhysicalDevice physical, const char *layer,
                                                 uint32_t *count,
                                                 VkExtensionProperties *properties) {
    uint32_t had = 0, kept = 0;
    if (layer)
        return real.vkEnumerateDeviceExtensionProperties(physical, layer, count, properties);
    VkResult result = real.vkEnumerateDeviceExtensionProperties(physical, NULL, &had, NULL);
    VkExtensionProperties *all = calloc(had + 8, sizeof *all);
    if (result != VK_SUCCESS || !all) {
        free(all);
        return result == VK_SUCCESS ? VK_ERROR_OUT_OF_HOST_MEMORY : result;
    }
    result = real.vkEnumerateDeviceExtensionProperties(physical, NULL, &had, all);
    for (uint32_t i = 0; i < had; i++) /* what is added comes again, below */
        if (!matches(mode->hidden, all[i].extensionName) &&
            !matches(mode->added, all[i].extensionName))
            all[kept++] = all[i];
    for (size_t i = 0; mode->added[i]; i++) {
        VkExtensionProperties added = {.specVersion = 1};
        strncpy(added.extensionName, mode->added[i], sizeof added.extensionName - 1);
        all[kept++] = added;
    }
    if (properties && result == VK_SUCCESS) {
        result = *count < kept ? VK_INCOMPLETE : VK_SUCCESS;
        kept = *count < kept ? *count : kept;
        memcpy(properties, all, kept * sizeof *all);
    }
    *count = kept;
    free(all);
    return result;
}

static VKAPI_ATTR void VKAPI_CALL memory2(VkPhysicalDevice physical,
                                          VkPhysicalDeviceMemoryProperties2 *properties) {
    real.vkGetPhysicalDeviceMemoryProperties2(physical, properties);
    VkPhysicalDeviceMemoryProperties *memory = &properties->memoryProperties;
    VkDeviceSize size = memory->memoryHeaps[0].size;
    memory->memoryHeapCount = mode->heap_count;
    memory->memoryTypeCount = mode->type_count;
    for (uint32_t i = 0; i < mode->heap_count; i++) {
        memory->memoryHeaps[i].flags = mode->heaps[i];
        memory->memoryHeaps[i].size = size / mode->heap_count;
    }
    memcpy(memory->memoryTypes, mode->types, sizeof mode->types);
    VkPhysicalDeviceMemoryBudgetPropertiesEXT *budget = (void *)find_in_chain(
        properties->pNext, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT);
    for (uint32_t i = mode->heap_count; budget && i-- > 0;)
        budget->heapBudget[i] = budget->heapBudget[0] / mode->heap_count;
}

static VKAPI_ATTR void VKAPI_CALL memory1(VkPhysicalDevice physical,
                                          VkPhysicalDeviceMemoryProperties *properties) {
    VkPhysicalDeviceMemoryProperties2 all = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2};
    memory2(physical, &all);
    *properties = all.memoryProperties;
}

static VKAPI_ATTR void VKAPI_CALL properties2(VkPhysicalDevice physical,
                                              VkPhysicalDeviceProperties2 *properties) {
    real.vkGetPhysicalDeviceProperties2(physical, properties);
    if (!is_processor) {
        properties->properties.deviceType = mode->device_type;
        /* Some tell a processor by lavapipe's name alone: Xorg, of what it would draw by. */
        snprintf(properties->properties.deviceName, sizeof properties->properties.deviceName,
                 "fake %s", mode->name);
    }
    if (descriptor_places) {
        VkPhysicalDeviceLimits *limits = &properties->properties.limits;
        limits->minUniformBufferOffsetAlignment = descriptor_places;
        limits->minStorageBufferOffsetAlignment = descriptor_places;
        limits->minTexelBufferOffsetAlignment = descriptor_places;
    }
    if (!mode->sparse) {
        properties->properties.limits.sparseAddressSpaceSize = 0;
        memset(&properties->properties.sparseProperties, 0,
               sizeof properties->properties.sparseProperties);
    }
    VkPhysicalDeviceExternalMemoryHostPropertiesEXT *host = (void *)find_in_chain(
        properties->pNext, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT);
    if (host)
        host->minImportedHostPointerAlignment = mode->page;
    VkPhysicalDevicePortabilitySubsetPropertiesKHR *subset = (void *)find_in_chain(
        properties->pNext, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PORTABILITY_SUBSET_PROPERTIES_KHR);
    if (subset && matches(mode->added, "VK_KHR_portability_subset"))
        subset->minVertexInputBindingStrideAlignment = 4;
}

static VKAPI_ATTR void VKAPI_CALL properties1(VkPhysicalDevice physical,
                                              VkPhysicalDeviceProperties *properties) {
    VkPhysicalDeviceProperties2 all = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
    properties2(physical, &all);
    *properties = all.properties;
}

static VKAPI_ATTR void VKAPI_CALL features2(VkPhysicalDevice physical,
                                            VkPhysicalDeviceFeatures2 *features) {
    real.vkGetPhysicalDeviceFeatures2(physical, features);
    VkPhysicalDeviceFeatures *found = &features->features;
    if (!mode->sparse) {
        found->sparseBinding = found->sparseResidencyBuffer = VK_FALSE;
        found->sparseResidencyImage2D = found->sparseResidencyImage3D = VK_FALSE;
        found->sparseResidency2Samples = found->sparseResidency4Samples = VK_FALSE;
        found->sparseResidency8Samples = found->sparseResidency16Samples = VK_FALSE;
        found->sparseResidencyAliased = found->shaderResourceResidency = VK_FALSE;
    }
    VkPhysicalDeviceRobustness2FeaturesEXT *robustness = (void *)find_in_chain(
        features->pNext, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ROBUSTNESS_2_FEATURES_EXT);
    if (robustness && mode->no_null)
        robustness->nullDescriptor = robustness->robustBufferAccess2 = VK_FALSE;
    VkPhysicalDevicePortabilitySubsetFeaturesKHR *subset = (void *)find_in_chain(
        features->pNext, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PORTABILITY_SUBSET_FEATURES_KHR);
    if (subset && matches(mode->added, "VK_KHR_portability_subset")) {
        VkPhysicalDevicePortabilitySubsetFeaturesKHR values = {
            .sType = subset->sType,
            .pNext = subset->pNext,
            .constantAlphaColorBlendFactors = VK_TRUE,
            .events = VK_TRUE,
            .imageViewFormatReinterpretation = VK_TRUE,
            .imageViewFormatSwizzle = VK_TRUE,
            .imageView2DOn3DImage = VK_TRUE,
            .multisampleArrayImage = VK_TRUE,
            .mutableComparisonSamplers = VK_TRUE,
            .samplerMipLodBias = VK_TRUE,
            .separateStencilMaskRef = VK_TRUE,
            .shaderSampleRateInterpolationFunctions = VK_TRUE,
            .triangleFans = VK_TRUE,
            .vertexAttributeAccessBeyondStride = VK_TRUE,
        };
        *subset = values;
    }
}

static VKAPI_ATTR void VKAPI_CALL features1(VkPhysicalDevice physical,
                                            VkPhysicalDeviceFeatures *features) {
    VkPhysicalDeviceFeatures2 all = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2};
    features2(physical, &all);
    *features = all.features;
}

static VKAPI_ATTR void VKAPI_CALL families2(VkPhysicalDevice physical, uint32_t *count,
                                            VkQueueFamilyProperties2 *properties) {
    if (!properties) {
        *count = mode->queue_families;
        return;
    }
    *count = *count < mode->queue_families ? *count : mode->queue_families;
    for (uint32_t i = 0; i < *count; i++) { /* each as lavapipe's one */
        uint32_t one = 1;
        real.vkGetPhysicalDeviceQueueFamilyProperties2(physical, &one, &properties[i]);
        if (!mode->sparse)
            properties[i].queueFamilyProperties.queueFlags &= ~VK_QUEUE_SPARSE_BINDING_BIT;
    }
}

static VKAPI_ATTR void VKAPI_CALL families1(VkPhysicalDevice physical, uint32_t *count,
                                            VkQueueFamilyProperties *properties) {
    VkQueueFamilyProperties2 all[8] = {{0}};
    for (size_t i = 0; i < COUNT(all); i++)
        all[i].sType = VK_STRUCTURE_TYPE_QUEUE_FAMILY_PROPERTIES_2;
    families2(physical, count, properties ? all : NULL);
    for (uint32_t i = 0; properties && i < *count; i++)
        properties[i] = all[i].queueFamilyProperties;
}

static VKAPI_ATTR VkResult VKAPI_CALL surface_support(VkPhysicalDevice physical, uint32_t family,
                                                      VkSurfaceKHR surface, VkBool32 *supported) {
    (void)family;
    return real.vkGetPhysicalDeviceSurfaceSupportKHR(physical, 0, surface, supported);
}

const struct override physical_overrides[] = {
    OVERRIDE("vkEnumerateDeviceExtensionProperties", extensions),
    OVERRIDE("vkGetPhysicalDeviceMemoryProperties", memory1),
    OVERRIDE("vkGetPhysicalDeviceMemoryProperties2", memory2),
    OVERRIDE("vkGetPhysicalDeviceMemoryProperties2KHR", memory2),
    OVERRIDE("vkGetPhysicalDeviceProperties", properties1),
    OVERRIDE("vkGetPhysicalDeviceProperties2", properties2),
    OVERRIDE("vkGetPhysicalDeviceProperties2KHR", properties2),
    OVERRIDE("vkGetPhysicalDeviceFeatures", features1),
    OVERRIDE("vkGetPhysicalDeviceFeatures2", features2),
    OVERRIDE("vkGetPhysicalDeviceFeatures2KHR", features2),
    OVERRIDE("vkGetPhysicalDeviceQueueFamilyProperties", families1),
    OVERRIDE("vkGetPhysicalDeviceQueueFamilyProperties2", families2),
    OVERRIDE("vkGetPhysicalDeviceQueueFamilyProperties2KHR", families2),
    OVERRIDE("vkGetPhysicalDeviceSurfaceSupportKHR", surface_support),
    {NULL, NULL},
};
