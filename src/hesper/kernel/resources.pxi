# Resources: memory that a guest names by a 32-bit id, for streams or to map it.

cdef Resource *resource_find(Core *core, uint32_t id) noexcept nogil:
    """The resource with that id; the core's monitor is held."""
    cdef Resource *resource = core.resources[id % ENGINE_RESOURCES]
    while resource != NULL and resource.id != id:
        resource = resource.chain
    return resource


cdef Resource *stream_find(Core *core, uint32_t id) noexcept nogil:
    """The same, if streams may lie in it."""
    cdef Resource *resource = resource_find(core, id)
    return resource if resource != NULL and resource.is_stream else NULL


cdef bint resource_add(Core *core, Resource *resource) noexcept nogil:
    """Make a resource known; False when its id is in use, or there are too many."""
    cdef Resource **slot = &core.resources[resource.id % ENGINE_RESOURCES]
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


cdef void resource_free(Core *core, Resource *resource) noexcept nogil:
    """Free a resource that is in no table, and its ownership of a region."""
    if resource.region != NULL:
        region_release(core.store, resource.region)
    free(resource)


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
    if region == NULL:
        return -1
    resource = <Resource *>calloc(1, sizeof(Resource))
    if resource == NULL:
        region_release(core.store, region)
        return -1
    resource.id = id
    resource.size = size
    resource.region = region
    if not 0 < size <= region.size or not resource_add(core, resource):
        resource_free(core, resource)
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
    resource_free(core, resource)
    return True


cdef uint64_t resources_last(Core *core) noexcept nogil:
    """Bytes of the limit that only resources still hold, whose VkDeviceMemory is gone."""
    cdef Resource *resource
    cdef uint64_t found = 0
    cdef uint32_t i
    pthread_mutex_lock(&core.monitor.mutex)
    pthread_mutex_lock(&core.store.lock)
    for i in range(ENGINE_RESOURCES):
        resource = core.resources[i]
        while resource != NULL:
            if (not resource.is_stream and resource.region != NULL
                    and resource.region.owners == 1):
                found += resource.region.charged
            resource = resource.chain
    pthread_mutex_unlock(&core.store.lock)
    pthread_mutex_unlock(&core.monitor.mutex)
    return found


cdef void resources_free(Core *core) noexcept:
    cdef Resource *resource
    cdef uint32_t i
    for i in range(ENGINE_RESOURCES):
        while core.resources[i] != NULL:
            resource = core.resources[i]
            core.resources[i] = resource.chain
            resource_free(core, resource)
