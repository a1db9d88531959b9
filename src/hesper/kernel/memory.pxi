# A context's shared memory: who owns it, what is charged for it, and spare pieces of it.
#
# Device memory that a guest can map lies in it, and so do the resources by which the guest maps
# it.  As long as there are spare pieces, none of that needs Python.

cdef enum:
    SPARE_SLOTS = 64            # of the hash table by size
    MOST_SPARES = 64            # pieces; each holds a descriptor
    MOST_SPARE_BYTES = 64 << 20
    ALLOCATION_BITS = 47        # of the largest one's size, as for the handler

    # sTypes of what may be chained to an allocation that is served here.
    EXPORT_STYPE = 1000072002           # VkExportMemoryAllocateInfo
    ALLOCATE_FLAGS_STYPE = 1000060000   # VkMemoryAllocateFlagsInfo
    DEDICATED_STYPE = 1000127001        # VkMemoryDedicatedAllocateInfo
    HOST_POINTER_STYPE = 1000178000     # VkImportMemoryHostPointerInfoEXT
    HOST_POINTER_SIZE = 32

cdef uint32_t ALLOCATE_MEMORY = command_named(b"vkAllocateMemory")
cdef uint32_t FREE_MEMORY = command_named(b"vkFreeMemory")
cdef uint32_t DEVICE_MEMORY = handle_named(b"VkDeviceMemory")


cdef struct RegionCore:
    uint8_t *data               # null: not mapped here, only charged for
    uint64_t size
    uint64_t charged            # bytes of the limit
    uint32_t owners
    int fd
    bint reusable               # becomes a spare piece in the end
    void *memory                # what has mapped it: one reference
    RegionCore *next            # spare piece of the same slot


cdef struct StoreCore:
    pthread_mutex_t lock
    uint32_t users              # Python objects and engines
    uint64_t limit
    uint64_t left
    RegionCore *spares[SPARE_SLOTS]
    uint32_t spare_count
    uint64_t spare_bytes
    bint closed                 # keeps no spare pieces any more


cdef inline uint32_t spare_slot(uint64_t size) noexcept nogil:
    return <uint32_t>(((size >> 12) * <uint64_t>0x9E3779B97F4A7C15u) >> 58)


cdef RegionCore *store_take_spare(StoreCore *store, uint64_t size,
                                  uint64_t charged) noexcept nogil:
    """A spare piece of exactly `size` bytes, its caller the owner; or null."""
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
        store.left -= charged
        region.charged = charged
        region.owners = 1
    pthread_mutex_unlock(&store.lock)
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

    def take_spare(self, uint64_t size, uint64_t charged):
        cdef RegionCore *core = store_take_spare(self.core, size, charged)
        return region_of(self.core, core) if core != NULL else None

    def add(self, memory, uint64_t charged, *, bint reusable):
        cdef RegionCore *core = self.new_region(charged)
        if memory is None:
            return region_of(self.core, core)
        core.data = <uint8_t *><uint64_t>memory.address
        core.size = memory.size
        core.fd = memory.fd
        core.reusable = reusable
        core.memory = <void *>memory
        Py_INCREF(memory)
        return region_of(self.core, core)

    cdef RegionCore *new_region(self, uint64_t charged) except NULL:
        cdef RegionCore *core = <RegionCore *>calloc(1, sizeof(RegionCore))
        cdef bint fits
        if core == NULL:
            raise MemoryError
        pthread_mutex_lock(&self.core.lock)
        fits = charged <= self.core.left
        if fits:
            self.core.left -= charged
        pthread_mutex_unlock(&self.core.lock)
        if not fits:
            free(core)
            raise MemoryError(f"{charged} bytes wanted, {self.core.left} left")
        core.fd = -1
        core.charged = charged
        core.owners = 1
        return core

    def close(self):
        with nogil:
            store_close(self.core)


# Device memory: its region hangs on the object.

