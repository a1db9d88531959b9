/* Views of images: what a driver may take them for. */
#include "driver.h"

/* What an image's views may be used for, unless they say less. */
static VkFlags usage_of(const VkImageViewCreateInfo *info, const struct object *image) {
    const VkImageViewUsageCreateInfo *less =
        find_in_chain(info->pNext, VK_STRUCTURE_TYPE_IMAGE_VIEW_USAGE_CREATE_INFO);
    return less ? less->usage : image->usage;
}

static VKAPI_ATTR VkResult VKAPI_CALL create_view(VkDevice device,
                                                  const VkImageViewCreateInfo *info,
                                                  const VkAllocationCallbacks *allocator,
                                                  VkImageView *handle) {
    struct object image;
    if (mode->no_linear_attachments && get_object(IMAGE, (uint64_t)info->image, &image) &&
        !image.tiled && (usage_of(info, &image) & ATTACHMENTS))
        broken("VUID-VkImageViewCreateInfo-usage-02276/02277/02652",
               "a linear image of format %d is no attachment, and its view is for usage %#x",
               info->format, usage_of(info, &image));
    return real.vkCreateImageView(device, info, allocator, handle);
}

const struct override view_overrides[] = {
    OVERRIDE("vkCreateImageView", create_view),
    {NULL, NULL},
};
