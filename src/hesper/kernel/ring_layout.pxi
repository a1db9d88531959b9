# A new ring: where its parts lie in its resource, as the guest asks for it.

cdef void ring_free(RingCore *core) noexcept:
    arena_free(&core.stream.arena)
    hesper_monitor_destroy(&core.monitor)
    free(core.linear)
    free(core)


cdef RingCore *ring_new(Core *core, uint64_t ring_id, View info) except NULL:
    """Check the layout the guest asks for.  Raises ProtocolError."""
    cdef Resource *resource
    cdef uint8_t *data = NULL
    cdef uint64_t available = 0
    cdef uint32_t resource_id = info.resourceId
    pthread_mutex_lock(&core.monitor.mutex)
    resource = stream_find(core, resource_id)
    if resource != NULL:
        data = resource.data
        available = resource.size
    pthread_mutex_unlock(&core.monitor.mutex)
    if data == NULL:
        raise ProtocolError(f"ring {ring_id}: there is no resource {resource_id}")
    offset, size = info.offset, info.size
    if offset + size > available:
        raise ProtocolError(f"ring {ring_id}: {offset}+{size} lies outside its resource")
    areas = {
        "head": (info.headOffset, 4),
        "tail": (info.tailOffset, 4),
        "status": (info.statusOffset, 4),
        "buffer": (info.bufferOffset, info.bufferSize),
        "extra": (info.extraOffset, info.extraSize),
    }
    for name, (start, length) in areas.items():
        if start + length > size or (offset + start) & 3:
            raise ProtocolError(
                f"ring {ring_id}: {name} at {start}+{length} is outside or unaligned")
        for other, (begin, extent) in areas.items():
            if name < other and start < begin + extent and begin < start + length:
                raise ProtocolError(f"ring {ring_id}: {name} and {other} overlap")
    buffer_size = info.bufferSize
    if not 8 <= buffer_size <= RING_BUFFER_LIMIT or buffer_size & (buffer_size - 1):
        raise ProtocolError(f"ring {ring_id}: a buffer of {buffer_size} bytes is no power of two "
                            f"up to {RING_BUFFER_LIMIT}")
    data += <uint64_t>offset
    cdef RingCore *ring = <RingCore *>calloc(1, sizeof(RingCore))
    if ring == NULL:
        raise MemoryError
    ring.id = ring_id
    ring.resource = resource_id
    ring.head = <uint32_t *>(data + <uint64_t>info.headOffset)
    ring.tail = <uint32_t *>(data + <uint64_t>info.tailOffset)
    ring.status = <uint32_t *>(data + <uint64_t>info.statusOffset)
    ring.buffer = data + <uint64_t>info.bufferOffset
    ring.extra = data + <uint64_t>info.extraOffset
    ring.extra_size = info.extraSize
    ring.size = buffer_size
    ring.mask = ring.size - 1
    ring.idle_ns = info.idleTimeout
    ring.stream.core = core
    ring.stream.ring = ring
    ring.linear = <uint8_t *>malloc(ring.size)
    if (ring.linear == NULL or hesper_monitor_init(&ring.monitor)
            or arena_init(&ring.stream.arena, core.arena_limit)):
        free(ring.linear)
        free(ring)
        raise MemoryError
    if hesper_load_acquire(ring.head) or hesper_load_acquire(ring.status):
        ring_free(ring)
        raise ProtocolError(f"ring {ring_id}: head and status must be 0 at first")
    return ring
