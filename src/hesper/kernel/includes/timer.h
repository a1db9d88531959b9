/* A timer that one thread waits for and others set.  Nobody is woken before it fires, but by a `set`. */
#ifndef HESPER_TIMER_H
#define HESPER_TIMER_H

#include <pthread.h>
#include <stdint.h>

#include "platform.h"
#include "threads.h"

typedef struct {
    hesper_monitor monitor;
    uint64_t due; /* 0: not at all */
} hesper_timer;

/* 0, or not where the system cannot. */
static inline int hesper_timer_init(hesper_timer *t) {
    t->due = 0;
    return hesper_monitor_init(&t->monitor);
}

static inline void hesper_timer_destroy(hesper_timer *t) {
    hesper_monitor_destroy(&t->monitor);
}

/* Have it fire once in `ns`; 0: not at all. */
static inline void hesper_timer_set(hesper_timer *t, uint64_t ns) {
    pthread_mutex_lock(&t->monitor.mutex);
    t->due = ns ? hesper_now_ns() + ns : 0;
    pthread_cond_signal(&t->monitor.condition);
    pthread_mutex_unlock(&t->monitor.mutex);
}

/* Block until it fires. */
static inline void hesper_timer_wait(hesper_timer *t) {
    pthread_mutex_lock(&t->monitor.mutex);
    for (;;) {
        uint64_t now = hesper_now_ns();
        if (t->due && t->due <= now)
            break;
        if (t->due)
            hesper_monitor_wait_for(&t->monitor, t->due - now);
        else
            pthread_cond_wait(&t->monitor.condition, &t->monitor.mutex);
    }
    t->due = 0;
    pthread_mutex_unlock(&t->monitor.mutex);
}

#endif
