/* A Vulkan library in which every command does nothing and succeeds; it counts vkCmdDraw. */
#include <string.h>

typedef int (*function)(void);

static unsigned long draws;
static int nothing(void) { return 0; }
static int draw(void) { return (int)++draws; }
unsigned long draw_count(void) { return __atomic_load_n(&draws, __ATOMIC_SEQ_CST); }

function vkGetInstanceProcAddr(void *instance, const char *name) {
    (void)instance;
    if (strcmp(name, "vkGetDeviceProcAddr") == 0)
        return (function)vkGetInstanceProcAddr;
    return strcmp(name, "vkCmdDraw") == 0 ? draw : nothing;
}
