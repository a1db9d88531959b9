"""Resources: memory that a guest names by a 32-bit id, for streams or to map it."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free

from hesper.kernel.core.platform cimport pthread_mutex_lock, pthread_mutex_unlock
from hesper.kernel.core.shm_pool cimport region_release
from hesper.kernel.core.state cimport ENGINE_RESOURCES, Core, Resource


cdef inline uint32_t resource_slot(Core *core, uint32_t id) noexcept nogil:
    return <uint32_t>((id * core.objects.multiplier) >> 52)


cdef inline Resource *resource_find(Core *core, uint32_t id) noexcept nogil:
    """The resource with that id; the core's monitor is held."""
    cdef Resource *resource = core.resources[resource_slot(core, id)]
    while resource != NULL and resource.id != id:
        resource = resource.chain
    return resource


cdef inline Resource *stream_find(Core *core, uint32_t id) noexcept nogil:
    """The same, if streams may lie in it."""
    cdef Resource *resource = resource_find(core, id)
    return resource if resource != NULL and resource.is_stream else NULL


cdef inline bint resource_add(Core *core, Resource *resource) noexcept nogil:
    """Make a resource known; False when its id is in use, or there are too many."""
    cdef Resource **slot = &core.resources[resource_slot(core, resource.id)]
    cdef bint fits
    pthread_mutex_lock(&core.monitor.mutex)
    fits = (core.resource_count < core.resource_limit
            and resource_find(core, resource.id) == NULL)
    if fits:
        resource.chain = slot[0]
        slot[0] = resource
        core.resource_count += 1
    pthread_mutex_unlock(&core.monitor.mutex)
    return fits


cdef inline void resource_free(Core *core, Resource *resource) noexcept nogil:
    """Free a resource that is in no table, and its ownership of a region."""
    if resource.region != NULL:
        region_release(core.pool, resource.region)
    free(resource)


cdef inline Resource *resource_unlink(Core *core, uint32_t id) noexcept nogil:
    """Take a resource out of the table, or null; the core's monitor is held."""
    cdef Resource **link = &core.resources[resource_slot(core, id)]
    cdef Resource *resource
    while link[0] != NULL and link[0].id != id:
        link = &link[0].chain
    resource = link[0]
    if resource != NULL:
        link[0] = resource.chain
        core.resource_count -= 1
    return resource


cdef inline uint64_t resources_last(Core *core) noexcept nogil:
    """Bytes of the limit that only resources still hold, whose VkDeviceMemory is gone."""
    cdef Resource *resource
    cdef uint64_t found = 0
    cdef uint32_t i
    pthread_mutex_lock(&core.monitor.mutex)
    pthread_mutex_lock(&core.pool.lock)
    for i in range(ENGINE_RESOURCES):
        resource = core.resources[i]
        while resource != NULL:
            if (not resource.is_stream and resource.region != NULL
                    and resource.region.owners == 1):
                found += resource.region.charged
            resource = resource.chain
    pthread_mutex_unlock(&core.pool.lock)
    pthread_mutex_unlock(&core.monitor.mutex)
    return found


cdef inline void resources_free(Core *core) noexcept nogil:
    cdef Resource *resource
    cdef uint32_t i
    for i in range(ENGINE_RESOURCES):
        while core.resources[i] != NULL:
            resource = core.resources[i]
            core.resources[i] = resource.chain
            resource_free(core, resource)