cdef bint memory_keep(Core *core, uint64_t id, RegionCore *region) noexcept nogil:
    """Give a region to the VkDeviceMemory `id`; False when there is none, or it has one."""
    cdef Entry *entry
    cdef bint kept
    pthread_mutex_lock(&core.store.lock)
    entry = object_find(&core.objects, id)
    kept = entry != NULL and entry.type == DEVICE_MEMORY + 1 and entry.extra == NULL
    if kept:
        entry.extra = region
    pthread_mutex_unlock(&core.store.lock)
    return kept


cdef RegionCore *memory_take(Core *core, uint64_t id) noexcept nogil:
    """Take its region away from the VkDeviceMemory `id`; null when there is none."""
    cdef Entry *entry
    cdef RegionCore *region = NULL
    pthread_mutex_lock(&core.store.lock)
    entry = object_find(&core.objects, id)
    if entry != NULL and entry.type == DEVICE_MEMORY + 1:
        region = <RegionCore *>entry.extra
        entry.extra = NULL
    pthread_mutex_unlock(&core.store.lock)
    return region


cdef RegionCore *memory_share(Core *core, uint64_t id, bint apart) noexcept nogil:
    """The mapped region of the VkDeviceMemory `id`, with one owner more; or null.

    apart: somebody besides the guest may map it.
    """
    cdef Entry *entry
    cdef RegionCore *region = NULL
    pthread_mutex_lock(&core.store.lock)
    entry = object_find(&core.objects, id)
    if entry != NULL and entry.type == DEVICE_MEMORY + 1 and entry.extra != NULL:
        region = <RegionCore *>entry.extra
        if region.data != NULL:
            region.owners += 1
            if apart:
                region.reusable = False
        else:
            region = NULL
    pthread_mutex_unlock(&core.store.lock)
    return region


cdef inline uint64_t round_up(uint64_t size, uint64_t alignment) noexcept nogil:
    return (size + alignment - 1) & ~(alignment - 1)


cdef bint is_plain(uint8_t *info, bint may_be_dedicated) noexcept nogil:
    """Whether an allocation has nothing chained to it that Python has to look at."""
    cdef uint8_t *node = (<uint8_t **>(info + 8))[0]
    cdef uint32_t stype
    while node != NULL:
        stype = (<uint32_t *>node)[0]
        if not (stype == EXPORT_STYPE or stype == ALLOCATE_FLAGS_STYPE
                or (stype == DEDICATED_STYPE and may_be_dedicated)):
            return False
        node = (<uint8_t **>(node + 8))[0]
    return True


cdef void unlink_export(uint8_t *info) noexcept nogil:
    """Take VkExportMemoryAllocateInfo off: the guest exports by resources, not by the driver."""
    cdef uint8_t **link = <uint8_t **>(info + 8)
    while link[0] != NULL:
        if (<uint32_t *>link[0])[0] == EXPORT_STYPE:
            link[0] = (<uint8_t **>(link[0] + 8))[0]
        else:
            link = <uint8_t **>(link[0] + 8)


cdef int allocate_memory(Stream *s) noexcept nogil:
    """vkAllocateMemory from a spare piece, see `Engine.set_host_memory`.

    0, or -1 on an error; 1 when it is left to the handler, which makes a new piece.
    """
    cdef DeviceState *device = <DeviceState *>s.first.extra if s.first != NULL else NULL
    cdef StoreCore *store = s.core.store
    cdef uint8_t *info = (<uint8_t **>(s.parameters + 8))[0]
    cdef uint8_t *node
    cdef RegionCore *region
    cdef New new
    cdef uint64_t size
    cdef uint64_t rounded
    cdef uint32_t type
    if device == NULL or info == NULL or s.first.table[ALLOCATE_MEMORY] == NULL:
        return 1
    size = (<uint64_t *>(info + 16))[0]
    type = (<uint32_t *>(info + 24))[0]
    if size == 0 or size >> ALLOCATION_BITS or type > 31 or not device.host_types >> type & 1:
        return 1
    rounded = round_up(size, device.host_alignment)
    if not is_plain(info, rounded == size):
        return 1
    node = <uint8_t *>arena_take_zeroed(&s.arena, HOST_POINTER_SIZE)
    if node == NULL:
        return fail(s, ERROR_MEMORY, NULL, HOST_POINTER_SIZE)
    region = store_take_spare(store, round_up(size, device.host_granule), size)
    if region == NULL:
        return 1
    unlink_export(info)
    (<uint64_t *>(info + 16))[0] = rounded
    (<uint32_t *>node)[0] = HOST_POINTER_STYPE
    (<uint8_t **>(node + 8))[0] = (<uint8_t **>(info + 8))[0]
    (<uint32_t *>(node + 16))[0] = device.host_handle_type
    (<uint8_t **>(node + 24))[0] = region.data
    (<uint8_t **>(info + 8))[0] = node
    if prepare_new(s, &new):
        region_release(store, region)
        return -1
    call_host(s, s.first.table[ALLOCATE_MEMORY])
    if register_new(s, &new):
        free_unregistered(s, new.handles[0])
        region_release(store, region)
        return -1
    restore_ids(&new)
    if new.count == 0 or new.handles[0] == 0 or not memory_keep(s.core, new.ids[0], region):
        region_release(store, region)
    return 0


