/* What differs between systems: the only header that asks which one it is compiled for. */
#ifndef HESPER_PLATFORM_H
#define HESPER_PLATFORM_H

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/prctl.h>
#include <sys/resource.h>
#include <ucontext.h>
#endif

/* Whether to do without what only this system has: HESPER_PORTABLE=1 asks for it, so that what every
   other system does is tested on Linux. */
static inline int hesper_is_portable(void) {
#ifdef __linux__
    static int known; /* 0: not yet, 1: no, 2: yes */
    int found = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (!found) {
        const char *asked = getenv("HESPER_PORTABLE");
        found = asked && !strcmp(asked, "1") ? 2 : 1;
        __atomic_store_n(&known, found, __ATOMIC_RELAXED);
    }
    return found == 2;
#else
    return 1;
#endif
}

static inline struct timespec hesper_timespec(uint64_t ns) {
    struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    return t;
}

static inline uint64_t hesper_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Threads */

/* What a thread that calls drivers has of macOS's libraries, where they are loaded.  They are looked up
   by their names, so that no other system has to be asked for and a stub stands for them in tests. */
typedef struct {
    void *(*push)(void);
    void (*pop)(void *);
    void *pool;
    unsigned rounds;
} hesper_thread;

#define HESPER_QOS_USER_INTERACTIVE 0x21u
#define HESPER_DRAIN_ROUNDS 256u

/* Begins with the class of what somebody waits for: others may be kept on slow cores.  And with a pool
   for what drivers in Objective-C have released later; without one it would stay for ever. */
static inline void hesper_thread_begin(hesper_thread *t) {
    int (*set_class)(unsigned, int) =
        (int (*)(unsigned, int))dlsym(RTLD_DEFAULT, "pthread_set_qos_class_self_np");
    if (set_class)
        (void)set_class(HESPER_QOS_USER_INTERACTIVE, 0);
    t->push = (void *(*)(void))dlsym(RTLD_DEFAULT, "objc_autoreleasePoolPush");
    t->pop = (void (*)(void *))dlsym(RTLD_DEFAULT, "objc_autoreleasePoolPop");
    t->pool = t->push && t->pop ? t->push() : 0;
    t->rounds = 0;
}

static inline void hesper_thread_end(hesper_thread *t) {
    if (t->pool)
        t->pop(t->pool);
    t->pool = 0;
}

/* Lets go of what was released: when there is time. */
static inline void hesper_thread_rest(hesper_thread *t) {
    if (t->pool) {
        t->pop(t->pool);
        t->pool = t->push();
        t->rounds = 0;
    }
}

/* After some work, of which there may be no end. */
static inline void hesper_thread_worked(hesper_thread *t) {
    if (t->pool && ++t->rounds == HESPER_DRAIN_ROUNDS)
        hesper_thread_rest(t);
}

/* Linux stretches every sleep by 50 us unless the thread asks it not to. */
static inline void hesper_precise_sleep(void) {
#ifdef __linux__
    if (!hesper_is_portable())
        prctl(PR_SET_TIMERSLACK, 1000ul, 0, 0, 0);
#endif
}

/* Has this thread give way to others as much as a thread of that nice value does.  Not the other way:
   what a guest asks for holds among its own threads, and nobody else's come after them. */
static inline void hesper_give_way(int nice) {
#ifdef __linux__
    if (!hesper_is_portable() && nice > getpriority(PRIO_PROCESS, 0))
        setpriority(PRIO_PROCESS, 0, nice);
#else
    (void)nice; /* elsewhere it would be the whole process */
#endif
}

/* Moves this thread to another processor; it may go wherever it might before. */
static inline void hesper_move_on(void) {
#ifdef __linux__
    cpu_set_t all, others;
    int here = hesper_is_portable() ? -1 : sched_getcpu();
    if (here < 0 || sched_getaffinity(0, sizeof all, &all))
        return;
    others = all;
    CPU_CLR(here, &others);
    if (CPU_COUNT(&others) && !sched_setaffinity(0, sizeof others, &others))
        sched_setaffinity(0, sizeof all, &all);
#endif
}

/* Tells the processor that this is a loop that waits. */
static inline void hesper_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Makes a condition whose waits `hesper_condition_wait_for` bounds; 0, or -1 or an error. */
static inline int hesper_condition_init(pthread_cond_t *condition) {
#ifdef __APPLE__
    return pthread_cond_init(condition, 0);
#else
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    int result = pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
    return result;
#endif
}

