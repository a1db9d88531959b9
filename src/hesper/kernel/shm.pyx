"""A context's shared memory as Python sees it; `shm.pyi`."""

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from hesper.kernel.core.ledger cimport (
    ACCOUNT_MEMORY, LIMIT_DESCRIPTORS, ledger_add, ledger_give)
from hesper.kernel.core.lease cimport ledger_left, lease_note
from hesper.kernel.core.platform cimport (
    hesper_load_u64, pthread_mutex_lock, pthread_mutex_unlock)
from hesper.kernel.core.shm_pool cimport (
    HEAPS, NO_HEAP, ShmPool, ShmRegion, pool_charge, pool_close, pool_drop, pool_hold, pool_new,
    pool_room, pool_take, region_release, region_share)


cdef void close_memory(void *memory) noexcept nogil:
    """Close what has mapped a region: it holds one reference."""
    with gil:
        try:
            (<object>memory).close()
        finally:
            Py_DECREF(<object>memory)


cdef class Region:
    def __dealloc__(self):
        if self.core != NULL:
            region_release(self.pool, self.core)
        pool_drop(self.pool)

    cdef ShmRegion *owned(self) except NULL:
        if self.core == NULL:
            raise ValueError("this memory has been freed")
        return self.core

    @property
    def address(self):
        return <uint64_t>self.owned().data

    @property
    def size(self):
        return self.owned().size

    @property
    def fd(self):
        return self.owned().fd

    def share(self):
        cdef ShmRegion *core = self.owned()
        region_share(self.pool, core)
        return region_of(self.pool, core)

    def release(self):
        cdef ShmRegion *core = self.take()
        with nogil:
            region_release(self.pool, core)

    cdef ShmRegion *take(self) except NULL:
        """Give the ownership away."""
        cdef ShmRegion *core = self.owned()
        self.core = NULL
        return core


cdef Region region_of(ShmPool *pool, ShmRegion *core):
    """An owner's object; the ownership is taken over."""
    cdef Region region = Region.__new__(Region)
    region.pool = pool_hold(pool)
    region.core = core
    return region


cdef uint32_t heap_of(heap) except? 0xffffffff:
    if heap is None:
        return NO_HEAP
    if not 0 <= heap < HEAPS:
        raise ValueError(f"memory heap {heap}: Vulkan has {HEAPS}")
    return heap


cdef class Pool:
    def __cinit__(self, uint64_t limit):
        self.core = pool_new(limit)

    def __dealloc__(self):
        pool_drop(self.core)

    @property
    def limit(self):
        return self.core.ledger.limit

    @property
    def left(self):
        return ledger_left(&self.core.ledger)

    @property
    def used(self):
        return hesper_load_u64(&self.core.ledger.held[ACCOUNT_MEMORY])

    def heap_used(self, uint32_t heap):
        return self.core.heap_used[heap_of(heap)]

    def has(self, size):
        cdef bint fits = size <= <object>ledger_left(&self.core.ledger)
        if not fits:
            lease_note(&self.core.ledger, ACCOUNT_MEMORY, min(size, <object><uint64_t>-1))
        return fits

    def take(self, uint64_t size, heap=None):
        cdef ShmRegion *core
        cdef uint32_t place = heap_of(heap)
        with nogil:
            core = pool_take(self.core, size, place)
        return region_of(self.core, core) if core != NULL else None

    def add(self, memory, uint64_t charged, *, heap=None, bint reusable):
        cdef uint64_t size = 0 if memory is None else memory.size
        cdef ShmRegion *core
        if reusable and size != charged:
            raise ValueError(f"{charged} bytes are charged for {size} that are used again")
        core = self.new_region(charged, heap_of(heap), memory is not None)
        if memory is None:
            return region_of(self.core, core)
        core.data = <uint8_t *><uint64_t>memory.address
        core.size = size
        core.fd = memory.fd
        core.reusable = reusable
        core.memory = <void *>memory
        core.unmap = close_memory
        Py_INCREF(memory)
        return region_of(self.core, core)

    cdef ShmRegion *new_region(self, uint64_t charged, uint32_t heap, bint mapped) except NULL:
        cdef ShmRegion *core = <ShmRegion *>calloc(1, sizeof(ShmRegion))
        cdef bint fits
        if core == NULL:
            raise MemoryError
        with nogil:
            fits = pool_room(self.core, ACCOUNT_MEMORY, charged)
        if not fits:
            free(core)
            raise MemoryError(f"{charged} bytes wanted, {self.left} left of the memory limit")
        if mapped and not ledger_add(&self.core.ledger, LIMIT_DESCRIPTORS, 1):
            ledger_give(&self.core.ledger, ACCOUNT_MEMORY, charged)
            free(core)
            raise MemoryError(
                f"more than {self.core.ledger.most[LIMIT_DESCRIPTORS]} descriptors")
        pthread_mutex_lock(&self.core.lock)
        pool_charge(self.core, core, charged, heap)
        pthread_mutex_unlock(&self.core.lock)
        core.fd = -1
        core.owners = 1
        return core

    def close(self):
        with nogil:
            pool_close(self.core)
