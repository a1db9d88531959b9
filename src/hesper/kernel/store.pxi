# A context's shared memory: who owns it, what is charged for it, and spare pieces of it.
#
# Device memory that a guest can map lies in it, and so do the resources by which the guest maps
# it.  As long as there are spare pieces, none of that needs Python.

cdef enum:
    SPARE_SLOTS = 64            # of the hash table by size
    MOST_SPARES = 64            # pieces; each holds a descriptor
    MOST_SPARE_BYTES = 64 << 20
    HEAPS = 16                  # VK_MAX_MEMORY_HEAPS
    NO_HEAP = HEAPS             # of what is no device memory


cdef struct RegionCore:
    uint8_t *data               # null: not mapped here, only charged for
    uint64_t size
    uint64_t charged            # bytes of the limit
    uint32_t owners
    uint32_t heap               # that they count for, or NO_HEAP
    int fd
    bint reusable               # becomes a spare piece in the end
    void *memory                # what has mapped it: one reference
    RegionCore *next            # spare piece of the same slot


cdef struct StoreCore:
    pthread_mutex_t lock
    uint32_t users              # Python objects and engines
    uint64_t limit
    uint64_t left
    uint64_t heap_used[HEAPS + 1]
    RegionCore *spares[SPARE_SLOTS]
    uint32_t spare_count
    uint64_t spare_bytes
    bint closed                 # keeps no spare pieces any more


cdef inline uint32_t spare_slot(uint64_t size) noexcept nogil:
    return <uint32_t>(((size >> 12) * <uint64_t>0x9E3779B97F4A7C15u) >> 58)


cdef inline void store_charge(StoreCore *store, RegionCore *region, uint64_t charged,
                              uint32_t heap) noexcept nogil:
    """Take bytes of the limit; the lock is held, and they are left."""
    region.charged = charged
    region.heap = heap
    store.left -= charged
    store.heap_used[heap] += charged


cdef RegionCore *store_take_spare(StoreCore *store, uint64_t size, uint64_t charged,
                                  uint32_t heap) noexcept nogil:
    """A spare piece of exactly `size` bytes, its caller the owner; or null.

    It is cleared, as what the system and drivers give is: programs rely on that, and a driver that
    reads what one has not written, such as a count of draws, can hang the GPU.
    """
    cdef RegionCore **link
    cdef RegionCore *region = NULL
    pthread_mutex_lock(&store.lock)
    link = &store.spares[spare_slot(size)]
    while link[0] != NULL and link[0].size != size:
        link = &link[0].next
    if link[0] != NULL and charged <= store.left:
        region = link[0]
        link[0] = region.next
        store.spare_count -= 1
        store.spare_bytes -= size
        store_charge(store, region, charged, heap)
        region.owners = 1
    pthread_mutex_unlock(&store.lock)
    # At any size a tenth of what giving the pages back and touching them again would take.
    if region != NULL:
        memset(region.data, 0, region.size)
    return region


cdef void region_share(StoreCore *store, RegionCore *region) noexcept nogil:
    """Add an owner."""
    pthread_mutex_lock(&store.lock)
    region.owners += 1
    pthread_mutex_unlock(&store.lock)


cdef void region_release(StoreCore *store, RegionCore *region) noexcept nogil:
    """Remove an owner; the last one makes it a spare piece, or frees it."""
    cdef bint is_over = False
    cdef RegionCore **slot
    pthread_mutex_lock(&store.lock)
    region.owners -= 1
    if region.owners == 0:
        store.left += region.charged
        store.heap_used[region.heap] -= region.charged
        is_over = (not region.reusable or store.closed or store.spare_count == MOST_SPARES
                   or region.size > MOST_SPARE_BYTES - store.spare_bytes)
        if not is_over:
            slot = &store.spares[spare_slot(region.size)]
            region.next = slot[0]
            slot[0] = region
            store.spare_count += 1
            store.spare_bytes += region.size
    pthread_mutex_unlock(&store.lock)
    if is_over:
        region_free(region)


cdef void region_free(RegionCore *region) noexcept nogil:
    if region.memory != NULL:
        region_close(region.memory)
    free(region)


cdef void region_close(void *memory) noexcept with gil:
    try:
        (<object>memory).close()
    finally:
        Py_DECREF(<object>memory)


