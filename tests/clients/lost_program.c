/* A Vulkan program whose work ends or does not; it waits for it in the way that its argument names.
 *
 * It works once (not for "fence-later") and prints "ready", waits for a line, submits more and prints
 * "submitted"; then what its wait has said, and what another submission and wait of the same kind
 * say. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <vulkan/vulkan.h>

static VkDevice device;
static VkQueue queue;
static VkCommandBuffer commands;
static VkFence fence;
static VkSemaphore timeline;
static VkQueryPool queries;
static uint64_t value;
static const char *way;

static void check(const char *what, VkResult result) {
    if (result != VK_SUCCESS) {
        printf("%s: %d\n", what, result);
        exit(1);
    }
}

static int is(const char *name) { return strcmp(way, name) == 0; }

static void start(void) {
    const VkApplicationInfo application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                           .apiVersion = VK_API_VERSION_1_2};
    const VkInstanceCreateInfo instance_info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                                .pApplicationInfo = &application};
    VkInstance instance;
    check("vkCreateInstance", vkCreateInstance(&instance_info, NULL, &instance));
    uint32_t count = 1;
    VkPhysicalDevice physical;
    VkResult result = vkEnumeratePhysicalDevices(instance, &count, &physical);
    check("vkEnumeratePhysicalDevices", result == VK_INCOMPLETE ? VK_SUCCESS : result);
    const VkPhysicalDeviceVulkan12Features features = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, .timelineSemaphore = 1};
    const float priority = 1;
    const VkDeviceQueueCreateInfo queue_info = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                                .queueCount = 1,
                                                .pQueuePriorities = &priority};
    const VkDeviceCreateInfo device_info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                            .pNext = &features,
                                            .queueCreateInfoCount = 1,
                                            .pQueueCreateInfos = &queue_info};
    check("vkCreateDevice", vkCreateDevice(physical, &device_info, NULL, &device));
    vkGetDeviceQueue(device, 0, 0, &queue);
}

static void make(void) {
    VkCommandPool pool;
    const VkCommandPoolCreateInfo pool_info = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO};
    check("vkCreateCommandPool", vkCreateCommandPool(device, &pool_info, NULL, &pool));
    const VkCommandBufferAllocateInfo allocate_info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = pool,
        .commandBufferCount = 1};
    check("vkAllocateCommandBuffers", vkAllocateCommandBuffers(device, &allocate_info, &commands));
    const VkFenceCreateInfo fence_info = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    check("vkCreateFence", vkCreateFence(device, &fence_info, NULL, &fence));
    const VkSemaphoreTypeCreateInfo type_info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
        .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE};
    const VkSemaphoreCreateInfo semaphore_info = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
                                                  .pNext = &type_info};
    check("vkCreateSemaphore", vkCreateSemaphore(device, &semaphore_info, NULL, &timeline));
    const VkQueryPoolCreateInfo query_info = {.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
                                              .queryType = VK_QUERY_TYPE_TIMESTAMP,
                                              .queryCount = 1};
    check("vkCreateQueryPool", vkCreateQueryPool(device, &query_info, NULL, &queries));
    const VkCommandBufferBeginInfo begin = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
        .flags = VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT};
    check("vkBeginCommandBuffer", vkBeginCommandBuffer(commands, &begin));
    vkCmdResetQueryPool(commands, queries, 0, 1);
    vkCmdWriteTimestamp(commands, VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT, queries, 0);
    check("vkEndCommandBuffer", vkEndCommandBuffer(commands));
}

static VkResult submit(void) {
    value++;
    const VkTimelineSemaphoreSubmitInfo values = {
        .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
        .signalSemaphoreValueCount = 1,
        .pSignalSemaphoreValues = &value};
    const VkSubmitInfo info = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                               .pNext = &values,
                               .commandBufferCount = 1,
                               .pCommandBuffers = &commands,
                               .signalSemaphoreCount = 1,
                               .pSignalSemaphores = &timeline};
    return vkQueueSubmit(queue, 1, &info, strncmp(way, "fence", 5) == 0 ? fence : VK_NULL_HANDLE);
}

static VkResult wait(void) {
    const struct timespec step = {.tv_nsec = 1000000};
    uint64_t counter = 0;
    VkResult result = VK_NOT_READY;
    if (is("fence") || is("fence-later"))
        return vkWaitForFences(device, 1, &fence, VK_TRUE, UINT64_MAX);
    if (is("fence-status")) {
        while ((result = vkGetFenceStatus(device, fence)) == VK_NOT_READY)
            nanosleep(&step, NULL);
        return result;
    }
    if (is("queue"))
        return vkQueueWaitIdle(queue);
    if (is("device"))
        return vkDeviceWaitIdle(device);
    if (is("semaphore")) {
        const VkSemaphoreWaitInfo info = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
                                          .semaphoreCount = 1,
                                          .pSemaphores = &timeline,
                                          .pValues = &value};
        return vkWaitSemaphores(device, &info, UINT64_MAX);
    }
    if (is("counter")) {
        while ((result = vkGetSemaphoreCounterValue(device, timeline, &counter)) == VK_SUCCESS &&
               counter < value)
            nanosleep(&step, NULL);
        return result;
    }
    if (is("query"))
        return vkGetQueryPoolResults(device, queries, 0, 1, sizeof counter, &counter,
                                     sizeof counter,
                                     VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT);
    exit(64);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int count, char **words) {
    char line[16];
    if (count != 2)
        return 64;
    way = words[1];
    setvbuf(stdout, NULL, _IOLBF, 0);
    start();
    make();
    if (!is("fence-later")) {
        check("vkQueueSubmit", submit());
        check("the first wait", wait());
    }
    printf("ready\n");
    if (!fgets(line, sizeof line, stdin))
        return 1;
    check("vkResetFences", vkResetFences(device, 1, &fence));
    check("vkQueueSubmit", submit());
    printf("submitted\n");
    double begin = now();
    VkResult result = wait();
    fprintf(stderr, "%.3f s\n", now() - begin);
    printf("%d\n", result);
    vkResetFences(device, 1, &fence);
    result = submit();
    printf("%d\n", result == VK_SUCCESS ? wait() : result);
    return 0;
}
