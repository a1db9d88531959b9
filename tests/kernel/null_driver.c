/* A Vulkan library that makes objects (no buffer of 666 bytes), and notes what commands name that may be null: of a write its
   type and then each descriptor, of vertices and indices buffers and places. */
#include <stdint.h>
#include <string.h>

typedef int (*function)(void);

struct write {
    uint32_t stype, pad;
    const void *next;
    uint64_t set;
    uint32_t binding, element, count, type;
    const uint64_t *images, *buffers, *views;
};

static uint64_t objects = 0x1000;
static uint64_t words[256];
static unsigned long word_count;

static int nothing(void) { return 0; }

static void note(uint64_t word) {
    if (word_count < 256)
        words[word_count++] = word;
}

static int create(void *device, const void *info, const void *allocator, uint64_t *made) {
    (void)device, (void)info, (void)allocator;
    *made = __atomic_add_fetch(&objects, 1, __ATOMIC_SEQ_CST);
    return 0;
}

static int create_buffer(void *device, const uint8_t *info, const void *allocator, uint64_t *made) {
    if (*(const uint64_t *)(info + 24) == 666) /* VkBufferCreateInfo.size */
        return -2;
    return create(device, info, allocator, made);
}

static int allocate_sets(void *device, const uint8_t *info, uint64_t *made) {
    for (uint32_t i = 0; i < *(const uint32_t *)(info + 24); i++)
        create(device, info, 0, &made[i]);
    return 0;
}

static void note_writes(uint32_t count, const struct write *writes) {
    word_count = 0;
    for (const struct write *w = writes; w < writes + count; w++) {
        note(w->type);
        for (uint32_t i = 0; i < w->count; i++) {
            for (int j = 1; w->images && j < 3; j++) /* view, and layout */
                note(j == 2 ? (uint32_t)w->images[3 * i + j] : w->images[3 * i + j]);
            for (int j = 0; w->buffers && j < 3; j++)
                note(w->buffers[3 * i + j]);
            if (w->views)
                note(w->views[i]);
        }
    }
}

static int update(void *device, uint32_t count, const struct write *writes) {
    (void)device;
    note_writes(count, writes);
    return 0;
}

static int push(void *commands, uint32_t point, uint64_t layout, uint32_t set, uint32_t count,
                const struct write *writes) {
    (void)commands, (void)point, (void)layout, (void)set;
    note_writes(count, writes);
    return 0;
}

static int push2(void *commands, const uint8_t *info) {
    (void)commands;
    note_writes(*(const uint32_t *)(info + 36), *(const struct write *const *)(info + 40));
    return 0;
}

static int vertices2(void *commands, uint32_t first, uint32_t count, const uint64_t *buffers,
                     const uint64_t *offsets, const uint64_t *sizes) {
    (void)commands, (void)first;
    word_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        note(buffers[i]);
        note(offsets[i]);
        if (sizes)
            note(sizes[i]);
    }
    return 0;
}

static int vertices(void *commands, uint32_t first, uint32_t count, const uint64_t *buffers,
                    const uint64_t *offsets) {
    return vertices2(commands, first, count, buffers, offsets, 0);
}

static int indices(void *commands, uint64_t buffer, uint64_t offset) {
    (void)commands;
    word_count = 0;
    note(buffer);
    note(offset);
    return 0;
}

static int indices2(void *commands, uint64_t buffer, uint64_t offset, uint64_t size) {
    indices(commands, buffer, offset);
    note(size);
    return 0;
}

static int bind(void *commands, uint32_t point, uint64_t layout, uint32_t first, uint32_t count,
                const uint64_t *sets, uint32_t offset_count, const uint32_t *offsets) {
    (void)commands, (void)point, (void)layout, (void)first, (void)count, (void)sets;
    word_count = 0;
    for (uint32_t i = 0; i < offset_count; i++)
        note(offsets[i]);
    return 0;
}

const uint64_t *noted(unsigned long *count) {
    *count = word_count;
    return words;
}

#define ANSWER(command, with)                                                                     \
    if (strcmp(name, command) == 0)                                                               \
        return (function)with

function vkGetInstanceProcAddr(void *instance, const char *name) {
    (void)instance;
    ANSWER("vkGetDeviceProcAddr", vkGetInstanceProcAddr);
    ANSWER("vkAllocateDescriptorSets", allocate_sets);
    ANSWER("vkCreateBuffer", create_buffer);
    ANSWER("vkUpdateDescriptorSets", update);
    ANSWER("vkCmdPushDescriptorSet", push);
    ANSWER("vkCmdPushDescriptorSet2", push2);
    ANSWER("vkCmdBindVertexBuffers", vertices);
    ANSWER("vkCmdBindVertexBuffers2", vertices2);
    ANSWER("vkCmdBindIndexBuffer", indices);
    ANSWER("vkCmdBindIndexBuffer2", indices2);
    ANSWER("vkCmdBindDescriptorSets", bind);
    if (strncmp(name, "vkCreate", 8) == 0 && !strstr(name, "Pipelines"))
        return (function)create;
    return nothing;
}
