/* A Vulkan library whose commands fail when the test says so; it notes what it is called for. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef int (*function)(void);

static char calls[4096];
static int creations, bindings, submissions;
static uint64_t made;

const char *called(void) { return calls; }
/* What creating, binding and submitting return. */
void fail(int creation, int binding, int submission) {
    creations = creation;
    bindings = binding;
    submissions = submission;
    calls[0] = 0;
}

static void note(const char *name, uint64_t handle) {
    size_t length = strlen(calls);
    snprintf(calls + length, sizeof calls - length, "%s %llu\n", name, (unsigned long long)handle);
}

static int create(void *device, const void *info, const void *allocator, uint64_t *object) {
    (void)device, (void)info, (void)allocator;
    *object = creations ? 0xbad : 1000 + made++; /* drivers may leave anything there */
    return creations;
}

static int allocate_commands(void *device, const void *info, uint64_t *objects) {
    uint32_t count = *(const uint32_t *)((const char *)info + 28);
    (void)device;
    for (uint32_t i = 0; i < count; i++)
        objects[i] = creations ? 0 : 1000 + made++;
    return creations;
}

#define NOTED(name, result)                                        \
    static int noted_##name(const void *first, uint64_t second) { \
        (void)first;                                               \
        note(#name, second);                                       \
        return result;                                             \
    }
NOTED(vkFreeMemory, 0)
NOTED(vkDestroyBuffer, 0)
NOTED(vkBindBufferMemory2, bindings)
NOTED(vkCmdFillBuffer, 0)
NOTED(vkBeginCommandBuffer, 0)
NOTED(vkEndCommandBuffer, 0)
NOTED(vkQueueSubmit, submissions)
NOTED(vkUpdateDescriptorSets, 0)
NOTED(vkGetBufferMemoryRequirements2, 0)
NOTED(vkResetDescriptorPool, 0)

static const struct {
    const char *name;
    function function;
} functions[] = {
#define ROW(name) {#name, (function)noted_##name},
    ROW(vkFreeMemory) ROW(vkDestroyBuffer) ROW(vkBindBufferMemory2) ROW(vkCmdFillBuffer)
    ROW(vkBeginCommandBuffer) ROW(vkEndCommandBuffer) ROW(vkQueueSubmit)
    ROW(vkUpdateDescriptorSets) ROW(vkGetBufferMemoryRequirements2) ROW(vkResetDescriptorPool)
    {"vkAllocateCommandBuffers", (function)allocate_commands},
    {"vkAllocateMemory", (function)create},
};

static int nothing(void) { return 0; }

function vkGetInstanceProcAddr(void *instance, const char *name) {
    (void)instance;
    if (strcmp(name, "vkGetDeviceProcAddr") == 0)
        return (function)vkGetInstanceProcAddr;
    for (unsigned i = 0; i < sizeof functions / sizeof *functions; i++)
        if (strcmp(functions[i].name, name) == 0)
            return functions[i].function;
    return strncmp(name, "vkCreate", 8) == 0 ? (function)create : nothing;
}
