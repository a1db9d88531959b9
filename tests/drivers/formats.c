/* What formats and kinds of images a mode has, and what of them can be external. */
#include "driver.h"

#include <string.h>

bool is_depth_stencil(VkFormat format) {
    return format >= VK_FORMAT_D16_UNORM && format <= VK_FORMAT_D32_SFLOAT_S8_UINT;
}

static bool is_compressed(VkFormat format) {
    return (format >= VK_FORMAT_BC1_RGB_UNORM_BLOCK &&
            format <= VK_FORMAT_ASTC_12x12_SRGB_BLOCK) ||
           (format >= VK_FORMAT_PVRTC1_2BPP_UNORM_BLOCK_IMG &&
            format <= VK_FORMAT_PVRTC2_4BPP_SRGB_BLOCK_IMG) ||
           (format >= VK_FORMAT_ASTC_4x4_SFLOAT_BLOCK &&
            format <= VK_FORMAT_ASTC_12x12_SFLOAT_BLOCK);
}

static bool has_metals_linear_images(void) {
    return mode->kind == MOLTENVK || mode->kind == KOSMICKRISP;
}

VkResult check_linear(VkFormat format, VkImageType type, VkImageUsageFlags usage) {
    if (!has_metals_linear_images())
        return VK_SUCCESS;
    if (type == VK_IMAGE_TYPE_3D || (type == VK_IMAGE_TYPE_1D && mode->kind == MOLTENVK) ||
        is_depth_stencil(format) || is_compressed(format))
        return VK_ERROR_FORMAT_NOT_SUPPORTED;
    if (mode->kind == KOSMICKRISP && (usage & ATTACHMENTS))
        return VK_ERROR_FORMAT_NOT_SUPPORTED;
    return VK_SUCCESS;
}

VkExternalMemoryProperties handle_properties(VkFlags handle, bool is_image, bool is_tiled) {
    VkExternalMemoryProperties answer = {0};
    if (handle & HOST_HANDLES) {
        answer.compatibleHandleTypes = HOST_HANDLES;
        /* MoltenVK says so of tiled images, too. */
        if (!is_tiled || mode->kind == MOLTENVK)
            answer.externalMemoryFeatures = VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT;
    } else if (handle & mode->exported_handles) {
        answer.compatibleHandleTypes = mode->exported_handles;
        answer.externalMemoryFeatures = VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT;
        if (mode->exports_map) {
            answer.externalMemoryFeatures |= VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT;
            answer.exportFromImportedHandleTypes = mode->exported_handles;
        }
        if (is_image)
            answer.externalMemoryFeatures |= VK_EXTERNAL_MEMORY_FEATURE_DEDICATED_ONLY_BIT;
    }
    return answer;
}

/* ---- formats ---- */

/* NVIDIA's driver says of linear colour attachments that there are such images, for its extension
 * VK_NV_linear_color_attachment, and has no feature for them without it. */
static VkFlags64 linear_features(VkFormat format, VkFlags64 features) {
    if (has_metals_linear_images() && (is_depth_stencil(format) || is_compressed(format)))
        return 0;
    if (mode->no_linear_attachments)
        features &= ~(VkFlags64)(VK_FORMAT_FEATURE_COLOR_ATTACHMENT_BIT |
                                 VK_FORMAT_FEATURE_DEPTH_STENCIL_ATTACHMENT_BIT |
                                 VK_FORMAT_FEATURE_COLOR_ATTACHMENT_BLEND_BIT |
                                 VK_FORMAT_FEATURE_BLIT_DST_BIT);
    return features;
}

static VKAPI_ATTR void VKAPI_CALL format2(VkPhysicalDevice physical, VkFormat format,
                                          VkFormatProperties2 *properties) {
    real.vkGetPhysicalDeviceFormatProperties2(physical, format, properties);
    VkFormatFeatureFlags *linear = &properties->formatProperties.linearTilingFeatures;
    *linear = (VkFormatFeatureFlags)linear_features(format, *linear);
    VkFormatProperties3 *wide =
        (void *)find_in_chain(properties->pNext, VK_STRUCTURE_TYPE_FORMAT_PROPERTIES_3);
    if (wide)
        wide->linearTilingFeatures = linear_features(format, wide->linearTilingFeatures);
}

static VKAPI_ATTR void VKAPI_CALL format1(VkPhysicalDevice physical, VkFormat format,
                                          VkFormatProperties *properties) {
    VkFormatProperties2 all = {.sType = VK_STRUCTURE_TYPE_FORMAT_PROPERTIES_2};
    format2(physical, format, &all);
    *properties = all.formatProperties;
}

/* ---- images ---- */

static VkResult external_image(const VkPhysicalDeviceImageFormatInfo2 *info, VkFlags handle,
                               VkExternalImageFormatProperties *answer) {
    bool tiled = info->tiling == VK_IMAGE_TILING_OPTIMAL;
    VkExternalMemoryProperties properties = handle_properties(handle, true, tiled);
    if (answer)
        answer->externalMemoryProperties = properties;
    if (mode->kind == KOSMICKRISP && !properties.externalMemoryFeatures)
        return VK_ERROR_FORMAT_NOT_SUPPORTED;
    return properties.compatibleHandleTypes ? VK_SUCCESS : VK_ERROR_FORMAT_NOT_SUPPORTED;
}

