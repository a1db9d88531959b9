"""A context's resources as Python sees them; `resources.pyi`."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc

from hesper.kernel.core.platform cimport pthread_cond_wait, pthread_mutex_lock, pthread_mutex_unlock
from hesper.kernel.core.resources cimport (
    resource_add, resource_find, resource_free, resource_unlink, resources_last)
from hesper.kernel.core.shm_pool cimport ShmRegion, region_share
from hesper.kernel.core.state cimport ENGINE_RESOURCES, Resource, RingCore
from hesper.kernel.runtime cimport CoreRef
from hesper.kernel.shm cimport Region, region_of


cdef class ResourceTable:
    cdef CoreRef ref
    cdef object in_use              # called with a reason: poisons the context, and stops it

    def __init__(self, CoreRef ref not None, in_use):
        self.ref = ref
        self.in_use = in_use

    def add(self, uint32_t resource_id, uint64_t address, uint64_t size):
        cdef Resource *resource = self.new_resource(resource_id)
        resource.is_stream = True
        resource.data = <uint8_t *>address
        resource.size = size
        self.link_resource(resource)

    def add_region(self, uint32_t resource_id, Region region not None, uint64_t size, *,
                   bint is_stream):
        cdef Resource *resource = self.new_resource(resource_id)
        resource.is_stream = is_stream
        resource.region = region.take()
        resource.data = resource.region.data
        resource.size = size
        self.link_resource(resource)

    cdef Resource *new_resource(self, uint32_t resource_id) except NULL:
        cdef Resource *resource = <Resource *>calloc(1, sizeof(Resource))
        if resource == NULL:
            raise MemoryError
        resource.id = resource_id
        return resource

    cdef int link_resource(self, Resource *resource) except -1:
        resource_id = resource.id
        if not resource_add(self.ref.core, resource):
            resource_free(self.ref.core, resource)
            raise ValueError(f"resource {resource_id} exists, or there are too many")
        return 0

    def __contains__(self, uint32_t resource_id):
        cdef Resource *resource
        pthread_mutex_lock(&self.ref.core.monitor.mutex)
        resource = resource_find(self.ref.core, resource_id)
        pthread_mutex_unlock(&self.ref.core.monitor.mutex)
        return resource != NULL

    def share(self, uint32_t resource_id):
        cdef Resource *resource
        cdef ShmRegion *region = NULL
        pthread_mutex_lock(&self.ref.core.monitor.mutex)
        resource = resource_find(self.ref.core, resource_id)
        if resource != NULL and resource.region != NULL:
            region = resource.region
            region_share(self.ref.core.pool, region)
        pthread_mutex_unlock(&self.ref.core.monitor.mutex)
        if region == NULL:
            raise KeyError(resource_id)
        return region_of(self.ref.core.pool, region)

    def __len__(self):
        return self.ref.core.resource_count

    @property
    def limit(self):
        return self.ref.core.resource_limit

    def ids(self):
        cdef Resource *resource
        cdef uint32_t i
        found = []
        pthread_mutex_lock(&self.ref.core.monitor.mutex)
        for i in range(ENGINE_RESOURCES):
            resource = self.ref.core.resources[i]
            while resource != NULL:
                found.append(resource.id)
                resource = resource.chain
        pthread_mutex_unlock(&self.ref.core.monitor.mutex)
        return found

    def remove(self, uint32_t resource_id):
        cdef Resource *resource
        pthread_mutex_lock(&self.ref.core.monitor.mutex)
        resource = resource_unlink(self.ref.core, resource_id)
        pthread_mutex_unlock(&self.ref.core.monitor.mutex)
        if resource == NULL:
            raise KeyError(resource_id)
        if resource.is_stream and self.writes_to(resource_id):
            self.in_use(f"resource {resource_id} is destroyed while a ring or replies lie in it")
        with nogil:
            pthread_mutex_lock(&self.ref.core.monitor.mutex)
            while resource.users:
                pthread_cond_wait(&self.ref.core.monitor.condition, &self.ref.core.monitor.mutex)
            pthread_mutex_unlock(&self.ref.core.monitor.mutex)
        resource_free(self.ref.core, resource)

    def unreferenced(self):
        return resources_last(self.ref.core)

    cdef bint writes_to(self, uint32_t resource_id):
        cdef RingCore *ring
        cdef bint found = (self.ref.stream.reply_start != NULL
                           and self.ref.stream.reply_resource == resource_id)
        pthread_mutex_lock(&self.ref.core.monitor.mutex)
        ring = self.ref.core.rings
        while ring != NULL:
            if ring.resource == resource_id or (
                    ring.stream.reply_start != NULL
                    and ring.stream.reply_resource == resource_id):
                found = True
            ring = ring.chain
        pthread_mutex_unlock(&self.ref.core.monitor.mutex)
        return found
