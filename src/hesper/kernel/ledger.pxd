"""What a context has taken of its limits, for the kernel's other modules."""

from libc.stdint cimport uint32_t

from hesper.kernel.runtime cimport CoreRef


cdef class Ledger:
    cdef CoreRef ref

    cdef object most(self, uint32_t limit)
