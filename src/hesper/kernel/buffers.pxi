# Buffers, and the guest's memory types that they can be bound to (`Engine.set_memory_types`).
#
# What a buffer may be bound to depends on how it was made, so the object keeps it.

cdef enum:
    EXTERNAL_BUFFER_STYPE = 1000072000  # VkExternalMemoryBufferCreateInfo
    EXTERNAL_BUFFER_SIZE = 24
    SPARSE_BUFFER = 0x7         # VkBufferCreateFlagBits: sparse binding, residency, aliased
    PLACED_BUFFER = 0x18        # protected, device address of a capture: not in shared memory
    ALL_TYPES = 0xffffffff

cdef uint32_t CREATE_BUFFER = command_named(b"vkCreateBuffer")
cdef uint32_t BUFFER_NEEDS = command_named(b"vkGetBufferMemoryRequirements")
cdef uint32_t BUFFER_NEEDS_2 = command_named(b"vkGetBufferMemoryRequirements2")
cdef uint32_t NEEDS_OF_INFO = command_named(b"vkGetDeviceBufferMemoryRequirements")
cdef uint32_t BUFFER = handle_named(b"VkBuffer")


cdef inline bint is_about_buffers(uint32_t index) noexcept nogil:
    return (index == CREATE_BUFFER or index == BUFFER_NEEDS or index == BUFFER_NEEDS_2
            or index == NEEDS_OF_INFO)


cdef uint8_t *external_buffer(uint8_t *info) noexcept nogil:
    """The VkExternalMemoryBufferCreateInfo of a VkBufferCreateInfo, or null."""
    cdef uint8_t *node = (<uint8_t **>(info + 8))[0]
    while node != NULL and (<uint32_t *>node)[0] != EXTERNAL_BUFFER_STYPE:
        node = (<uint8_t **>(node + 8))[0]
    return node


cdef int state_buffer(Stream *s, DeviceState *device, uint8_t *info,
                      uint32_t *types) noexcept nogil:
    """Say to the driver what external memory a buffer can be bound to (`set_external_buffers`).

    types: becomes the mask of the guest's memory types that it can be bound to.
    """
    cdef uint8_t *node = external_buffer(info)
    cdef bint is_shared = node != NULL and (<uint32_t *>(node + 16))[0] != 0
    cdef uint32_t flags = (<uint32_t *>(info + 16))[0]
    types[0] = ALL_TYPES
    if is_shared:
        types[0] = device.shared_types
    elif flags & (SPARSE_BUFFER | PLACED_BUFFER):
        types[0] = device.sparse_types if flags & SPARSE_BUFFER else device.native_types
    if not is_shared and not (device.buffer_always and types[0] & device.shared_types):
        return 0
    if device.buffer_handle_types == 0:
        return 0
    if node == NULL:
        node = push_struct(s, info, EXTERNAL_BUFFER_STYPE, EXTERNAL_BUFFER_SIZE)
        if node == NULL:
            return -1
    (<uint32_t *>(node + 16))[0] = device.buffer_handle_types
    return 0


cdef uint32_t guest_types(const DeviceState *device, uint32_t host,
                          uint32_t allowed) noexcept nogil:
    """`guest.memory_types.MemoryTypes.shown`."""
    cdef uint32_t found = 0
    cdef uint32_t i
    if device.type_count == 0:
        return host
    for i in range(device.type_count):
        found |= (host >> device.type_host[i] & 1) << i
    return found & allowed if found & allowed else found


cdef int serve_buffer(Stream *s, uint32_t index) noexcept nogil:
    """Make a buffer, or say what memory it needs."""
    cdef DeviceState *device = <DeviceState *>s.first.extra if s.first != NULL else NULL
    cdef uint8_t *info = (<uint8_t **>(s.parameters + 8))[0]
    cdef uint8_t *needs
    cdef Entry *entry
    cdef uint32_t types = ALL_TYPES
    if device == NULL:
        return serve(s)
    if index == NEEDS_OF_INFO:
        info = (<uint8_t **>(info + 16))[0]
    if index == CREATE_BUFFER or index == NEEDS_OF_INFO:
        if state_buffer(s, device, info, &types):
            return -1
    elif s.parent != NULL and s.parent.type == BUFFER + 1:
        types = <uint32_t>~<size_t>s.parent.extra
    if serve(s):
        return -1
    if index == CREATE_BUFFER:
        entry = object_find(&s.core.objects, (<uint64_t **>(s.parameters + 24))[0][0])
        if entry != NULL and entry.type == BUFFER + 1 and types != ALL_TYPES:
            # Inverted, so that most objects have what all have at first.
            entry.extra = <void *><size_t>(<uint32_t>~types)
        return 0
    needs = (<uint8_t **>(s.parameters + 16))[0] + (0 if index == BUFFER_NEEDS else 16)
    (<uint32_t *>(needs + 16))[0] = guest_types(device, (<uint32_t *>(needs + 16))[0], types)
    return 0
