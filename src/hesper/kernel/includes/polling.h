/* How a thread waits for what may come soon before it blocks: one table, a row for each reason.
 *
 * To wake a thread takes 5 to 50 us, and some hundreds on a virtual machine whose processor has gone
 * to sleep; to stay awake takes a processor, which the driver or the guest may need.  So a wait looks
 * a few times, goes on looking where processors are to spare, yields, naps, and then blocks.  The
 * figures are set by what docs/performance.md tells under "Waiting". */
#ifndef HESPER_POLLING_H
#define HESPER_POLLING_H

#include <poll.h>
#include <stdint.h>
#include <sys/select.h>
#include <time.h>

enum {
    POLL_COMMANDS,     /* a ring, for the guest's next command */
    POLL_BORROWED,     /* a ring, for the socket to be done with its commands */
    POLL_SEQNO,        /* the socket, for a ring to come to a number */
    POLL_VIRTQUEUE,    /* a ring, for the socket to come to a number */
    POLL_FENCE,        /* whoever asked for a fence, for short work */
    POLL_MESSAGE,      /* the socket, for the next message */
    POLL_MESSAGE_OR_FENCE, /* the same, and for fences that are pending */
    POLL_MESSAGE_REST, /* the socket, for the rest of a message that a client is writing */
    POLL_ANSWER,       /* the socket, for what a client asks to wait for, before it answers */
    POLL_REASONS
};

typedef struct {
    uint16_t pauses;        /* of the processor, between two looks */
    uint16_t looks;         /* at first, without a look at the clock */
    uint16_t looks_alone;   /* the same, where yielding has let nobody else run lately */
    uint8_t patient;        /* looks all the time for as long as the context is patient */
    uint8_t polite;         /* while somebody else wants the processor: 1: it does not look all the
                             * time, 2: it blocks at once */
    uint32_t spin_ns;       /* looks all the time until then */
    uint32_t yield_ns;      /* yields between two looks until then */
    uint32_t until_ns;      /* naps until then, and then it is time to block */
    uint8_t nap_shift;      /* a nap is that share of the time so far, */
    uint32_t nap_least_ns;  /* but not shorter than this, */
    uint32_t nap_most_ns;   /* nor longer; */
    uint32_t nap_rare_ns;   /* but for a 32nd of the time so far, up to this */
    uint8_t rests;          /* occasions that are left out after one on which waiting did not help */
} hesper_poll_row;

static const hesper_poll_row hesper_poll_rows[POLL_REASONS] = {
    /* A call is answered in 0.4 us where both sides look and have a processor each, and in 1.1 to 3.1
     * where the guest's is yielded to (H200).  Naps of half the quiet time leave two processors to
     * lavapipe's threads: with looking alone `vkmark clear` fell by a third.  IDLE may not be said
     * before the time-out that the guest has named, which takes the place of `until_ns`: within that
     * time after a notification it sends no other (`vn_ring_submit_internal` in Mesa).  Mesa names 1 ms;
     * one that names an hour is looked at fifty times a second. */
    [POLL_COMMANDS] = {.pauses = 1, .looks = 8, .looks_alone = 100, .patient = 1, .polite = 1,
                       .yield_ns = 10000, .until_ns = UINT32_MAX, .nap_shift = 1,
                       .nap_least_ns = 5000, .nap_most_ns = 200000, .nap_rare_ns = 20000000},
    /* They are few and short, but for a driver that takes its time over one. */
    [POLL_BORROWED] = {.pauses = 16, .looks = 16, .yield_ns = 30000},
    /* `llama-bench` tg64 on an H200 by patience: 754 tokens a second without, 1009 with 500 us. */
    [POLL_SEQNO] = {.pauses = 1, .patient = 1, .polite = 1},
    /* The guest sends both at once: mostly it is a few us. */
    [POLL_VIRTQUEUE] = {.pauses = 1, .patient = 1, .polite = 1, .yield_ns = 30000},
    /* Most submissions of vkmark on lavapipe are through within 30 us, and a switch of threads takes
     * as long; where one was not, the next 16 are left to the waiter at once. */
    [POLL_FENCE] = {.pauses = 1, .yield_ns = 30000, .rests = 16},
    [POLL_MESSAGE] = {.pauses = 1, .patient = 1, .polite = 2},
    /* Of the 1009 tokens above: to be woken by the driver, and to wake the socket's thread for the next
     * question, takes longer than to look.  Naps of a 64th cost a processor's 100 ms at most. */
    [POLL_MESSAGE_OR_FENCE] = {.pauses = 1, .polite = 2, .spin_ns = 1000000,
                               .until_ns = 100000000, .nap_shift = 6, .nap_most_ns = 2000000},
    /* A client writes a message in up to fifteen pieces.  Blocked in recv, the thread was woken for each,
     * in the client's place: twenty switches a frame of `vkmark clear`, now five. */
    [POLL_MESSAGE_REST] = {.pauses = 16, .looks = 1, .polite = 2, .yield_ns = 4000},
    /* A client sleeps once, not for the answer and again for the descriptor. */
    [POLL_ANSWER] = {.pauses = 1, .polite = 2, .spin_ns = 300000, .rests = 16},
};

/* Between two looks: somebody else had the processor, and for how long nobody looks out after that. */
#define HESPER_HELD_UP_NS 100000u
#define HESPER_CONTENDED_NS 50000000u
/* A yield that takes longer has let somebody else run.  A guest that calls and waits needs two to seven
 * times as long where it shares its processor with the thread that answers, and Linux may leave them
 * there though another is idle: after that many calls in a row the thread moves, and not again before
 * the guest has had time to follow. */
#define HESPER_SHARED_NS 800u
#define HESPER_SHARED_ENOUGH 64u
#define HESPER_MOVE_AGAIN_NS 100000000u

/* Sleep for `ns`, or until `fd`, if there is one (not 0), can be read. */
static inline void hesper_nap(int fd, uint64_t ns) {
    if (fd > 0) {
        hesper_await(fd, ns);
        return;
    }
    struct timespec t = hesper_timespec(ns);
    nanosleep(&t, 0);
}

#endif
