/* What the process was doing when a fatal signal came: said in one line, from the signal's handler.
 *
 * Everything here is async-signal-safe: no locks, no memory, no formatted output.  Portable POSIX.
 */
#ifndef HESPER_CRASH_H
#define HESPER_CRASH_H

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "last_words.h"
#include "platform.h"

#define HESPER_CRASH_SLOTS 2048
#define HESPER_CRASH_STACK (64 << 10)

/* A thread that runs commands, and where it notes what it is doing. */
typedef struct {
    uint32_t state; /* 0: free, 1: being filled, 2: in use */
    uint32_t ring;  /* 0: the context's own stream */
    pthread_t thread;
    const uint32_t *stage;
    const uint32_t *number;
    void *stack;
} hesper_crash_slot;

static hesper_crash_slot hesper_crash_slots[HESPER_CRASH_SLOTS];
static int hesper_crash_fd = -1;
static const char *(*hesper_crash_command)(uint32_t number);
static const char *(*hesper_crash_stage)(uint32_t stage);

static const int hesper_crash_signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE, SIGSYS};

typedef struct {
    char text[512];
    size_t length;
} hesper_crash_line;

static inline void hesper_crash_raw(hesper_crash_line *line, const char *text)
{
    while (*text && line->length < sizeof(line->text))
        line->text[line->length++] = *text++;
}

/* A value, without what would need an escape in JSON. */
static inline void hesper_crash_word(hesper_crash_line *line, const char *text)
{
    for (; *text && line->length < sizeof(line->text); text++)
        if (*text >= ' ' && *text <= '~' && *text != '"' && *text != '\\')
            line->text[line->length++] = *text;
}

static inline void hesper_crash_number(hesper_crash_line *line, uint32_t number)
{
    char digits[11];
    int at = sizeof(digits) - 1;
    digits[at] = 0;
    do
        digits[--at] = '0' + number % 10;
    while (number /= 10);
    hesper_crash_raw(line, digits + at);
}

/* Who was at what: the ring whose thread this is, else everyone.  The socket's thread may be running a
 * ring's commands, and a driver's own thread those of anybody. */
static inline void hesper_crash_streams(hesper_crash_line *line)
{
    const pthread_t self = pthread_self();
    const char *separator = "";
    int mine = -1, i;
    for (i = 0; i < HESPER_CRASH_SLOTS && mine < 0; i++)
        if (__atomic_load_n(&hesper_crash_slots[i].state, __ATOMIC_ACQUIRE) == 2 &&
          pthread_equal(hesper_crash_slots[i].thread, self) &&
          hesper_crash_slots[i].ring)
            mine = i;
    for (i = 0; i < HESPER_CRASH_SLOTS && line->length < 400; i++) {
        const hesper_crash_slot *slot = &hesper_crash_slots[i];
        const char *stage;
        if (__atomic_load_n(&slot->state, __ATOMIC_ACQUIRE) != 2 || (mine >= 0 && i != mine))
            continue;
        stage = hesper_crash_stage(*slot->stage);
        if (!stage && slot->ring == 0)
            continue;
        hesper_crash_raw(line, separator);
        hesper_crash_raw(line, hesper_crash_command(*slot->number));
        hesper_crash_raw(line, stage ? " (" : " (done before, ");
        if (stage) {
            hesper_crash_raw(line, stage);
            hesper_crash_raw(line, ", ");
        }
        hesper_crash_raw(line, slot->ring ? "ring " : "socket)");
        if (slot->ring) {
            hesper_crash_number(line, slot->ring);
            hesper_crash_raw(line, ")");
        }
        separator = "; ";
    }
}

static void hesper_crashed(int number, siginfo_t *info, void *context)
{
    hesper_crash_line line = {.length = 0};
    char name[64] = "";
    uint64_t call[7];
    int i;
    pthread_getname_np(pthread_self(), name, sizeof(name));
    /* Another thread may be in the middle of a line. */
    hesper_crash_raw(&line, "\n{\"is\":\"crashed\",\"thread\":\"");
    hesper_crash_word(&line, name);
    hesper_crash_raw(&line, "\",\"command\":\"");
    hesper_crash_streams(&line);
    hesper_crash_raw(&line, "\"");
    if (number == SIGSYS && hesper_refused_call(info, context, call)) {
        hesper_crash_raw(&line, ",\"call\":");
        for (i = 0; i < 7; i++) {
            hesper_crash_number(&line, (uint32_t)call[i]);
            hesper_crash_raw(&line, i == 0 ? ",\"with\":[" : i == 6 ? "]" : ",");
        }
    }
    hesper_crash_raw(&line, "}\n");
    (void)!send(hesper_crash_fd, line.text, line.length, MSG_DONTWAIT);
    hesper_last_words();
    /* The default action, once this handler returns: the process dies of it. */
    signal(number, SIG_DFL);
    raise(number);
}

/* Say so over the socket `fd` from now on. */
static inline void hesper_crash_report(int fd, const char *(*command)(uint32_t),
                                                    const char *(*stage)(uint32_t))
{
    struct sigaction action;
    size_t i;
    memset(&action, 0, sizeof(action));
    action.sa_sigaction = hesper_crashed;
    action.sa_flags = SA_ONSTACK | SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    hesper_crash_command = command;
    hesper_crash_stage = stage;
    hesper_crash_fd = fd;
    for (i = 0; i < sizeof(hesper_crash_signals) / sizeof(*hesper_crash_signals); i++)
        sigaction(hesper_crash_signals[i], &action, NULL);
}

/* This thread runs commands, and notes them at those places.  Returns its slot, -1 without one. */
static inline int hesper_crash_enter(uint32_t ring, const uint32_t *stage, const uint32_t *number)
{
    int i;
    if (hesper_crash_fd < 0)
        return -1;
    for (i = 0; i < HESPER_CRASH_SLOTS; i++) {
        hesper_crash_slot *slot = &hesper_crash_slots[i];
        uint32_t is_free = 0;
        if (!__atomic_compare_exchange_n(&slot->state, &is_free, 1, 0, __ATOMIC_ACQ_REL,
                                                    __ATOMIC_RELAXED))
            continue;
        slot->ring = ring;
        slot->thread = pthread_self();
        slot->stage = stage;
        slot->number = number;
        slot->stack = NULL;
        if (ring && (slot->stack = malloc(HESPER_CRASH_STACK))) {
            stack_t stack = {.ss_sp = slot->stack, .ss_size = HESPER_CRASH_STACK};
            sigaltstack(&stack, NULL);
        }
        __atomic_store_n(&slot->state, 2, __ATOMIC_RELEASE);
        return i;
    }
    return -1;
}

static inline void hesper_crash_leave(int index)
{
    if (index < 0)
        return;
    hesper_crash_slot *slot = &hesper_crash_slots[index];
    __atomic_store_n(&slot->state, 1, __ATOMIC_RELEASE);
    if (slot->stack) {
        stack_t none = {.ss_flags = SS_DISABLE};
        sigaltstack(&none, NULL);
        free(slot->stack);
    }
    __atomic_store_n(&slot->state, 0, __ATOMIC_RELEASE);
}

#endif
