/* Reads of memory that a guest may change at any time, and small copies. */
#ifndef HESPER_MEMORY_H
#define HESPER_MEMORY_H

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "platform.h"

typedef struct {
    uint64_t value;
} __attribute__((packed, aligned(4), may_alias)) hesper_guest_u64;

typedef struct {
    uint32_t value;
} __attribute__((aligned(4), may_alias)) hesper_guest_u32;

/* Volatile, so that the compiler cannot fetch a value again after it was checked. */
static inline uint64_t hesper_read_u64(const void *at) {
    return ((const volatile hesper_guest_u64 *)at)->value;
}

static inline uint32_t hesper_read_u32(const void *at) {
    return ((const volatile hesper_guest_u32 *)at)->value;
}

static inline void hesper_write_u64(void *at, uint64_t value) {
    ((hesper_guest_u64 *)at)->value = value;
}

static inline void hesper_write_u32(void *at, uint32_t value) {
    ((hesper_guest_u32 *)at)->value = value;
}

/* Most runs of fields are a few words long; a call of memcpy would cost more than the copy.
 * The size is a multiple of 4. */
static inline void hesper_copy_words(void *to, const void *from, size_t size) {
    if (size > 128) {
        memcpy(to, from, size);
        return;
    }
    uint8_t *target = (uint8_t *)to;
    const uint8_t *source = (const uint8_t *)from;
    while (size >= 16) {
        memcpy(target, source, 16);
        target += 16;
        source += 16;
        size -= 16;
    }
    if (size & 8) {
        memcpy(target, source, 8);
        target += 8;
        source += 8;
    }
    if (size & 4)
        memcpy(target, source, 4);
}

/* Zeroed memory that lies on a multiple of its size, a power of two; or null.  It takes up room only
   where it is written to. */
static inline void *hesper_map_aligned(size_t size) {
    uint8_t *at = (uint8_t *)mmap(0, 2 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (at == (uint8_t *)MAP_FAILED)
        return 0;
    size_t before = (size - (uintptr_t)at % size) % size;
    if (before)
        munmap(at, before);
    munmap(at + before + size, size - before);
    return at + before;
}

static inline void hesper_unmap(void *at, size_t size) {
    munmap(at, size);
}

/* For whoever samples what a thread is doing; nothing else depends on their order. */
static inline void hesper_note(uint32_t *at, uint32_t value) {
    __atomic_store_n(at, value, __ATOMIC_RELAXED);
}

static inline uint32_t hesper_noted(const uint32_t *at) {
    return __atomic_load_n(at, __ATOMIC_RELAXED);
}

/* A counter that one thread adds to and others may look at. */
static inline void hesper_count(uint64_t *at, uint64_t amount) {
    __atomic_store_n(at, *at + amount, __ATOMIC_RELAXED);
}

static inline uint64_t hesper_counted(const uint64_t *at) {
    return __atomic_load_n(at, __ATOMIC_RELAXED);
}

static inline uint32_t hesper_load_acquire(const uint32_t *at) {
    return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

static inline uint32_t hesper_load_ordered(const uint32_t *at) {
    return __atomic_load_n(at, __ATOMIC_SEQ_CST);
}

static inline void hesper_store_release(uint32_t *at, uint32_t value) {
    __atomic_store_n(at, value, __ATOMIC_RELEASE);
}

/* Before any `hesper_load_ordered` that follows: x86 lets other stores wait while loads go ahead. */
static inline void hesper_store_ordered(uint32_t *at, uint32_t value) {
    __atomic_store_n(at, value, __ATOMIC_SEQ_CST);
}

static inline uint64_t hesper_load_u64(const uint64_t *at) {
    return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

static inline void hesper_store_u64(uint64_t *at, uint64_t value) {
    __atomic_store_n(at, value, __ATOMIC_RELEASE);
}

static inline void hesper_set_bits(uint32_t *at, uint32_t bits) {
    (void)__atomic_fetch_or(at, bits, __ATOMIC_SEQ_CST);
}

static inline void hesper_clear_bits(uint32_t *at, uint32_t bits) {
    (void)__atomic_fetch_and(at, ~bits, __ATOMIC_SEQ_CST);
}

static inline uint32_t hesper_add(uint32_t *at, uint32_t amount) {
    return __atomic_add_fetch(at, amount, __ATOMIC_RELAXED);
}

/* Counters of what threads take and give back, which nothing else depends on. */
static inline uint64_t hesper_add_u64(uint64_t *at, uint64_t amount) {
    return __atomic_add_fetch(at, amount, __ATOMIC_RELAXED);
}

/* Whether `amount` was added, which it is unless there would be more than `limit` at `at`. Nobody sees
   an amount that does not fit: others that do would be refused for it. */
static inline int hesper_add_within(uint64_t *at, uint64_t amount, uint64_t limit) {
    uint64_t found = __atomic_load_n(at, __ATOMIC_RELAXED);
    do {
        if (amount > limit || found > limit - amount)
            return 0;
    } while (!__atomic_compare_exchange_n(at, &found, found + amount, 1, __ATOMIC_RELAXED,
                                          __ATOMIC_RELAXED));
    return 1;
}

static inline uint64_t hesper_exchange_u64(uint64_t *at, uint64_t value) {
    return __atomic_exchange_n(at, value, __ATOMIC_ACQ_REL);
}

/* All that was written before can be seen by whoever finds the new value. */
static inline uint32_t hesper_add_ordered(uint32_t *at, uint32_t amount) {
    return __atomic_add_fetch(at, amount, __ATOMIC_ACQ_REL);
}

/* Returns what stood there. */
static inline uint32_t hesper_exchange(uint32_t *at, uint32_t value) {
    return __atomic_exchange_n(at, value, __ATOMIC_ACQ_REL);
}

/* Whether `expected` stood there, and `value` does now. */
static inline int hesper_replace(uint32_t *at, uint32_t expected, uint32_t value) {
    return __atomic_compare_exchange_n(at, &expected, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

static inline uint64_t hesper_popcount(uint64_t bits) {
    return (uint64_t)__builtin_popcountll(bits);
}

static inline void *hesper_load_pointer(void **at) {
    return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

static inline void hesper_store_pointer(void **at, void *value) {
    __atomic_store_n(at, value, __ATOMIC_RELEASE);
}

/* Puts `value` there, unless something stands there. */
static inline void hesper_publish(void **at, void *value) {
    void *expected = 0;
    (void)__atomic_compare_exchange_n(at, &expected, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

static inline void hesper_spin_lock(uint32_t *lock) {
    while (__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE)) {
    }
}

static inline int hesper_try_lock(uint32_t *lock) {
    return __atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE) == 0;
}

static inline void hesper_spin_unlock(uint32_t *lock) {
    __atomic_store_n(lock, 0, __ATOMIC_RELEASE);
}

#endif
