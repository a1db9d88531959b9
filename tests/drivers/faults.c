/* Faults on demand: what comes before each command that a program calls. */
#include "driver.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THUNKS 2048     /* as in thunks.S */
#define THUNK_SIZE 16
#define SLICE 50000000u /* ns: how long a wait does not look at the control file */
#define DRAIN 1000000000u

enum duty { OTHER, SUBMITS, IDLES, WAITS, ASKS };
struct verdict {
    PFN_vkVoidFunction target; /* NULL: return the result */
    uint64_t result;
};

extern const char fake_thunks[] __attribute__((visibility("hidden")));
struct verdict before_command(uint32_t number, const uint64_t *arguments)
    __attribute__((visibility("hidden")));

/* What can return VK_ERROR_DEVICE_LOST; the first parameter is a VkQueue or a VkDevice. */
static const struct {
    const char *name;
    enum duty duty;
    bool of_queue;
} losing[] = {
    {"vkQueueSubmit", SUBMITS, true},
    {"vkQueueSubmit2", SUBMITS, true},
    {"vkQueueSubmit2KHR", SUBMITS, true},
    {"vkQueueBindSparse", SUBMITS, true},
    {"vkQueuePresentKHR", ASKS, true},
    {"vkQueueWaitIdle", IDLES, true},
    {"vkDeviceWaitIdle", IDLES, false},
    {"vkWaitForFences", WAITS, false},
    {"vkWaitSemaphores", WAITS, false},
    {"vkWaitSemaphoresKHR", WAITS, false},
    {"vkGetFenceStatus", ASKS, false},
    {"vkGetEventStatus", ASKS, false},
    {"vkGetQueryPoolResults", ASKS, false},
    {"vkGetSemaphoreCounterValue", ASKS, false},
    {"vkGetSemaphoreCounterValueKHR", ASKS, false},
    {"vkAcquireNextImageKHR", ASKS, false},
    {"vkAcquireNextImage2KHR", ASKS, false},
};

static struct command {
    char name[80];
    PFN_vkVoidFunction target;
    enum duty duty;
    bool of_queue;
} commands[THUNKS];
static uint32_t command_count;

static struct device {
    VkDevice device;
    VkQueue queue; /* lavapipe has one */
    bool lost, stuck;
} devices[256];
static uint32_t device_count, marked_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

PFN_vkVoidFunction with_faults(const char *name, PFN_vkVoidFunction target) {
    pthread_mutex_lock(&lock);
    uint32_t i = 0;
    while (i < command_count && strcmp(commands[i].name, name) != 0)
        i++;
    if (i == command_count) {
        if (i == THUNKS)
            broken("of this driver", "more than %d commands", THUNKS);
        struct command *command = &commands[command_count++];
        snprintf(command->name, sizeof command->name, "%s", name);
        command->target = target;
        for (size_t j = 0; j < COUNT(losing); j++) {
            if (strcmp(losing[j].name, name) == 0) {
                command->duty = losing[j].duty;
                command->of_queue = losing[j].of_queue;
            }
        }
    }
    pthread_mutex_unlock(&lock);
    return (PFN_vkVoidFunction)(fake_thunks + (size_t)i * THUNK_SIZE);
}

void note_queue(VkDevice device, VkQueue queue) {
    pthread_mutex_lock(&lock);
    uint32_t i = 0;
    while (i < device_count && devices[i].device != device)
        i++;
    if (i == COUNT(devices))
        broken("of this driver", "more than %zu devices at a time", COUNT(devices));
    if (i == device_count)
        devices[device_count++] = (struct device){.device = device};
    devices[i].queue = queue;
    pthread_mutex_unlock(&lock);
}

void forget_device(VkDevice device) {
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < device_count; i++) {
        if (devices[i].device == device) {
            marked_count -= devices[i].lost || devices[i].stuck;
            devices[i] = devices[--device_count];
        }
    }
    pthread_mutex_unlock(&lock);
}

