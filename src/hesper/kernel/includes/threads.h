/* Time and blocking, the same on Linux and macOS. */
#ifndef HESPER_THREADS_H
#define HESPER_THREADS_H

#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <time.h>

#ifdef __linux__
#include <sys/prctl.h>
#endif

static inline uint64_t hesper_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void hesper_sleep_ns(uint64_t ns) {
    struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    nanosleep(&t, 0);
}

/* Linux stretches every sleep by 50 us unless the thread asks it not to. */
static inline void hesper_precise_sleep(void) {
#ifdef __linux__
    prctl(PR_SET_TIMERSLACK, 1000ul, 0, 0, 0);
#endif
}

/* Moves this thread to another processor; it may go wherever it might before. */
static inline void hesper_move_on(void) {
#ifdef __linux__
    cpu_set_t all, others;
    int here = sched_getcpu();
    if (here < 0 || sched_getaffinity(0, sizeof all, &all))
        return;
    others = all;
    CPU_CLR(here, &others);
    if (CPU_COUNT(&others) && !sched_setaffinity(0, sizeof others, &others))
        sched_setaffinity(0, sizeof all, &all);
#endif
}

static inline void hesper_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

typedef struct {
    pthread_mutex_t mutex;
    pthread_cond_t condition;
} hesper_monitor;

static inline int hesper_monitor_init(hesper_monitor *m) {
    if (pthread_mutex_init(&m->mutex, 0))
        return -1;
#ifdef __APPLE__
    return pthread_cond_init(&m->condition, 0);
#else
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    int result = pthread_cond_init(&m->condition, &attributes);
    pthread_condattr_destroy(&attributes);
    return result;
#endif
}

static inline void hesper_monitor_destroy(hesper_monitor *m) {
    pthread_cond_destroy(&m->condition);
    pthread_mutex_destroy(&m->mutex);
}

/* Waits for a signal, at most `ns`; the mutex is held. */
static inline void hesper_monitor_wait_for(hesper_monitor *m, uint64_t ns) {
#ifdef __APPLE__
    struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    pthread_cond_timedwait_relative_np(&m->condition, &m->mutex, &t);
#else
    uint64_t until = hesper_now_ns() + ns;
    struct timespec t = {(time_t)(until / 1000000000u), (long)(until % 1000000000u)};
    pthread_cond_timedwait(&m->condition, &m->mutex, &t);
#endif
}

#endif
