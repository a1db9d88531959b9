/* A Vulkan library whose vkCreate... and vkAllocate... make objects, each with a handle of its own,
   and in which every other command does nothing and succeeds.  It counts both, and vkCmdDraw. */
#include <stdint.h>
#include <string.h>

typedef int (*function)(void);

static uint64_t objects = 0x1000;
static unsigned long draws;

static int nothing(void) { return 0; }

static int draw(void) { return (int)__atomic_add_fetch(&draws, 1, __ATOMIC_SEQ_CST); }

static int create(void *device, const void *info, const void *allocator, uint64_t *made) {
    (void)device, (void)info, (void)allocator;
    *made = __atomic_add_fetch(&objects, 1, __ATOMIC_SEQ_CST);
    return 0;
}

static int allocate(uint32_t count, uint64_t *made) {
    for (uint32_t i = 0; i < count; i++)
        create(0, 0, 0, &made[i]);
    return 0;
}

static int pipelines(void *device, uint64_t cache, uint32_t count, const void *infos,
                     const void *allocator, uint64_t *made) {
    (void)device, (void)cache, (void)infos, (void)allocator;
    return allocate(count, made);
}

static int ray_tracing_pipelines(void *device, uint64_t deferred, uint64_t cache, uint32_t count,
                                 const void *infos, const void *allocator, uint64_t *made) {
    (void)deferred;
    return pipelines(device, cache, count, infos, allocator, made);
}

static int allocate_commands(void *device, const uint8_t *info, uint64_t *made) {
    (void)device;
    return allocate(*(const uint32_t *)(info + 28), made);
}

static int allocate_sets(void *device, const uint8_t *info, uint64_t *made) {
    (void)device;
    return allocate(*(const uint32_t *)(info + 24), made);
}

unsigned long draw_count(void) { return __atomic_load_n(&draws, __ATOMIC_SEQ_CST); }
unsigned long object_count(void) { return __atomic_load_n(&objects, __ATOMIC_SEQ_CST); }

function vkGetInstanceProcAddr(void *instance, const char *name) {
    (void)instance;
    if (strcmp(name, "vkGetDeviceProcAddr") == 0)
        return (function)vkGetInstanceProcAddr;
    if (strcmp(name, "vkAllocateCommandBuffers") == 0)
        return (function)allocate_commands;
    if (strcmp(name, "vkAllocateDescriptorSets") == 0)
        return (function)allocate_sets;
    if (strcmp(name, "vkCreateComputePipelines") == 0
            || strcmp(name, "vkCreateGraphicsPipelines") == 0)
        return (function)pipelines;
    if (strcmp(name, "vkCreateRayTracingPipelinesKHR") == 0)
        return (function)ray_tracing_pipelines;
    if (strncmp(name, "vkCreate", 8) == 0 && !strstr(name, "Pipelines"))
        return (function)create;
    return strcmp(name, "vkCmdDraw") == 0 ? draw : nothing;
}
