/* Time and blocking. */
#ifndef HESPER_THREADS_H
#define HESPER_THREADS_H

#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <time.h>

#include "platform.h"

static inline void hesper_sleep_ns(uint64_t ns) {
    struct timespec t = hesper_timespec(ns);
    nanosleep(&t, 0);
}

typedef struct {
    pthread_mutex_t mutex;
    pthread_cond_t condition;
} hesper_monitor;

static inline int hesper_monitor_init(hesper_monitor *m) {
    if (pthread_mutex_init(&m->mutex, 0))
        return -1;
    return hesper_condition_init(&m->condition);
}

static inline void hesper_monitor_destroy(hesper_monitor *m) {
    pthread_cond_destroy(&m->condition);
    pthread_mutex_destroy(&m->mutex);
}

/* Waits for a signal, at most `ns`; the mutex is held. */
static inline void hesper_monitor_wait_for(hesper_monitor *m, uint64_t ns) {
    hesper_condition_wait_for(&m->condition, &m->mutex, ns);
}

#endif
