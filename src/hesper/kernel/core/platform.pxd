"""Memory that others change, time, threads: `includes/*.h`, the same on Linux and macOS."""

from libc.stdint cimport uint32_t, uint64_t


cdef extern from "memory.h" nogil:
    void hesper_note(uint32_t *at, uint32_t value)
    uint32_t hesper_noted(const uint32_t *at)
    void hesper_count(uint64_t *at, uint64_t amount)
    uint64_t hesper_counted(const uint64_t *at)
    uint64_t hesper_read_u64(const void *at)
    uint32_t hesper_read_u32(const void *at)
    void hesper_write_u64(void *at, uint64_t value)
    void hesper_write_u32(void *at, uint32_t value)
    void hesper_copy_words(void *to, const void *source, size_t size)
    void hesper_populate(void *at, size_t size)
    void *hesper_map_aligned(size_t size)
    void hesper_unmap(void *at, size_t size)
    void hesper_discard(void *at, size_t start, size_t end)
    uint32_t hesper_load_acquire(const uint32_t *at)
    uint64_t hesper_load_u64(const uint64_t *at)
    void hesper_store_u64(uint64_t *at, uint64_t value)
    uint32_t hesper_load_ordered(const uint32_t *at)
    void hesper_store_release(uint32_t *at, uint32_t value)
    void hesper_store_ordered(uint32_t *at, uint32_t value)
    void hesper_set_bits(uint32_t *at, uint32_t bits)
    void hesper_clear_bits(uint32_t *at, uint32_t bits)
    uint32_t hesper_add(uint32_t *at, uint32_t amount)
    uint64_t hesper_add_u64(uint64_t *at, uint64_t amount)
    bint hesper_add_within(uint64_t *at, uint64_t amount, uint64_t limit)
    uint64_t hesper_exchange_u64(uint64_t *at, uint64_t value)
    uint32_t hesper_add_ordered(uint32_t *at, uint32_t amount)
    uint32_t hesper_exchange(uint32_t *at, uint32_t value)
    bint hesper_replace(uint32_t *at, uint32_t expected, uint32_t value)
    uint64_t hesper_popcount(uint64_t bits)
    void *hesper_load_pointer(void **at)
    void hesper_store_pointer(void **at, void *value)
    void hesper_publish(void **at, void *value)
    void hesper_spin_lock(uint32_t *lock)
    bint hesper_try_lock(uint32_t *lock)
    void hesper_spin_unlock(uint32_t *lock)


cdef extern from "timer.h" nogil:
    ctypedef struct hesper_timer:
        pass
    int hesper_timer_init(hesper_timer *t)
    void hesper_timer_destroy(hesper_timer *t)
    void hesper_timer_set(hesper_timer *t, uint64_t ns)
    void hesper_timer_wait(hesper_timer *t)


cdef extern from "threads.h" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    ctypedef struct hesper_monitor:
        pthread_mutex_t mutex
        pthread_cond_t condition

    ctypedef struct hesper_thread:
        pass

    void hesper_thread_begin(hesper_thread *t)
    void hesper_thread_end(hesper_thread *t)
    void hesper_thread_rest(hesper_thread *t)
    void hesper_thread_worked(hesper_thread *t)
    int pthread_mutex_init(pthread_mutex_t *mutex, void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
    int pthread_cond_broadcast(pthread_cond_t *condition)
    int sched_yield()
    uint64_t hesper_now_ns()
    void hesper_sleep_ns(uint64_t ns)
    void hesper_precise_sleep()
    void hesper_give_way(int nice)
    void hesper_move_on()
    void hesper_pause()
    int hesper_monitor_init(hesper_monitor *m)
    void hesper_monitor_destroy(hesper_monitor *m)
    void hesper_monitor_wait_for(hesper_monitor *m, uint64_t ns)
