/* What macOS's libraries have for threads, as far as rings use it: it counts, and keeps the rules. */
#include <pthread.h>
#include <stdlib.h>

static __thread unsigned class_of_thread;
static __thread void *open_pool;
static unsigned classes[64];
static unsigned pushed, popped;

int pthread_set_qos_class_self_np(unsigned class, int priority) {
    if (priority > 0)
        abort();
    class_of_thread = class;
    __atomic_fetch_add(&classes[class & 63], 1, __ATOMIC_RELAXED);
    return 0;
}

void *objc_autoreleasePoolPush(void) {
    if (open_pool)
        abort(); /* one in another would never be drained */
    __atomic_fetch_add(&pushed, 1, __ATOMIC_RELAXED);
    return open_pool = malloc(1);
}

void objc_autoreleasePoolPop(void *pool) {
    if (!pool || pool != open_pool)
        abort(); /* of another thread, or twice */
    free(pool);
    open_pool = NULL;
    __atomic_fetch_add(&popped, 1, __ATOMIC_RELAXED);
}

unsigned threads_of_class(unsigned class) {
    return __atomic_load_n(&classes[class & 63], __ATOMIC_RELAXED);
}

unsigned pools_pushed(void) {
    return __atomic_load_n(&pushed, __ATOMIC_RELAXED);
}

unsigned pools_popped(void) {
    return __atomic_load_n(&popped, __ATOMIC_RELAXED);
}
