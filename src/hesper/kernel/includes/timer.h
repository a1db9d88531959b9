/* A timer that one thread waits for and others set.  Nobody is woken before it fires. */
#ifndef HESPER_TIMER_H
#define HESPER_TIMER_H

#include <stdint.h>
#include <unistd.h>

#include "platform.h"

typedef struct {
    int fd;
} hesper_timer;

/* 0, or -1 without descriptors. */
static inline int hesper_timer_init(hesper_timer *t) {
    t->fd = hesper_alarm_open();
    return t->fd < 0 ? -1 : 0;
}

static inline void hesper_timer_destroy(hesper_timer *t) {
    close(t->fd);
}

/* Have it fire once in `ns`; 0: not at all. */
static inline void hesper_timer_set(hesper_timer *t, uint64_t ns) {
    hesper_alarm_set(t->fd, ns);
}

/* Block until it fires. */
static inline void hesper_timer_wait(hesper_timer *t) {
    hesper_alarm_wait(t->fd);
}

#endif
