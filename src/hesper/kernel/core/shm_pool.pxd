"""A context's shared memory: who owns a region, what is charged for it, and those that are free.

Device memory that a guest can map lies in it, and so do the resources by which the guest maps
it.  As long as the free list has what is asked for, none of that needs Python.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from hesper.kernel.core.ledger cimport (
    ACCOUNT_MEMORY, ACCOUNT_SPARE, LIMIT_DESCRIPTORS, Ledger, ledger_give, ledger_move,
    ledger_remove, ledger_take, slack)
from hesper.kernel.core.lease cimport NO_LEASE, lease_await, lease_note
from hesper.kernel.core.platform cimport (
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t,
    pthread_mutex_unlock)


cdef enum:
    SIZE_SLOTS = 64            # of the hash table by size
    MOST_FREE = 64              # regions; each holds a descriptor
    MOST_FREE_BYTES = 64 << 20
    HEAPS = 16                  # VK_MAX_MEMORY_HEAPS
    NO_HEAP = HEAPS             # of what is no device memory


cdef struct ShmRegion:
    uint8_t *data               # null: not mapped here, only charged for
    uint64_t size
    uint64_t charged            # bytes of the limit
    uint32_t owners
    uint32_t heap               # that they count for, or NO_HEAP
    int fd
    bint reusable               # goes to the free list in the end
    void *memory                # what has mapped it
    void (*unmap)(void *memory) noexcept nogil
    ShmRegion *next             # of the same slot of the free list


cdef struct ShmPool:
    pthread_mutex_t lock
    uint32_t users              # Python objects and engines
    Ledger ledger
    uint64_t heap_used[HEAPS + 1]
    ShmRegion *free_list[SIZE_SLOTS]    # by size
    uint32_t free_count
    uint64_t free_bytes
    bint closed                 # the free list stays empty


cdef inline uint32_t size_slot(uint64_t size) noexcept nogil:
    return <uint32_t>(((size >> 12) * <uint64_t>0x9E3779B97F4A7C15u) >> 58)


cdef inline bint pool_room(ShmPool *pool, uint32_t account, uint64_t size) noexcept nogil:
    """Take bytes of the memory limit, if need be those of free regions; no lock is held.

    False, with the limit noted, when they are not left.
    """
    if ledger_take(&pool.ledger, account, size):
        return True
    if pool.free_count:
        pool_trim(pool)
        if ledger_take(&pool.ledger, account, size):
            return True
    if lease_await(&pool.ledger, account, size):
        return True
    lease_note(&pool.ledger, account, size)
    return False


cdef inline void pool_charge(ShmPool *pool, ShmRegion *region, uint64_t charged,
                             uint32_t heap) noexcept nogil:
    """Note for what bytes of the limit were taken; the lock is held."""
    region.charged = charged
    region.heap = heap
    pool.heap_used[heap] += charged


cdef inline ShmRegion *pool_take(ShmPool *pool, uint64_t size, uint32_t heap) noexcept nogil:
    """A free region of exactly `size` bytes, its caller the owner; or null.

    It is cleared, as what the system and drivers give is: programs rely on that, and a driver that
    reads what one has not written, such as a count of draws, can hang the GPU.
    """
    cdef ShmRegion **link
    cdef ShmRegion *region = NULL
    pthread_mutex_lock(&pool.lock)
    link = &pool.free_list[size_slot(size)]
    while link[0] != NULL and link[0].size != size:
        link = &link[0].next
    if link[0] != NULL:
        region = link[0]
        link[0] = region.next
        pool.free_count -= 1
        pool.free_bytes -= size
        ledger_move(&pool.ledger, ACCOUNT_SPARE, ACCOUNT_MEMORY, size)
        pool_charge(pool, region, size, heap)
        region.owners = 1
    pthread_mutex_unlock(&pool.lock)
    # At any size a tenth of what giving the pages back and touching them again would take.
    if region != NULL:
        memset(region.data, 0, region.size)
    return region


cdef inline void region_share(ShmPool *pool, ShmRegion *region) noexcept nogil:
    """Add an owner."""
    pthread_mutex_lock(&pool.lock)
    region.owners += 1
    pthread_mutex_unlock(&pool.lock)


cdef inline void region_release(ShmPool *pool, ShmRegion *region) noexcept nogil:
    """Remove an owner; after the last one it is on the free list, or unmapped."""
    cdef bint is_over = False
    cdef ShmRegion **slot
    pthread_mutex_lock(&pool.lock)
    region.owners -= 1
    if region.owners == 0:
        pool.heap_used[region.heap] -= region.charged
        is_over = (not region.reusable or pool.closed or pool.free_count == MOST_FREE
                   or region.size > MOST_FREE_BYTES - pool.free_bytes)
        if not is_over:
            slot = &pool.free_list[size_slot(region.size)]
            region.next = slot[0]
            slot[0] = region
            pool.free_count += 1
            pool.free_bytes += region.size
            ledger_move(&pool.ledger, ACCOUNT_MEMORY, ACCOUNT_SPARE, region.size)
    pthread_mutex_unlock(&pool.lock)
    if is_over:
        ledger_give(&pool.ledger, ACCOUNT_MEMORY, region.charged)
        region_free(pool, region)


cdef inline void region_free(ShmPool *pool, ShmRegion *region) noexcept nogil:
    if region.memory != NULL:
        region.unmap(region.memory)
        ledger_remove(&pool.ledger, LIMIT_DESCRIPTORS, 1)
    free(region)


cdef inline ShmPool *pool_new(uint64_t limit) except NULL:
    cdef ShmPool *pool = <ShmPool *>calloc(1, sizeof(ShmPool))
    if pool == NULL or pthread_mutex_init(&pool.lock, NULL):
        free(pool)
        raise MemoryError
    pool.users = 1
    pool.ledger.limit = limit
    pool.ledger.lease = <uint64_t>NO_LEASE
    pool.ledger.wake = -1
    pool.ledger.decode_limit = limit + slack(limit) if limit + slack(limit) > limit else limit
    memset(pool.ledger.most, 0xff, sizeof(pool.ledger.most))
    return pool


cdef inline ShmPool *pool_hold(ShmPool *pool) noexcept nogil:
    pthread_mutex_lock(&pool.lock)
    pool.users += 1
    pthread_mutex_unlock(&pool.lock)
    return pool


cdef inline void pool_drop(ShmPool *pool) noexcept nogil:
    cdef uint32_t left
    if pool == NULL:
        return
    pthread_mutex_lock(&pool.lock)
    pool.users -= 1
    left = pool.users
    pthread_mutex_unlock(&pool.lock)
    if left == 0:
        pool_close(pool)
        pthread_mutex_destroy(&pool.lock)
        free(pool)


cdef inline void pool_close(ShmPool *pool) noexcept nogil:
    """Unmap what is free, and keep nothing from now on."""
    pthread_mutex_lock(&pool.lock)
    pool.closed = True
    pthread_mutex_unlock(&pool.lock)
    pool_trim(pool)


cdef inline void pool_trim(ShmPool *pool) noexcept nogil:
    """Unmap what is free."""
    cdef ShmRegion *region
    cdef ShmRegion *unused = NULL
    cdef uint32_t i
    pthread_mutex_lock(&pool.lock)
    for i in range(SIZE_SLOTS):
        while pool.free_list[i] != NULL:
            region = pool.free_list[i]
            pool.free_list[i] = region.next
            region.next = unused
            unused = region
    pool.free_count = 0
    pool.free_bytes = 0
    pthread_mutex_unlock(&pool.lock)
    while unused != NULL:
        region = unused
        unused = region.next
        ledger_give(&pool.ledger, ACCOUNT_SPARE, region.size)
        region_free(pool, region)
