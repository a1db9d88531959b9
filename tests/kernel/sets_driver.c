/* A Vulkan library that makes objects, each with a handle of its own, and notes what it was last told to
   write or copy by the thread that asks: as many rows of six numbers as there were, writes before copies.
   Of the last layout with bindings of several types that it was asked about, and that it was to make, it
   notes a row each: how many lists of types there were, and how many in the first and the last. */
#include <stdint.h>
#include <string.h>

typedef int (*function)(void);

struct write {
    uint32_t stype, pad;
    const void *next;
    uint64_t set;
    uint32_t binding, element, count, type;
    const void *images;
    const uint64_t *buffers, *views;
};
struct copy {
    uint32_t stype, pad;
    const void *next;
    uint64_t source;
    uint32_t source_binding, source_element;
    uint64_t target;
    uint32_t binding, element, count;
};

struct list {
    uint32_t count, pad;
    const uint32_t *types;
};
struct lists {
    uint32_t stype, pad;
    const struct lists *next;
    uint32_t count, more;
    const struct list *lists;
};
struct layout {
    uint32_t stype, pad;
    const struct lists *next;
};

static uint64_t objects = 0x1000;
static _Thread_local uint64_t rows[64][6];
static _Thread_local unsigned long row_count;

static int nothing(void) { return 0; }

static int create(void *device, const void *info, const void *allocator, uint64_t *made) {
    (void)device, (void)info, (void)allocator;
    *made = __atomic_add_fetch(&objects, 1, __ATOMIC_SEQ_CST);
    return 0;
}

static const struct lists *note_lists(const struct layout *layout) {
    for (const struct lists *lists = layout->next; lists; lists = lists->next)
        if (lists->stype == 1000351002) {
            const uint64_t row[6] = {lists->count, lists->lists[0].count,
                                     lists->lists[lists->count - 1].count};
            memcpy(rows[row_count++], row, sizeof(row));
            return lists;
        }
    return 0;
}

/* It knows no acceleration structures among several types. */
static int support_layout(void *device, const struct layout *layout, uint8_t *answer) {
    (void)device;
    row_count = 0;
    const struct lists *lists = note_lists(layout);
    *(uint32_t *)(answer + 16) = !lists || lists->lists[0].types[0] != 1000150000;
    return 0;
}

static int create_layout(void *device, const struct layout *layout, const void *allocator,
                         uint64_t *made) {
    note_lists(layout);
    return create(device, layout, allocator, made);
}

static int allocate_sets(void *device, const uint8_t *info, uint64_t *made) {
    for (uint32_t i = 0; i < *(const uint32_t *)(info + 24); i++)
        create(device, info, 0, &made[i]);
    return 0;
}

/* The last number: the first byte of a block, or where the first buffer is read or image lies. */
static uint64_t payload(const struct write *write) {
    if (write->type == 1000138000)
        return **(const uint8_t *const *)((const uint8_t *)write->next + 24);
    if (write->type == 1000150000)
        return (*(const uint64_t *const *)((const uint8_t *)write->next + 24))[0];
    if (write->buffers)
        return write->buffers[1];
    return write->views ? write->views[0] : 0;
}

static void note(uint32_t count, const struct write *writes) {
    for (uint32_t i = 0; i < count && row_count < 64; i++) {
        const uint64_t row[6] = {writes[i].binding, writes[i].element, writes[i].count,
                                 writes[i].type, payload(&writes[i]), 0};
        memcpy(rows[row_count++], row, sizeof(row));
    }
}

static int update(void *device, uint32_t write_count, const struct write *writes, uint32_t copy_count,
                  const struct copy *copies) {
    (void)device;
    row_count = 0;
    note(write_count, writes);
    for (uint32_t i = 0; i < copy_count && row_count < 64; i++) {
        const uint64_t row[6] = {copies[i].source_binding, copies[i].source_element,
                                 copies[i].binding, copies[i].element, copies[i].count, 1};
        memcpy(rows[row_count++], row, sizeof(row));
    }
    return 0;
}

static int push(void *commands, uint32_t point, uint64_t layout, uint32_t set, uint32_t count,
                const struct write *writes) {
    (void)commands, (void)point, (void)layout, (void)set;
    row_count = 0;
    note(count, writes);
    return 0;
}

const uint64_t *noted(unsigned long *count) {
    *count = row_count;
    return &rows[0][0];
}

function vkGetInstanceProcAddr(void *instance, const char *name) {
    (void)instance;
    if (strcmp(name, "vkGetDeviceProcAddr") == 0)
        return (function)vkGetInstanceProcAddr;
    if (strcmp(name, "vkAllocateDescriptorSets") == 0)
        return (function)allocate_sets;
    if (strcmp(name, "vkCreateDescriptorSetLayout") == 0)
        return (function)create_layout;
    if (strcmp(name, "vkGetDescriptorSetLayoutSupport") == 0)
        return (function)support_layout;
    if (strcmp(name, "vkUpdateDescriptorSets") == 0)
        return (function)update;
    if (strcmp(name, "vkCmdPushDescriptorSet") == 0)
        return (function)push;
    if (strncmp(name, "vkCreate", 8) == 0 && !strstr(name, "Pipelines"))
        return (function)create;
    return nothing;
}
