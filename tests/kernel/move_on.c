/* Whether a thread that moves on finds itself on another processor, as free to go as before. */
#define _GNU_SOURCE
#include "../../src/hesper/kernel/includes/threads.h"

#include <sched.h>
#include <string.h>

int moves_on(void) {
    cpu_set_t before, after;
    if (sched_getaffinity(0, sizeof before, &before))
        return -1;
    int here = sched_getcpu();
    hesper_move_on();
    int there = sched_getcpu();
    if (sched_getaffinity(0, sizeof after, &after) || memcmp(&before, &after, sizeof before))
        return -1;
    return here != there;
}
