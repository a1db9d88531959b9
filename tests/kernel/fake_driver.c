/* A Vulkan library in which every command does nothing and succeeds; it counts vkCmdDraw, and makes
   buffers, memory and more that are all alike; what needs memory needs 8192 bytes, at multiples of 256. */
#include <stdint.h>
#include <string.h>

typedef int (*function)(void);

static unsigned long draws;
static int nothing(void) { return 0; }
static int draw(void) { return (int)++draws; }
static int create(void *device, const void *info, const void *allocator, uint64_t *made) {
    (void)device, (void)info, (void)allocator;
    *made = 0xb0f;
    return 0;
}
static int needs(void *device, uint64_t object, uint64_t *requirements) {
    (void)device, (void)object;
    requirements[0] = 8192;
    requirements[1] = 256;
    *(uint32_t *)&requirements[2] = 0xffffffff;
    return 0;
}
static int is_one_of(const char *name, const char *names) {
    const char *at = strstr(names, name);
    return at && (at == names || at[-1] == ' ') && (at[strlen(name)] == ' ' || !at[strlen(name)]);
}
unsigned long draw_count(void) { return __atomic_load_n(&draws, __ATOMIC_SEQ_CST); }

function vkGetInstanceProcAddr(void *instance, const char *name) {
    (void)instance;
    if (strcmp(name, "vkGetDeviceProcAddr") == 0)
        return (function)vkGetInstanceProcAddr;
    if (is_one_of(name, "vkCreateBuffer vkCreateImage vkCreateQueryPool vkAllocateMemory vkCreateImageView "
                        "vkCreateRenderPass2 vkCreateFramebuffer"))
        return (function)create;
    if (is_one_of(name, "vkGetBufferMemoryRequirements vkGetImageMemoryRequirements"))
        return (function)needs;
    return strcmp(name, "vkCmdDraw") == 0 ? draw : nothing;
}
