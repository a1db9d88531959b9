"""A context as a compiled transport sees it."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from hesper.kernel.core.state cimport retired_fn


cdef class Port:
    # -1 when the context will not do it; `refusal` says why.
    cdef int submit(self, const uint8_t *data, uint64_t size) noexcept nogil
    cdef int fence(self, uint32_t ring_idx, retired_fn retired, void *data) noexcept nogil
    cdef void catch_up(self) noexcept nogil
    # Resources of memory that is there, without Python: a descriptor, or -1; whether it was done.
    cdef int create_blob(self, uint32_t id, uint64_t memory, uint64_t size,
                         bint apart) noexcept nogil
    cdef bint destroy_blob(self, uint32_t id) noexcept nogil
    cdef object refusal(self)
    # For a thread that looks out for what comes next, see `core/polling.pxd`.
    cdef uint64_t patience(self, uint64_t now) noexcept nogil
    cdef bint held_up(self, uint64_t last, uint64_t now) noexcept nogil
    cdef bint attend(self) noexcept nogil
    cdef void leave(self) noexcept nogil