/* What is known of the device that the first argument is, or is a queue of. */
static struct device state_of(const struct command *command, uint64_t first) {
    struct device found = {0};
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < device_count; i++)
        if ((uint64_t)(command->of_queue ? (void *)devices[i].queue : (void *)devices[i].device) ==
            first)
            found = devices[i];
    pthread_mutex_unlock(&lock);
    return found;
}

/* Whether this call is the one that marks it. */
static bool mark(VkDevice device, bool lost) {
    bool changed = false;
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < device_count; i++) {
        struct device *found = &devices[i];
        if (found->device != device)
            continue;
        marked_count += !found->lost && !found->stuck;
        changed = lost ? !found->lost : !found->stuck;
        *(lost ? &found->lost : &found->stuck) = true;
    }
    pthread_mutex_unlock(&lock);
    return changed;
}

/* From now on nothing runs on the device: programs destroy what a lost device used. */
static struct verdict lose(struct device device) {
    if (device.device && mark(device.device, true) && device.queue && !device.stuck) {
        VkFenceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
        VkFence fence;
        if (real.vkCreateFence(device.device, &info, NULL, &fence) == VK_SUCCESS) {
            if (real.vkQueueSubmit(device.queue, 0, NULL, fence) == VK_SUCCESS &&
                real.vkWaitForFences(device.device, 1, &fence, VK_TRUE, DRAIN) == VK_SUCCESS)
                real.vkDestroyFence(device.device, fence, NULL);
        }
    }
    return (struct verdict){NULL, (uint32_t)VK_ERROR_DEVICE_LOST};
}

/* Wait in slices: a program that waits for ever is to hear when the device is lost. */
static struct verdict wait(const struct command *command, const uint64_t *arguments) {
    bool fences = strcmp(command->name, "vkWaitForFences") == 0;
    VkDevice device = (VkDevice)(uintptr_t)arguments[0];
    uint64_t left = arguments[fences ? 4 : 2];
    for (;;) {
        uint64_t slice = left < SLICE ? left : SLICE;
        const void *list = (const void *)(uintptr_t)arguments[fences ? 2 : 1];
        VkResult result = fences ? real.vkWaitForFences(device, (uint32_t)arguments[1], list,
                                                        (VkBool32)arguments[3], slice)
                                 : real.vkWaitSemaphores(device, list, slice);
        left -= left == UINT64_MAX ? 0 : slice;
        if (result != VK_TIMEOUT || left == 0)
            return (struct verdict){NULL, (uint32_t)result};
        struct device state = state_of(command, arguments[0]);
        if (state.lost || all_are_lost())
            return lose(state);
    }
}

struct verdict before_command(uint32_t number, const uint64_t *arguments) {
    const struct command *command = &commands[number];
    const struct verdict go_on = {command->target, 0}, done = {NULL, VK_SUCCESS};
    const struct rule *rule = match_rule(command->name, arguments);
    if (rule && rule->action == RESULT)
        return (struct verdict){NULL, (uint32_t)rule->result};
    if (rule && rule->action == SEGV)
        *(volatile int *volatile)NULL = 0;
    if (rule && rule->action == ABORT)
        abort();
    while (rule && rule->action == HANG)
        pause();
    if (command->duty == OTHER)
        return go_on;
    if (!rule && __atomic_load_n(&marked_count, __ATOMIC_ACQUIRE) == 0)
        return command->duty == WAITS ? wait(command, arguments) : go_on;
    struct device state = state_of(command, arguments[0]);
    if (rule && rule->action == LOST)
        return lose(state);
    if (rule && rule->action == NEVER && command->duty == SUBMITS) {
        mark(state.device, false);
        state.stuck = true;
    }
    if (state.lost)
        return lose(state);
    if (state.stuck && command->duty == SUBMITS)
        return done;
    while (state.stuck && command->duty == IDLES) {
        if (state_of(command, arguments[0]).lost || all_are_lost())
            return lose(state);
        usleep(SLICE / 1000);
    }
    return command->duty == WAITS ? wait(command, arguments) : go_on;
}
