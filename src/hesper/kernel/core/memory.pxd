"""Device memory: its region hangs on the object."""

from libc.stdint cimport uint32_t, uint64_t

from hesper_commands cimport (
    COMMAND_vkAllocateMemory, COMMAND_vkFreeMemory, HANDLE_VkDeviceMemory,
    VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_CAPTURE_REPLAY_BIT,
    VK_MEMORY_ALLOCATE_ZERO_INITIALIZE_BIT_EXT, VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO,
    VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT,
    VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO, VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO,
    VkImportMemoryHostPointerInfoEXT, VkMemoryAllocateFlagsInfo, VkMemoryAllocateInfo,
    vkAllocateMemory_parameters, vkFreeMemory_parameters)

from hesper.kernel.core.costs cimport charge_new, settle_new
from hesper.kernel.core.created cimport New, prepare_new, register_new, restore_ids
from hesper.kernel.core.dispatch cimport put_override
from hesper.kernel.core.driver cimport LEFT_TO_HANDLER, call_host, push_struct, serve
from hesper.kernel.core.objects cimport Entry, Kin, object_find, object_kin
from hesper.kernel.core.platform cimport pthread_mutex_lock, pthread_mutex_unlock
from hesper.kernel.core.shm_pool cimport ShmPool, ShmRegion, pool_take, region_release
from hesper.kernel.core.state cimport Core, DeviceState, Stream, device_state
from hesper.kernel.core.tables cimport hesper_base, hesper_commands, hesper_function


cdef enum:
    ALLOCATION_BITS = 47        # of the largest one's size, as for the handler


cdef inline void memory_put_back(Core *core, uint64_t id, ShmRegion *region) noexcept nogil:
    """Give the VkDeviceMemory `id` its region again, or release it when it is gone."""
    cdef Kin *kin
    cdef bint kept
    pthread_mutex_lock(&core.pool.lock)
    kin = memory_kin(core, id)
    kept = kin != NULL and kin.region == NULL
    if kept:
        kin.region = region
    pthread_mutex_unlock(&core.pool.lock)
    if not kept:
        region_release(core.pool, region)


cdef inline Kin *memory_kin(Core *core, uint64_t id) noexcept nogil:
    """Where the region of the VkDeviceMemory `id` is noted, or null; the pool's lock is held."""
    cdef Entry *entry = object_find(&core.objects, id)
    return object_kin(entry) if entry != NULL and entry.type == HANDLE_VkDeviceMemory else NULL


cdef inline ShmRegion *memory_take(Core *core, uint64_t id) noexcept nogil:
    """Take its region away from the VkDeviceMemory `id`; null when there is none."""
    cdef Kin *kin
    cdef ShmRegion *region = NULL
    pthread_mutex_lock(&core.pool.lock)
    kin = memory_kin(core, id)
    if kin != NULL:
        region = <ShmRegion *>kin.region
        kin.region = NULL
    pthread_mutex_unlock(&core.pool.lock)
    return region


cdef inline ShmRegion *memory_share(Core *core, uint64_t id, bint apart) noexcept nogil:
    """The mapped region of the VkDeviceMemory `id`, with one owner more; or null.

    apart: somebody besides the guest may map it.
    """
    cdef Kin *kin
    cdef ShmRegion *region = NULL
    pthread_mutex_lock(&core.pool.lock)
    kin = memory_kin(core, id)
    if kin != NULL and kin.region != NULL:
        region = <ShmRegion *>kin.region
        if region.data != NULL:
            region.owners += 1
            if apart:
                region.reusable = False
        else:
            region = NULL
    pthread_mutex_unlock(&core.pool.lock)
    return region


cdef inline uint64_t round_up(uint64_t size, uint64_t alignment) noexcept nogil:
    return (size + alignment - 1) & ~(alignment - 1)


cdef inline bint is_plain(const VkMemoryAllocateInfo *info) noexcept nogil:
    """Whether an allocation has nothing chained to it that Python has to look at."""
    cdef const hesper_base *node = <const hesper_base *>info.pNext
    while node != NULL:
        if node.sType == VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO:
            if (<const VkMemoryAllocateFlagsInfo *>node).flags & (
                    VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_CAPTURE_REPLAY_BIT):
                return False
        elif (node.sType != VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO
              and node.sType != VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO):
            return False
        node = node.pNext
    return True


