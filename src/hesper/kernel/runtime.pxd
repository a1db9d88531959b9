"""The core (`core/*.pxd`) as one C unit: what the kernel's Python classes call of it."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from hesper.kernel.core.created cimport New
from hesper.kernel.core.state cimport (
    Core, DeviceState, RingCore, Stream, TimelineCore, retired_fn)
from hesper.kernel.core.tables cimport hesper_function
from hesper.kernel.core.tape cimport Tape


cdef class CoreRef:
    cdef Core *core
    cdef Stream *stream
    cdef object tape            # owns the core's, or None


# Commands.
cdef int stream_run(Stream *s, const uint8_t *data, uint64_t size) noexcept nogil
cdef int command_prepare(Stream *s, New *new) noexcept nogil
cdef int command_call(Stream *s) noexcept nogil
cdef int command_register(Stream *s, New *new) noexcept nogil
cdef bint command_charge(Stream *s, New *new) noexcept nogil
cdef void command_settle(Stream *s, New *new) noexcept nogil
cdef bint object_charge(Core *core, uint64_t id, uint64_t size) noexcept nogil
cdef int command_forget(Stream *s) noexcept nogil
cdef void commands_ready(Core *core) noexcept nogil
cdef void layouts_change(Core *core) noexcept nogil
cdef void stand_ins_begin(Core *core) noexcept nogil

# Threads.
cdef int ring_serve(RingCore *ring) noexcept nogil
cdef bint timeline_serve(TimelineCore *t) noexcept nogil
cdef void alive_serve(Core *core) noexcept nogil
cdef void meter_serve(Core *core) noexcept nogil

# Shares.
cdef void device_forget(Core *core, DeviceState *device) noexcept nogil

# What transports ask of a context.
cdef void context_poison(Core *core) noexcept nogil
cdef void context_catch_up(Core *core) noexcept nogil
cdef int context_fence(Core *core, uint32_t ring_idx, retired_fn retired, void *data,
                       TimelineCore **held) noexcept nogil
cdef int context_create_blob(Core *core, uint32_t id, uint64_t memory, uint64_t size,
                             bint apart) noexcept nogil
cdef bint context_destroy_blob(Core *core, uint32_t id) noexcept nogil

# For a context with a tape; the first before it runs anything.
cdef void context_tape(Core *core, Tape *tape) noexcept nogil
cdef void context_taped_blob(Core *core, uint32_t id, uint64_t memory, uint64_t size,
                             uint32_t flags, bint apart) noexcept nogil
cdef void context_taped_gone(Core *core, uint32_t id) noexcept nogil