cdef StoreCore *store_new(uint64_t limit) except NULL:
    cdef StoreCore *store = <StoreCore *>calloc(1, sizeof(StoreCore))
    if store == NULL or pthread_mutex_init(&store.lock, NULL):
        free(store)
        raise MemoryError
    store.users = 1
    store.limit = limit
    store.left = limit
    return store


cdef StoreCore *store_hold(StoreCore *store) noexcept nogil:
    pthread_mutex_lock(&store.lock)
    store.users += 1
    pthread_mutex_unlock(&store.lock)
    return store


cdef void store_drop(StoreCore *store) noexcept nogil:
    cdef uint32_t left
    if store == NULL:
        return
    pthread_mutex_lock(&store.lock)
    store.users -= 1
    left = store.users
    pthread_mutex_unlock(&store.lock)
    if left == 0:
        store_close(store)
        pthread_mutex_destroy(&store.lock)
        free(store)


cdef void store_close(StoreCore *store) noexcept nogil:
    """Free the spare pieces, and keep none from now on."""
    cdef RegionCore *region
    cdef RegionCore *spares = NULL
    cdef uint32_t i
    pthread_mutex_lock(&store.lock)
    store.closed = True
    for i in range(SPARE_SLOTS):
        while store.spares[i] != NULL:
            region = store.spares[i]
            store.spares[i] = region.next
            region.next = spares
            spares = region
    store.spare_count = 0
    store.spare_bytes = 0
    pthread_mutex_unlock(&store.lock)
    while spares != NULL:
        region = spares
        spares = region.next
        region_free(region)


cdef class Region:
    cdef StoreCore *store
    cdef RegionCore *core       # null: given away, or released

    def __dealloc__(self):
        if self.core != NULL:
            region_release(self.store, self.core)
        store_drop(self.store)

    cdef RegionCore *owned(self) except NULL:
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
        cdef RegionCore *core = self.owned()
        region_share(self.store, core)
        return region_of(self.store, core)

    def release(self):
        cdef RegionCore *core = self.take()
        with nogil:
            region_release(self.store, core)

    cdef RegionCore *take(self) except NULL:
        """Give the ownership away."""
        cdef RegionCore *core = self.owned()
        self.core = NULL
        return core


cdef Region region_of(StoreCore *store, RegionCore *core):
    """An owner's object; the ownership is taken over."""
    cdef Region region = Region.__new__(Region)
    region.store = store_hold(store)
    region.core = core
    return region


cdef uint32_t heap_of(heap) except? 0xffffffff:
    if heap is None:
        return NO_HEAP
    if not 0 <= heap < HEAPS:
        raise ValueError(f"memory heap {heap}: Vulkan has {HEAPS}")
    return heap


cdef class Store:
    cdef StoreCore *core

    def __cinit__(self, uint64_t limit):
        self.core = store_new(limit)

    def __dealloc__(self):
        store_drop(self.core)

    @property
    def limit(self):
        return self.core.limit

    @property
    def left(self):
        return self.core.left

    @property
    def used(self):
        return self.core.limit - self.core.left

    def heap_used(self, uint32_t heap):
        return self.core.heap_used[heap_of(heap)]

    def take_spare(self, uint64_t size, uint64_t charged, heap=None):
        cdef RegionCore *core
        cdef uint32_t place = heap_of(heap)
        with nogil:
            core = store_take_spare(self.core, size, charged, place)
        return region_of(self.core, core) if core != NULL else None

    def add(self, memory, uint64_t charged, *, heap=None, bint reusable):
        cdef RegionCore *core = self.new_region(charged, heap_of(heap))
        if memory is None:
            return region_of(self.core, core)
        core.data = <uint8_t *><uint64_t>memory.address
        core.size = memory.size
        core.fd = memory.fd
        core.reusable = reusable
        core.memory = <void *>memory
        Py_INCREF(memory)
        return region_of(self.core, core)

    cdef RegionCore *new_region(self, uint64_t charged, uint32_t heap) except NULL:
        cdef RegionCore *core = <RegionCore *>calloc(1, sizeof(RegionCore))
        cdef bint fits
        if core == NULL:
            raise MemoryError
        pthread_mutex_lock(&self.core.lock)
        fits = charged <= self.core.left
        if fits:
            store_charge(self.core, core, charged, heap)
        pthread_mutex_unlock(&self.core.lock)
        if not fits:
            free(core)
            raise MemoryError(f"{charged} bytes wanted, {self.core.left} left")
        core.fd = -1
        core.owners = 1
        return core

    def close(self):
        with nogil:
            store_close(self.core)