static VKAPI_ATTR VkResult VKAPI_CALL image2(VkPhysicalDevice physical,
                                             const VkPhysicalDeviceImageFormatInfo2 *info,
                                             VkImageFormatProperties2 *properties) {
    const VkPhysicalDeviceExternalImageFormatInfo *external = find_in_chain(
        info->pNext, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_IMAGE_FORMAT_INFO);
    VkPhysicalDeviceImageFormatInfo2 copy = *info;
    struct arena arena = {0};
    VkImageFormatProperties *image = &properties->imageFormatProperties;
    bool linear = info->tiling == VK_IMAGE_TILING_LINEAR;
    VkResult result = linear ? check_linear(info->format, info->type, info->usage) : VK_SUCCESS;
    if (!mode->sparse && (info->flags & VK_IMAGE_CREATE_SPARSE_BINDING_BIT))
        result = VK_ERROR_FORMAT_NOT_SUPPORTED;
    if (external) /* lavapipe is asked without: the mode has its own answer */
        copy.pNext = copy_chain(&arena, info->pNext, external->sType);
    if (result == VK_SUCCESS)
        result = real.vkGetPhysicalDeviceImageFormatProperties2(physical, &copy, properties);
    if (result == VK_SUCCESS && external && external->handleType)
        result = external_image(info, external->handleType,
                                (void *)find_in_chain(
                                    properties->pNext,
                                    VK_STRUCTURE_TYPE_EXTERNAL_IMAGE_FORMAT_PROPERTIES));
    if (result == VK_ERROR_FORMAT_NOT_SUPPORTED)
        memset(image, 0, sizeof *image);
    if (result == VK_SUCCESS && linear && has_metals_linear_images()) {
        image->maxMipLevels = image->maxArrayLayers = 1;
        image->sampleCounts = VK_SAMPLE_COUNT_1_BIT;
    }
    return result;
}

static VKAPI_ATTR VkResult VKAPI_CALL image1(VkPhysicalDevice physical, VkFormat format,
                                             VkImageType type, VkImageTiling tiling,
                                             VkImageUsageFlags usage, VkImageCreateFlags flags,
                                             VkImageFormatProperties *properties) {
    VkPhysicalDeviceImageFormatInfo2 info = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_FORMAT_INFO_2,
        .format = format,
        .type = type,
        .tiling = tiling,
        .usage = usage,
        .flags = flags,
    };
    VkImageFormatProperties2 all = {.sType = VK_STRUCTURE_TYPE_IMAGE_FORMAT_PROPERTIES_2};
    VkResult result = image2(physical, &info, &all);
    *properties = all.imageFormatProperties;
    return result;
}

static VKAPI_ATTR void VKAPI_CALL external_buffer(VkPhysicalDevice physical,
                                                  const VkPhysicalDeviceExternalBufferInfo *info,
                                                  VkExternalBufferProperties *properties) {
    (void)physical;
    properties->externalMemoryProperties = handle_properties(info->handleType, false, false);
}

/* ---- sparse images ---- */

static VKAPI_ATTR void VKAPI_CALL sparse2(VkPhysicalDevice physical,
                                          const VkPhysicalDeviceSparseImageFormatInfo2 *info,
                                          uint32_t *count,
                                          VkSparseImageFormatProperties2 *properties) {
    if (mode->sparse)
        real.vkGetPhysicalDeviceSparseImageFormatProperties2(physical, info, count, properties);
    else
        *count = 0;
}

static VKAPI_ATTR void VKAPI_CALL sparse1(VkPhysicalDevice physical, VkFormat format,
                                          VkImageType type, VkSampleCountFlagBits samples,
                                          VkImageUsageFlags usage, VkImageTiling tiling,
                                          uint32_t *count,
                                          VkSparseImageFormatProperties *properties) {
    VkPhysicalDeviceSparseImageFormatInfo2 info = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SPARSE_IMAGE_FORMAT_INFO_2,
        .format = format,
        .type = type,
        .samples = samples,
        .usage = usage,
        .tiling = tiling,
    };
    VkSparseImageFormatProperties2 all[8] = {{0}};
    for (size_t i = 0; i < COUNT(all); i++)
        all[i].sType = VK_STRUCTURE_TYPE_SPARSE_IMAGE_FORMAT_PROPERTIES_2;
    if (properties && *count > COUNT(all))
        *count = COUNT(all);
    sparse2(physical, &info, count, properties ? all : NULL);
    for (uint32_t i = 0; properties && i < *count; i++)
        properties[i] = all[i].properties;
}

const struct override format_overrides[] = {
    OVERRIDE("vkGetPhysicalDeviceFormatProperties", format1),
    OVERRIDE("vkGetPhysicalDeviceFormatProperties2", format2),
    OVERRIDE("vkGetPhysicalDeviceFormatProperties2KHR", format2),
    OVERRIDE("vkGetPhysicalDeviceImageFormatProperties", image1),
    OVERRIDE("vkGetPhysicalDeviceImageFormatProperties2", image2),
    OVERRIDE("vkGetPhysicalDeviceImageFormatProperties2KHR", image2),
    OVERRIDE("vkGetPhysicalDeviceExternalBufferProperties", external_buffer),
    OVERRIDE("vkGetPhysicalDeviceExternalBufferPropertiesKHR", external_buffer),
    OVERRIDE("vkGetPhysicalDeviceSparseImageFormatProperties", sparse1),
    OVERRIDE("vkGetPhysicalDeviceSparseImageFormatProperties2", sparse2),
    OVERRIDE("vkGetPhysicalDeviceSparseImageFormatProperties2KHR", sparse2),
    {NULL, NULL},
};
