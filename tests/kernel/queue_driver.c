/* A Vulkan library with one queue: submissions are done when the test says so. */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

typedef int (*function)(void);
enum { SUCCESS = 0, NOT_READY = 1, TIMEOUT = 2, FENCES = 4096 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static uint64_t with_fence[FENCES]; /* by submission: its fence, or 0 */
static int alive[FENCES], signalled[FENCES];
static unsigned submitted, done, made, live, waits;
static int refusal, answer;
static unsigned looks_left; /* until a fence that is looked at is signalled; 0: it is not for that */

unsigned submissions(void) { return submitted; }
unsigned live_fences(void) { return live; }
unsigned waits_begun(void) { return __atomic_load_n(&waits, __ATOMIC_ACQUIRE); }
uint64_t fence_of(unsigned submission) { return with_fence[submission]; }
void refuse(int result) { refusal = result; }
/* What fences say, or 0: the truth. */
void answer_fences(int result) { __atomic_store_n(&answer, result, __ATOMIC_RELEASE); }
void signal_at_look(unsigned looks) { looks_left = looks; }

void reset(void) {
    memset(alive, 0, sizeof alive);
    memset(signalled, 0, sizeof signalled);
    submitted = done = made = live = waits = 0;
    refusal = answer = 0;
    looks_left = 0;
}

/* The first `count` submissions are done. */
void finish(unsigned count) {
    pthread_mutex_lock(&lock);
    for (; done < count; done++)
        signalled[with_fence[done]] = 1;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static int submit(void *queue, uint32_t count, void *batches, uint64_t fence) {
    (void)queue, (void)count, (void)batches;
    if (refusal)
        return refusal;
    pthread_mutex_lock(&lock);
    with_fence[submitted++] = fence;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

static int create_fence(void *device, void *info, void *allocator, uint64_t *fence) {
    (void)device, (void)info, (void)allocator;
    *fence = ++made;
    alive[*fence] = 1;
    live++;
    return SUCCESS;
}

static void destroy_fence(void *device, uint64_t fence, void *allocator) {
    (void)device, (void)allocator;
    live -= (unsigned)alive[fence];
    alive[fence] = 0;
}

static int reset_fences(void *device, uint32_t count, const uint64_t *fences) {
    (void)device;
    while (count--)
        signalled[fences[count]] = 0;
    return SUCCESS;
}

static int fence_status(void *device, uint64_t fence) {
    (void)device;
    if (answer)
        return answer;
    if (looks_left && --looks_left == 0)
        signalled[fence] = 1;
    return signalled[fence] ? SUCCESS : NOT_READY;
}

static int wait_for_fences(void *device, uint32_t count, const uint64_t *fences, uint32_t all,
                           uint64_t timeout) {
    struct timespec until;
    int result = SUCCESS;
    (void)device, (void)count, (void)all;
    if (answer)
        return answer;
    __atomic_fetch_add(&waits, 1, __ATOMIC_ACQ_REL);
    clock_gettime(CLOCK_REALTIME, &until);
    timeout += (uint64_t)until.tv_nsec;
    until.tv_sec += (time_t)(timeout / 1000000000u);
    until.tv_nsec = (long)(timeout % 1000000000u);
    pthread_mutex_lock(&lock);
    while (!signalled[*fences] && result == SUCCESS)
        if (pthread_cond_timedwait(&changed, &lock, &until) == ETIMEDOUT)
            result = TIMEOUT;
    pthread_mutex_unlock(&lock);
    return result;
}

static int create_buffer(void *device, void *info, void *allocator, uint64_t *buffer) {
    (void)device, (void)info, (void)allocator;
    *buffer = 0xb0f;
    return SUCCESS;
}

static int nothing(void) { return SUCCESS; }

static const struct {
    const char *name;
    function function;
} functions[] = {
    {"vkQueueSubmit", (function)submit},
    {"vkQueueSubmit2", (function)submit},
    {"vkQueueBindSparse", (function)submit},
    {"vkCreateBuffer", (function)create_buffer},
    {"vkCreateFence", (function)create_fence},
    {"vkDestroyFence", (function)destroy_fence},
    {"vkResetFences", (function)reset_fences},
    {"vkGetFenceStatus", (function)fence_status},
    {"vkWaitForFences", (function)wait_for_fences},
};

function vkGetInstanceProcAddr(void *instance, const char *name) {
    (void)instance;
    if (strcmp(name, "vkGetDeviceProcAddr") == 0)
        return (function)vkGetInstanceProcAddr;
    for (unsigned i = 0; i < sizeof functions / sizeof *functions; i++)
        if (strcmp(functions[i].name, name) == 0)
            return functions[i].function;
    return nothing;
}