cdef inline void unlink_for_import(VkMemoryAllocateInfo *info) noexcept nogil:
    """Take off what an imported pointer must not have.

    The guest exports by resources, not by the driver.  Imports cannot be dedicated
    (VUID-VkMemoryAllocateInfo-pNext-02806), nor cleared, as a free region is already
    (VUID-VkMemoryAllocateFlagsInfo-flags-10760).
    """
    cdef hesper_base **link = <hesper_base **>&info.pNext
    while link[0] != NULL:
        if (link[0].sType == VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO
                or link[0].sType == VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO):
            link[0] = link[0].pNext
        else:
            if link[0].sType == VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO:
                (<VkMemoryAllocateFlagsInfo *>link[0]).flags &= ~<uint32_t>(
                    VK_MEMORY_ALLOCATE_ZERO_INITIALIZE_BIT_EXT)
            link = &link[0].pNext


cdef inline int allocate_memory(Stream *s) noexcept nogil:
    """vkAllocateMemory from what is free, see `Devices.import_host_memory`.

    0, or -1 on an error, or LEFT_TO_HANDLER, which makes a new region.
    """
    cdef DeviceState *device = device_state(s.core, s.first) if s.first != NULL else NULL
    cdef ShmPool *pool = s.core.pool
    cdef VkMemoryAllocateInfo *info = (
        <vkAllocateMemory_parameters *>s.parameters).pAllocateInfo
    cdef VkImportMemoryHostPointerInfoEXT *pointer
    cdef ShmRegion *region
    cdef New new
    cdef uint64_t size
    cdef uint32_t type
    cdef bint failed
    if (device == NULL or device.host_handle_type == 0 or info == NULL
            or s.first.table[COMMAND_vkAllocateMemory] == NULL):
        return LEFT_TO_HANDLER
    size = info.allocationSize
    type = info.memoryTypeIndex
    if (size == 0 or size >> ALLOCATION_BITS or type > 31 or not device.shared_types >> type & 1
            or not is_plain(info)):
        return LEFT_TO_HANDLER
    region = pool_take(pool, round_up(size, device.host_granule), device.type_heap[type])
    if region == NULL:
        return LEFT_TO_HANDLER
    unlink_for_import(info)
    info.allocationSize = round_up(size, device.host_alignment)
    info.memoryTypeIndex = device.type_host[type]
    pointer = <VkImportMemoryHostPointerInfoEXT *>push_struct(
        s, info, VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT,
        sizeof(VkImportMemoryHostPointerInfoEXT))
    if pointer == NULL or prepare_new(s, &new):
        region_release(pool, region)
        return -1
    pointer.handleType = device.host_handle_type
    pointer.pHostPointer = region.data
    if charge_new(s, &new, COMMAND_vkAllocateMemory):
        call_host(s, s.first.table[COMMAND_vkAllocateMemory])
    new.region = region
    failed = register_new(s, &new) != 0
    settle_new(s, &new)
    if failed:
        free_unregistered(s, new.handles[0])
        region_release(pool, region)
        return -1
    restore_ids(&new)
    if new.count == 0 or new.handles[0] == 0:
        region_release(pool, region)
    return 0


cdef inline void free_unregistered(Stream *s, uint64_t handle) noexcept nogil:
    """Give memory back to the driver that is no object of the guest."""
    cdef vkFreeMemory_parameters block
    cdef hesper_function function = s.first.table[COMMAND_vkFreeMemory]
    if handle and function != NULL:
        block.device = s.first.handle
        block.memory = handle
        block.pAllocator = NULL
        hesper_commands[COMMAND_vkFreeMemory].call(function, &block)


cdef inline int free_memory(Stream *s) noexcept nogil:
    """vkFreeMemory: on the driver first."""
    cdef uint64_t id = s.victims[0].id if s.victim_count else 0
    cdef ShmRegion *region = memory_take(s.core, id)
    cdef int result = serve(s)
    if region == NULL:
        return result
    if result == 0:
        region_release(s.core.pool, region)
    else:
        memory_put_back(s.core, id, region)
    return result


cdef inline void memory_overrides(Core *core) noexcept nogil:
    put_override(core, COMMAND_vkFreeMemory, free_memory)
    # Before its handler.
    core.rows[COMMAND_vkAllocateMemory].override = allocate_memory
