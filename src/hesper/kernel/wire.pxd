"""C declarations the kernel is written against: `includes/*.h`."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "wire.h" nogil:
    cdef enum:
        OP_COPY, OP_NARROW, OP_HANDLE, OP_STRUCT, OP_UNION, OP_STYPE, OP_CHAIN, OP_NULL
        OP_FIXED_COPY, OP_FIXED_STRUCT
        OP_POINTER_COPY, OP_POINTER_STRUCT, OP_POINTER_HANDLE
        OP_ARRAY_COPY, OP_ARRAY_STRUCT, OP_ARRAY_HANDLE
        OP_STRING, OP_STRINGS, OP_NESTED_COPY, OP_NESTED_STRUCT
        OP_POINTER_OUT, OP_POINTER_PARTIAL, OP_ARRAY_OUT, OP_ARRAY_PARTIAL
        OP_STRUCT_PARTIAL, OP_FIXED_PARTIAL, OP_CHAIN_PARTIAL
    cdef enum:
        FLAG_NULLABLE, FLAG_FIRST, FLAG_VICTIM, FLAG_PARENT
    cdef enum:
        LENGTH_CONSTANT, LENGTH_FIELD, LENGTH_DEREF, LENGTH_POINTER_FIELD
    cdef enum:
        SHAPE_VALUE, SHAPE_FIXED, SHAPE_POINTER, SHAPE_ARRAY, SHAPE_NESTED
        SHAPE_STRING, SHAPE_STRINGS, SHAPE_NULL, SHAPE_CHAIN
    cdef enum:
        KIND_SCALAR, KIND_HANDLE, KIND_STRUCT, KIND_UNION, KIND_BLOB, KIND_CHAR
    cdef enum:
        FIELD_FLOAT, FIELD_SIGNED
    cdef enum:
        RESULT_VOID, RESULT_I32, RESULT_U32, RESULT_U64
    cdef enum:
        LEVEL_GLOBAL, LEVEL_INSTANCE, LEVEL_DEVICE, LEVEL_TRANSPORT

    ctypedef void (*hesper_function)()
    ctypedef void (*hesper_call_fn)(hesper_function function, void *parameters)

    ctypedef struct hesper_length:
        uint8_t mode
        uint8_t width
        uint32_t first
        uint32_t second
        uint32_t constant
        uint32_t add
        uint32_t divide

    ctypedef struct hesper_op:
        uint8_t code
        uint8_t flags
        uint16_t ref
        uint16_t length
        uint16_t inner
        uint32_t offset
        uint32_t size
        uint32_t inner_from
        uint32_t inner_step

    ctypedef struct hesper_field:
        const char *name
        uint8_t kind
        uint8_t shape
        uint8_t flags
        uint16_t ref
        uint16_t length
        uint16_t count_field
        uint32_t offset
        uint32_t size

    ctypedef struct hesper_case:
        uint32_t tag
        uint32_t op
        uint32_t count

    ctypedef struct hesper_struct:
        const char *name
        int64_t stype
        uint32_t size
        uint32_t full
        uint32_t full_count
        uint32_t partial
        uint32_t partial_count
        uint32_t fields
        uint32_t field_count
        uint32_t cases
        uint32_t case_count
        uint32_t extends
        uint32_t extend_count
        uint8_t wire

    ctypedef struct hesper_command:
        const char *name
        const char *refused
        const char *const *aliases
        hesper_call_fn call
        int32_t number
        uint32_t in_ "in"
        uint32_t in_count
        uint32_t out
        uint32_t out_count
        uint32_t fields
        uint32_t field_count
        uint32_t size
        uint32_t result_offset
        uint32_t new_offset
        uint16_t new_length
        uint16_t new_type
        uint8_t result
        uint8_t level
        uint8_t destroys
        uint8_t new_single

    const hesper_length hesper_lengths[]
    const hesper_op hesper_ops[]
    const hesper_field hesper_fields[]
    const hesper_case hesper_cases[]
    const hesper_struct hesper_structs[]
    const uint32_t hesper_struct_count
    const uint16_t hesper_extends[]
    const hesper_command hesper_commands[]
    const uint32_t hesper_command_count
    const uint16_t hesper_command_index[]
    const uint32_t hesper_number_count
    const char *const hesper_handle_names[]
    const uint32_t hesper_handle_values[]
    const uint32_t hesper_handle_count


cdef extern from "memory.h" nogil:
    void hesper_note(uint32_t *at, uint32_t value)
    uint32_t hesper_noted(const uint32_t *at)
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
    uint32_t hesper_add_ordered(uint32_t *at, uint32_t amount)
    uint32_t hesper_exchange(uint32_t *at, uint32_t value)
    bint hesper_replace(uint32_t *at, uint32_t expected, uint32_t value)
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
    void hesper_move_on()
    void hesper_pause()
    int hesper_monitor_init(hesper_monitor *m)
    void hesper_monitor_destroy(hesper_monitor *m)
    void hesper_monitor_wait_for(hesper_monitor *m, uint64_t ns)


cdef extern from "crash.h" nogil:
    void hesper_crash_report(int fd, const char *(*command)(uint32_t) noexcept nogil,
                             const char *(*stage)(uint32_t) noexcept nogil)
    int hesper_crash_enter(uint32_t ring, const uint32_t *stage, const uint32_t *number)
    void hesper_crash_leave(int slot)
