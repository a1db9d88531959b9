/* A timer that one thread waits for and others set.  Nobody is woken before it fires. */
#ifndef HESPER_TIMER_H
#define HESPER_TIMER_H

#include <errno.h>
#include <stdint.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/timerfd.h>
#else
#include <sys/event.h>
#endif

typedef struct {
    int fd;
} hesper_timer;

/* 0, or -1 without descriptors. */
static inline int hesper_timer_init(hesper_timer *t) {
#ifdef __linux__
    t->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
#else
    t->fd = kqueue();
#endif
    return t->fd < 0 ? -1 : 0;
}

static inline void hesper_timer_destroy(hesper_timer *t) {
    close(t->fd);
}

/* Have it fire once in `ns`; 0: not at all. */
static inline void hesper_timer_set(hesper_timer *t, uint64_t ns) {
#ifdef __linux__
    struct itimerspec when = {
        {0, 0}, {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)}};
    timerfd_settime(t->fd, 0, &when, 0);
#else
    struct kevent change;
    EV_SET(&change, 1, EVFILT_TIMER, ns ? EV_ADD | EV_ONESHOT : EV_DELETE, NOTE_NSECONDS,
           (intptr_t)ns, 0);
    kevent(t->fd, &change, 1, 0, 0, 0);
#endif
}

/* Block until it fires. */
static inline void hesper_timer_wait(hesper_timer *t) {
#ifdef __linux__
    uint64_t fired;
    while (read(t->fd, &fired, sizeof fired) < 0 && errno == EINTR)
        ;
#else
    struct kevent fired;
    while (kevent(t->fd, 0, 0, &fired, 1, 0) < 0 && errno == EINTR)
        ;
#endif
}

#endif
