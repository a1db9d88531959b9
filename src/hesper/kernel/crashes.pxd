"""Which threads run commands, for the line that a worker leaves when it dies."""

from libc.stdint cimport uint32_t


cdef int crash_enter(uint32_t ring, const uint32_t *stage, const uint32_t *number) noexcept nogil
cdef void crash_leave(int slot) noexcept nogil
