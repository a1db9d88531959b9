"""A context as a compiled frontend sees it."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from hesper.kernel.core.polling cimport Polling
from hesper.kernel.core.state cimport retired_fn
from hesper.kernel.runtime cimport CoreRef


cdef class Port:
    cdef object python_submit
    cdef object python_fence
    cdef object python_create_blob
    cdef object python_destroy_blob
    cdef object error               # of the Python function that was called last
    cdef Polling own_polling        # of a context that is not the kernel's
    cdef Polling *polling           # shared by the context's threads

    # -1 when the context will not do it; `refusal` says why.
    cdef int submit(self, const uint8_t *data, uint64_t size) noexcept nogil
    cdef int fence(self, uint32_t ring_idx, retired_fn retired, void *data) noexcept nogil
    cdef int create_blob(self, uint32_t id, uint64_t memory, uint64_t size,
                         uint32_t flags) noexcept nogil
    cdef int destroy_blob(self, uint32_t id) noexcept nogil
    cdef object refusal(self)
    cdef void catch_up(self) noexcept nogil
    # For a thread that polls for what comes next.
    cdef bint attend(self) noexcept nogil
    cdef void leave(self) noexcept nogil


cdef void call_retired(void *data, bint lost) noexcept nogil
cdef object too_many(CoreRef ref)
