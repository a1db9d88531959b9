"""A context's shared memory as Python sees it, for the kernel's other modules."""

from libc.stdint cimport uint32_t, uint64_t

from hesper.kernel.core.shm_pool cimport ShmPool, ShmRegion


cdef class Region:
    cdef ShmPool *pool
    cdef ShmRegion *core        # null: given away, or released

    cdef ShmRegion *owned(self) except NULL
    cdef ShmRegion *take(self) except NULL


cdef class Pool:
    cdef ShmPool *core

    cdef ShmRegion *new_region(self, uint64_t charged, uint32_t heap, bint mapped) except NULL


cdef Region region_of(ShmPool *pool, ShmRegion *core)
cdef uint32_t heap_of(heap) except? 0xffffffff
