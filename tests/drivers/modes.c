/* What each mode is.  README.md names the places that the facts are from. */
#include "driver.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOCAL VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT
#define VISIBLE VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT
#define COHERENT VK_MEMORY_PROPERTY_HOST_COHERENT_BIT
#define CACHED VK_MEMORY_PROPERTY_HOST_CACHED_BIT
#define LAZY VK_MEMORY_PROPERTY_LAZILY_ALLOCATED_BIT
#define DESCRIPTORS                                                                               \
    "VK_KHR_external_memory_fd", "VK_EXT_external_memory_dma_buf",                                \
        "VK_EXT_image_drm_format_modifier", "VK_KHR_external_semaphore_fd",                       \
        "VK_KHR_external_fence_fd", "VK_EXT_physical_device_drm", "VK_ANDROID_*"

static const char *const none[] = {NULL};
static const char *const no_descriptors[] = {DESCRIPTORS, NULL};
/* Nor are there these in MoltenVK. */
static const char *const metal[] = {DESCRIPTORS, "VK_KHR_acceleration_structure",
                                    "VK_KHR_ray_*", "VK_EXT_descriptor_buffer",
                                    "VK_EXT_descriptor_heap", NULL};
static const char *const no_dma_buf[] = {"VK_EXT_external_memory_dma_buf",
                                         "VK_EXT_image_drm_format_modifier", "VK_ANDROID_*", NULL};
static const char *const no_android[] = {"VK_EXT_image_drm_format_modifier", "VK_ANDROID_*", NULL};
static const char *const portability[] = {"VK_KHR_portability_subset", NULL};
static const char *const fd[] = {"VK_KHR_external_memory_fd", NULL};
static const char *const dma_buf[] = {"VK_KHR_external_memory_fd",
                                      "VK_EXT_external_memory_dma_buf", NULL};

/* NVIDIA's memory: the first type is system memory that nobody maps, the last is mapped VRAM. */
#define DISCRETE_MEMORY                                                                           \
    .device_type = VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU, .heap_count = 2, .type_count = 5,        \
    .heaps = {VK_MEMORY_HEAP_DEVICE_LOCAL_BIT, 0},                                                \
    .types = {{0, 1},                                                                             \
              {LOCAL, 0},                                                                         \
              {VISIBLE | COHERENT, 1},                                                            \
              {VISIBLE | COHERENT | CACHED, 1},                                                   \
              {LOCAL | VISIBLE | COHERENT, 0}},                                                   \
    .imported_types = 1 << 2 | 1 << 3, .page = 4096,                                              \
    .misaligned = VK_ERROR_INVALID_EXTERNAL_HANDLE, .tiled_alignment = 1024,                      \
    .other_alignment = 256, .queue_families = 1, .sparse = true, .no_linear_attachments = true

static const struct mode modes[] = {
    {.name = "plain", .kind = PLAIN, .hidden = none, .added = none, .queue_families = 1},
    {.name = "moltenvk",
     .kind = MOLTENVK,
     .device_type = VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU,
     .heap_count = 1,
     .type_count = 3,
     .heaps = {VK_MEMORY_HEAP_DEVICE_LOCAL_BIT},
     .types = {{LOCAL, 0}, {LOCAL | VISIBLE | COHERENT | CACHED, 0}, {LOCAL | LAZY, 0}},
     .imported_types = 1 << 1,
     .page = 16384,
     .misaligned = VK_ERROR_OUT_OF_DEVICE_MEMORY,
     .tiled_alignment = 16384,
     .other_alignment = 256,
     .queue_families = 4,
     .no_null = true,
     .hidden = metal,
     .added = portability},
    {.name = "kosmickrisp",
     .kind = KOSMICKRISP,
     .device_type = VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU,
     .heap_count = 1,
     .type_count = 1,
     .heaps = {VK_MEMORY_HEAP_DEVICE_LOCAL_BIT},
     .types = {{LOCAL | VISIBLE | COHERENT | CACHED, 0}},
     .imported_types = 1 << 0,
     .page = 16384,
     .misaligned = VK_ERROR_INVALID_EXTERNAL_HANDLE,
     .tiled_alignment = 16384,
     .other_alignment = 256,
     .queue_families = 1,
     .no_linear_attachments = true,
     .hidden = no_descriptors,
     .added = none},
    {.name = "discrete",
     .kind = DISCRETE,
     DISCRETE_MEMORY,
     .exported_types = 1 << 1,
     .exported_handles = VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT,
     .hidden = no_dma_buf,
     .added = fd},
    {.name = "discrete-export",
     .kind = DISCRETE_EXPORT,
     DISCRETE_MEMORY,
     .exported_types = 1 << 1 | 1 << 4,
     .exported_handles = FD_HANDLES,
     .exports_map = true,
     .hidden = no_android,
     .added = dma_buf},
};

const struct mode *mode = &modes[0];

const struct mode *find_mode(const char *name) {
    for (size_t i = 0; i < COUNT(modes); i++)
        if (strcmp(modes[i].name, name) == 0)
            return &modes[i];
    return NULL;
}

static void say(const char *what, const char *rule, const char *format, va_list list) {
    char text[512], line[768];
    vsnprintf(text, sizeof text, format, list);
    int length = snprintf(line, sizeof line, "fake driver (%s): %s%s%s: %s\n", mode->name, what,
                          *rule ? " " : "", rule, text);
    /* In one piece: several processes write to one log. */
    if (write(STDERR_FILENO, line, (size_t)length) < 0)
        return;
}

void broken(const char *rule, const char *format, ...) {
    va_list list;
    va_start(list, format);
    say("broken rule", rule, format, list);
    va_end(list);
    abort();
}

VkResult refused(VkResult result, const char *format, ...) {
    va_list list;
    va_start(list, format);
    say("refused", "", format, list);
    va_end(list);
    return result;
}