/* Waits for a signal, at most `ns`; the mutex is held. */
static inline void hesper_condition_wait_for(pthread_cond_t *condition, pthread_mutex_t *mutex,
                                             uint64_t ns) {
#ifdef __APPLE__
    struct timespec t = hesper_timespec(ns);
    pthread_cond_timedwait_relative_np(condition, mutex, &t);
#else
    struct timespec t = hesper_timespec(hesper_now_ns() + ns);
    pthread_cond_timedwait(condition, mutex, &t);
#endif
}

/* Signals */

/* The system call that SIGSYS came for: its number, then its arguments; whether it
   is known.  Two processors are, as in `sandbox/calls.py`. */
static inline int hesper_refused_call(const siginfo_t *info, const void *context, uint64_t *call) {
#if defined(__linux__) && defined(__x86_64__)
    static const int places[6] = {REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9};
    const greg_t *registers = ((const ucontext_t *)context)->uc_mcontext.gregs;
    call[0] = (uint64_t)info->si_syscall;
    for (int i = 0; i < 6; i++)
        call[i + 1] = (uint64_t)registers[places[i]];
    return info->si_code == 1; /* SYS_SECCOMP */
#elif defined(__linux__) && defined(__aarch64__)
    call[0] = (uint64_t)info->si_syscall;
    for (int i = 0; i < 6; i++)
        call[i + 1] = ((const ucontext_t *)context)->uc_mcontext.regs[i];
    return info->si_code == 1;
#else
    (void)info;
    (void)context;
    (void)call;
    return 0;
#endif
}

/* Memory */

/* Has the system give pages of a shared mapping now, where it can, and not one by one when they are
   written.  `at` lies on a page; a failure shows nowhere but in the time that writing takes. */
static inline void hesper_populate(void *at, size_t size) {
#ifdef MADV_POPULATE_WRITE
    if (!hesper_is_portable())
        (void)madvise(at, size, MADV_POPULATE_WRITE);
#else
    (void)at;
    (void)size;
#endif
}

/* Gives back what lies in whole pages of the system from `start` to `end`, both behind `at`.  Whoever
   reads it finds zeros, or what stood there. */
static inline void hesper_discard(void *at, size_t start, size_t end) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    start = (start + page - 1) / page * page;
    if (start >= end)
        return;
#ifdef __linux__
    if (!hesper_is_portable()) {
        (void)madvise((uint8_t *)at + start, end - start, MADV_DONTNEED);
        return;
    }
#endif
#ifdef MADV_FREE
    (void)madvise((uint8_t *)at + start, end - start, MADV_FREE);
#endif
}

/* Descriptors */

/* A pipe that children do not inherit; 0, or -1 with errno set. */
static inline int hesper_pipe(int *ends) {
#ifdef __linux__
    if (!hesper_is_portable())
        return pipe2(ends, O_CLOEXEC);
#endif
    if (pipe(ends))
        return -1;
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    fcntl(ends[1], F_SETFD, FD_CLOEXEC);
    return 0;
}

/* Sends up to `count` (1 or 2) messages; how many bytes that were, or -1 with errno set. */
static inline ssize_t hesper_send_some(int fd, struct msghdr *messages, unsigned count) {
#ifdef __linux__
    if (!hesper_is_portable()) {
        /* In one call: whoever is woken by the first finds the second there. */
        struct mmsghdr both[2] = {{messages[0], 0}, {messages[count - 1], 0}};
        int sent = sendmmsg(fd, both, count, 0);
        if (sent < 0)
            return -1;
        return (ssize_t)both[0].msg_len + (sent == 2 ? (ssize_t)both[1].msg_len : 0);
    }
#endif
    (void)count;
    return sendmsg(fd, messages, 0);
}

/* Waits until there is something to read, at most `ns` (below a second). */
static inline void hesper_await(int fd, uint64_t ns) {
    struct timespec t = hesper_timespec(ns);
#ifdef __linux__
    if (!hesper_is_portable()) {
        struct pollfd wanted = {fd, POLLIN, 0};
        ppoll(&wanted, 1, &t, 0);
        return;
    }
#endif
    /* poll() counts in milliseconds. */
    fd_set wanted;
    FD_ZERO(&wanted);
    if (fd < FD_SETSIZE)
        FD_SET(fd, &wanted);
    pselect(fd < FD_SETSIZE ? fd + 1 : 0, &wanted, 0, 0, &t, 0);
}

#endif
