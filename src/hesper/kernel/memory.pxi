# Device memory: its region hangs on the object.

cdef enum:
    ALLOCATION_BITS = 47        # of the largest one's size, as for the handler

    # sTypes of what may be chained to an allocation that is served here.
    EXPORT_STYPE = 1000072002           # VkExportMemoryAllocateInfo
    ALLOCATE_FLAGS_STYPE = 1000060000   # VkMemoryAllocateFlagsInfo
    DEDICATED_STYPE = 1000127001        # VkMemoryDedicatedAllocateInfo
    HOST_POINTER_STYPE = 1000178000     # VkImportMemoryHostPointerInfoEXT
    HOST_POINTER_SIZE = 32
    CAPTURE_REPLAY = 0x4        # VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_CAPTURE_REPLAY_BIT
    ZERO_INITIALIZE = 0x8       # VK_MEMORY_ALLOCATE_ZERO_INITIALIZE_BIT_EXT

cdef uint32_t ALLOCATE_MEMORY = command_named(b"vkAllocateMemory")
cdef uint32_t FREE_MEMORY = command_named(b"vkFreeMemory")
cdef uint32_t DEVICE_MEMORY = handle_named(b"VkDeviceMemory")


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


cdef bint is_plain(uint8_t *info) noexcept nogil:
    """Whether an allocation has nothing chained to it that Python has to look at."""
    cdef uint8_t *node = (<uint8_t **>(info + 8))[0]
    cdef uint32_t stype
    while node != NULL:
        stype = (<uint32_t *>node)[0]
        if (stype != EXPORT_STYPE and stype != DEDICATED_STYPE
                and not (stype == ALLOCATE_FLAGS_STYPE
                         and not (<uint32_t *>(node + 16))[0] & CAPTURE_REPLAY)):
            return False
        node = (<uint8_t **>(node + 8))[0]
    return True


cdef void unlink_for_import(uint8_t *info) noexcept nogil:
    """Take off what an imported pointer must not have.

    The guest exports by resources, not by the driver.  Imports cannot be dedicated
    (VUID-VkMemoryAllocateInfo-pNext-02806), nor cleared, as a spare piece is already
    (VUID-VkMemoryAllocateFlagsInfo-flags-10760).
    """
    cdef uint8_t **link = <uint8_t **>(info + 8)
    cdef uint32_t stype
    while link[0] != NULL:
        stype = (<uint32_t *>link[0])[0]
        if stype == EXPORT_STYPE or stype == DEDICATED_STYPE:
            link[0] = (<uint8_t **>(link[0] + 8))[0]
        else:
            if stype == ALLOCATE_FLAGS_STYPE:
                (<uint32_t *>(link[0] + 16))[0] &= ~<uint32_t>ZERO_INITIALIZE
            link = <uint8_t **>(link[0] + 8)


cdef int allocate_memory(Stream *s) noexcept nogil:
    """vkAllocateMemory from a spare piece, see `Engine.set_host_memory`.

    0, or -1 on an error, or LEFT_TO_HANDLER, which makes a new piece.
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
    if (device == NULL or device.host_handle_type == 0 or info == NULL
            or s.first.table[ALLOCATE_MEMORY] == NULL):
        return LEFT_TO_HANDLER
    size = (<uint64_t *>(info + 16))[0]
    type = (<uint32_t *>(info + 24))[0]
    if (size == 0 or size >> ALLOCATION_BITS or type > 31 or not device.shared_types >> type & 1
            or not is_plain(info)):
        return LEFT_TO_HANDLER
    rounded = round_up(size, device.host_alignment)
    region = store_take_spare(store, round_up(size, device.host_granule), size,
                              device.type_heap[type])
    if region == NULL:
        return LEFT_TO_HANDLER
    unlink_for_import(info)
    (<uint64_t *>(info + 16))[0] = rounded
    (<uint32_t *>(info + 24))[0] = device.type_host[type]
    node = push_struct(s, info, HOST_POINTER_STYPE, HOST_POINTER_SIZE)
    if node == NULL or prepare_new(s, &new):
        region_release(store, region)
        return -1
    (<uint32_t *>(node + 16))[0] = device.host_handle_type
    (<uint8_t **>(node + 24))[0] = region.data
    hesper_note(&s.stage, STAGE_DRIVER)
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
