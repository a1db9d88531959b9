/* The control file: the mode, lavapipe's path, and rules of which call fails how.

   It is 4096 bytes and stays mapped: a generation number, a newline, lines, zero bytes.  Who
   changes it writes the lines first and a new number last (fake_drivers.py does). */
#include "driver.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LENGTH 4096

char lavapipe_path[512];
bool is_processor;
uint64_t buffer_places, descriptor_places;

static const uint64_t *generation; /* eight characters, compared as a number */
static uint64_t read_generation;
static struct rule rules[32];
static size_t rule_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const struct {
    const char *name;
    enum action action;
    VkResult result;
} actions[] = {
    {"lost", LOST, VK_ERROR_DEVICE_LOST},
    {"never", NEVER, VK_SUCCESS},
    {"hang", HANG, VK_SUCCESS},
    {"segv", SEGV, VK_SUCCESS},
    {"abort", ABORT, VK_SUCCESS},
    {"VK_ERROR_OUT_OF_HOST_MEMORY", RESULT, VK_ERROR_OUT_OF_HOST_MEMORY},
    {"VK_ERROR_OUT_OF_DEVICE_MEMORY", RESULT, VK_ERROR_OUT_OF_DEVICE_MEMORY},
    {"VK_ERROR_INITIALIZATION_FAILED", RESULT, VK_ERROR_INITIALIZATION_FAILED},
    {"VK_ERROR_DEVICE_LOST", RESULT, VK_ERROR_DEVICE_LOST},
    {"VK_ERROR_MEMORY_MAP_FAILED", RESULT, VK_ERROR_MEMORY_MAP_FAILED},
    {"VK_ERROR_EXTENSION_NOT_PRESENT", RESULT, VK_ERROR_EXTENSION_NOT_PRESENT},
    {"VK_ERROR_FEATURE_NOT_PRESENT", RESULT, VK_ERROR_FEATURE_NOT_PRESENT},
    {"VK_ERROR_INCOMPATIBLE_DRIVER", RESULT, VK_ERROR_INCOMPATIBLE_DRIVER},
    {"VK_ERROR_TOO_MANY_OBJECTS", RESULT, VK_ERROR_TOO_MANY_OBJECTS},
    {"VK_ERROR_FORMAT_NOT_SUPPORTED", RESULT, VK_ERROR_FORMAT_NOT_SUPPORTED},
    {"VK_ERROR_FRAGMENTED_POOL", RESULT, VK_ERROR_FRAGMENTED_POOL},
    {"VK_ERROR_UNKNOWN", RESULT, VK_ERROR_UNKNOWN},
    {"VK_ERROR_OUT_OF_POOL_MEMORY", RESULT, VK_ERROR_OUT_OF_POOL_MEMORY},
    {"VK_ERROR_INVALID_EXTERNAL_HANDLE", RESULT, VK_ERROR_INVALID_EXTERNAL_HANDLE},
    {"VK_ERROR_SURFACE_LOST_KHR", RESULT, VK_ERROR_SURFACE_LOST_KHR},
    {"VK_ERROR_OUT_OF_DATE_KHR", RESULT, VK_ERROR_OUT_OF_DATE_KHR},
};

/* COMMAND N | N+ | >BYTES ACTION */
static void parse_rule(const char *line) {
    struct rule rule = {.to = UINT64_MAX};
    char when[32], action[64], plus = 0;
    if (rule_count == COUNT(rules))
        broken("of this driver", "control.c takes no more than %zu rules", COUNT(rules));
    if (sscanf(line, "%63s %31s %63s", rule.command, when, action) != 3)
        broken("of this driver", "\"%s\" is no rule", line);
    if (sscanf(when, ">%lu", &rule.above) == 1)
        rule.from = 1;
    else if (sscanf(when, "%lu%c", &rule.from, &plus) < 1 || rule.from == 0)
        broken("of this driver", "\"%s\" says no call", line);
    else if (plus != '+')
        rule.to = rule.from;
    for (size_t i = 0; i < COUNT(actions); i++) {
        if (strcmp(actions[i].name, action) == 0) {
            rule.action = actions[i].action;
            rule.result = actions[i].result;
            rules[rule_count++] = rule;
            return;
        }
    }
    broken("of this driver", "\"%s\" says no action", line);
}

static void parse(bool first) {
    char text[LENGTH + 1];
    uint64_t before;
    do {
        before = __atomic_load_n(generation, __ATOMIC_ACQUIRE);
        memcpy(text, (const void *)generation, LENGTH);
    } while (before != __atomic_load_n(generation, __ATOMIC_ACQUIRE));
    text[LENGTH] = 0;
    rule_count = 0;
    char *rest, *line = strtok_r(text, "\n", &rest);
    while ((line = strtok_r(NULL, "\n", &rest))) {
        if (strncmp(line, "mode ", 5) == 0) {
            if (first && !(mode = find_mode(line + 5)))
                broken("of this driver", "it has no mode \"%s\"", line + 5);
        } else if (strncmp(line, "lavapipe ", 9) == 0) {
            if (first)
                snprintf(lavapipe_path, sizeof lavapipe_path, "%s", line + 9);
        } else if (strcmp(line, "processor") == 0) {
            is_processor = true;
        } else if (strncmp(line, "places ", 7) == 0) {
            if (sscanf(line, "places %lu %lu", &buffer_places, &descriptor_places) != 2)
                broken("of this driver", "\"%s\" says no places", line);
        } else {
            parse_rule(line);
        }
    }
    __atomic_store_n(&read_generation, before, __ATOMIC_RELEASE);
}

static bool anything_to_read(void) {
    return __atomic_load_n(generation, __ATOMIC_ACQUIRE) !=
           __atomic_load_n(&read_generation, __ATOMIC_ACQUIRE);
}

void open_control(const char *path) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, LENGTH, PROT_READ, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED)
        broken("of this driver", "%s: %s", path, strerror(errno));
    close(file);
    generation = mapped;
    parse(true);
}

const struct rule *match_rule(const char *command, const uint64_t *arguments) {
    /* Nearly always there are no rules, and no draw is to pay for them. */
    if (!anything_to_read() && __atomic_load_n(&rule_count, __ATOMIC_RELAXED) == 0)
        return NULL;
    static __thread struct rule found;
    bool matched = false;
    pthread_mutex_lock(&lock);
    if (anything_to_read())
        parse(false);
    for (size_t i = 0; i < rule_count; i++) {
        struct rule *rule = &rules[i];
        if (fnmatch(rule->command, command, 0) != 0)
            continue;
        if (rule->above && strcmp(command, "vkAllocateMemory") == 0) {
            const VkMemoryAllocateInfo *info = (const void *)(uintptr_t)arguments[1];
            if (info->allocationSize <= rule->above)
                continue;
        }
        rule->calls++;
        if (!matched && rule->calls >= rule->from && rule->calls <= rule->to) {
            found = *rule;
            matched = true;
        }
    }
    pthread_mutex_unlock(&lock);
    return matched ? &found : NULL;
}

bool all_are_lost(void) {
    bool lost = false;
    pthread_mutex_lock(&lock);
    if (anything_to_read())
        parse(false);
    for (size_t i = 0; i < rule_count; i++)
        lost |= rules[i].action == LOST && strcmp(rules[i].command, "*") == 0;
    pthread_mutex_unlock(&lock);
    return lost;
}
