/* A Vulkan library in which every command does nothing and succeeds; it counts vkCmdDraw, and makes
   buffers that are all alike. */
#include <stdint.h>
#include <string.h>

typedef int (*function)(void);

static unsigned long draws;
static int nothing(void) { return 0; }
static int draw(void) { return (int)++draws; }
static int create_buffer(void *device, const void *info, const void *allocator, uint64_t *buffer) {
    (void)device, (void)info, (void)allocator;
    *buffer = 0xb0f;
    return 0;
}
unsigned long draw_count(void) { return __atomic_load_n(&draws, __ATOMIC_SEQ_CST); }

function vkGetInstanceProcAddr(void *instance, const char *name) {
    (void)instance;
    if (strcmp(name, "vkGetDeviceProcAddr") == 0)
        return (function)vkGetInstanceProcAddr;
    if (strcmp(name, "vkCreateBuffer") == 0)
        return (function)create_buffer;
    return strcmp(name, "vkCmdDraw") == 0 ? draw : nothing;
}