cdef void free_unregistered(Stream *s, uint64_t handle) noexcept nogil:
    """Give memory back to the driver that is no object of the guest."""
    cdef uint64_t parameters[3]
    cdef hesper_function function = s.first.table[FREE_MEMORY]
    if handle and function != NULL:
        parameters[0] = s.first.handle
        parameters[1] = handle
        parameters[2] = 0
        hesper_commands[FREE_MEMORY].call(function, parameters)


cdef int free_memory(Stream *s) noexcept nogil:
    """vkFreeMemory: on the driver first."""
    cdef uint64_t id = s.victims[0] if s.victim_count else 0
    cdef RegionCore *region = memory_take(s.core, id)
    cdef int result = serve(s)
    if region == NULL:
        return result
    if result == 0:
        region_release(s.core.store, region)
    else:
        memory_keep(s.core, id, region)
    return result


# Resources that guests map.

cdef void resource_link(Core *core, Resource *resource) noexcept nogil:
    """Put a new resource into the table; the core's monitor is held."""
    cdef Resource **slot = &core.resources[resource.id % ENGINE_RESOURCES]
    resource.chain = slot[0]
    slot[0] = resource
    core.resource_count += 1


cdef Resource *resource_unlink(Core *core, uint32_t id) noexcept nogil:
    """Take a resource out of the table, or null; the core's monitor is held."""
    cdef Resource **link = &core.resources[id % ENGINE_RESOURCES]
    cdef Resource *resource
    while link[0] != NULL and link[0].id != id:
        link = &link[0].chain
    resource = link[0]
    if resource != NULL:
        link[0] = resource.chain
        core.resource_count -= 1
    return resource


cdef int blob_create(Core *core, uint32_t id, uint64_t memory, uint64_t size,
                     bint apart) noexcept nogil:
    """Make resource `id` of a VkDeviceMemory; its descriptor, or -1: Python knows what is wrong."""
    cdef RegionCore *region = memory_share(core, memory, apart)
    cdef Resource *resource
    cdef bint fits
    if region == NULL:
        return -1
    resource = <Resource *>calloc(1, sizeof(Resource))
    fits = resource != NULL and 0 < size <= region.size
    if fits:
        resource.id = id
        resource.size = size
        resource.region = region
        pthread_mutex_lock(&core.monitor.mutex)
        fits = core.resource_count < core.resource_limit and resource_find(core, id) == NULL
        if fits:
            resource_link(core, resource)
        pthread_mutex_unlock(&core.monitor.mutex)
    if not fits:
        free(resource)
        region_release(core.store, region)
        return -1
    return region.fd


cdef bint blob_destroy(Core *core, uint32_t id) noexcept nogil:
    """Forget a resource of a VkDeviceMemory; False: there is none, or streams may lie in it."""
    cdef Resource *resource
    pthread_mutex_lock(&core.monitor.mutex)
    resource = resource_find(core, id)
    if resource != NULL:
        resource = NULL if resource.is_stream else resource_unlink(core, id)
    pthread_mutex_unlock(&core.monitor.mutex)
    if resource == NULL:
        return False
    region_release(core.store, resource.region)
    free(resource)
    return True
