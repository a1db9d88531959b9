/* Renders blue into memory that is then shown as it is: a blob scanout.
 *
 * The memory is exported from Vulkan as a dma-buf and made a framebuffer.  Prints "shown" when the
 * screen should be blue; after a line of input, green. */
#include "vulkan_program.h"

#include "kms.h"

static const char *const extensions[] = {
    VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
    VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME,
};

static VkBuffer export_buffer(struct gpu *gpu, VkDeviceSize size, int *fd)
{
    VkExternalMemoryBufferCreateInfo external = {
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
        .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
    VkBufferCreateInfo create = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                 .pNext = &external,
                                 .size = size,
                                 .usage = VK_BUFFER_USAGE_TRANSFER_DST_BIT};
    VkBuffer buffer;
    CHECK(vkCreateBuffer(gpu->device, &create, NULL, &buffer));
    VkMemoryRequirements needs;
    vkGetBufferMemoryRequirements(gpu->device, buffer, &needs);
    VkExportMemoryAllocateInfo export = {
        .sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO,
        .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
    VkMemoryAllocateInfo allocate = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .pNext = &export,
        .allocationSize = needs.size,
        .memoryTypeIndex = memory_type(gpu, needs.memoryTypeBits, 0)};
    VkDeviceMemory memory;
    CHECK(vkAllocateMemory(gpu->device, &allocate, NULL, &memory));
    CHECK(vkBindBufferMemory(gpu->device, buffer, memory, 0));
    PFN_vkGetMemoryFdKHR get_fd =
        (PFN_vkGetMemoryFdKHR)vkGetDeviceProcAddr(gpu->device, "vkGetMemoryFdKHR");
    VkMemoryGetFdInfoKHR get = {.sType = VK_STRUCTURE_TYPE_MEMORY_GET_FD_INFO_KHR,
                                .memory = memory,
                                .handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
    CHECK(get_fd(gpu->device, &get, fd));
    return buffer;
}

static void fill(struct gpu *gpu, VkBuffer buffer, uint32_t colour)
{
    begin(gpu);
    vkCmdFillBuffer(gpu->commands, buffer, 0, VK_WHOLE_SIZE, colour);
    run(gpu);
}

int main(void)
{
    struct gpu gpu;
    open_gpu(&gpu, 2, extensions);
    struct screen screens[MAX_SCREENS];
    int card = open_card();
    if (find_screens(card, screens) == 0) {
        fprintf(stderr, "no screen\n");
        return 2;
    }
    uint32_t width = screens[0].mode.hdisplay, height = screens[0].mode.vdisplay;
    int fd;
    VkBuffer buffer = export_buffer(&gpu, width * height * 4, &fd);
    fill(&gpu, buffer, 0x000000ff);
    struct drm_prime_handle prime = {.fd = fd};
    MUST(card, DRM_IOCTL_PRIME_FD_TO_HANDLE, &prime);
    uint32_t framebuffer = add_framebuffer(card, prime.handle, width, height, DRM_FORMAT_XRGB8888,
                                           width * 4);
    show(card, &screens[0], framebuffer);
    hold();
    fill(&gpu, buffer, 0x0000ff00);
    mark_dirty(card, framebuffer);
    hold();
    return 0;
}
