"""Buffers, and the guest's memory types that they can be bound to (`DeviceState`).

What a buffer may be bound to depends on how it was made, so the object keeps it.
"""

from libc.stdint cimport uint32_t, uint64_t

from hesper_commands cimport (
    COMMAND_vkBindBufferMemory2, COMMAND_vkCreateBuffer, COMMAND_vkDestroyBuffer,
    COMMAND_vkGetBufferMemoryRequirements, COMMAND_vkGetBufferMemoryRequirements2,
    COMMAND_vkGetDeviceBufferMemoryRequirements, HANDLE_VkBuffer,
    VK_BUFFER_CREATE_DEVICE_ADDRESS_CAPTURE_REPLAY_BIT, VK_BUFFER_CREATE_PROTECTED_BIT,
    VK_BUFFER_CREATE_SPARSE_ALIASED_BIT, VK_BUFFER_CREATE_SPARSE_BINDING_BIT,
    VK_BUFFER_CREATE_SPARSE_RESIDENCY_BIT, VK_ERROR_OUT_OF_DEVICE_MEMORY,
    VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
    VkBufferCreateInfo, VkExternalMemoryBufferCreateInfo, VkMemoryRequirements,
    vkCreateBuffer_parameters, vkGetBufferMemoryRequirements2_parameters,
    vkGetBufferMemoryRequirements_parameters, vkGetDeviceBufferMemoryRequirements_parameters)

from hesper.kernel.core.created cimport New, prepare_new, register_new, restore_ids
from hesper.kernel.core.dead cimport set_result
from hesper.kernel.core.dispatch cimport put_override
from hesper.kernel.core.driver cimport push_struct, serve
from hesper.kernel.core.feedback cimport feedback_begin, feedback_bind, feedback_end
from hesper.kernel.core.objects cimport Entry, object_find
from hesper.kernel.core.relations cimport NUMBER_BUFFER_MEBIBYTES, device_number
from hesper.kernel.core.state cimport Core, DeviceState, Stream, device_state
from hesper.kernel.core.structs cimport chain_find


cdef enum:
    SPARSE_BUFFER = (VK_BUFFER_CREATE_SPARSE_BINDING_BIT | VK_BUFFER_CREATE_SPARSE_RESIDENCY_BIT
                     | VK_BUFFER_CREATE_SPARSE_ALIASED_BIT)
    # Those that cannot lie in shared memory.
    PLACED_BUFFER = (VK_BUFFER_CREATE_PROTECTED_BIT
                     | VK_BUFFER_CREATE_DEVICE_ADDRESS_CAPTURE_REPLAY_BIT)
    ALL_TYPES = 0xffffffff
    MEBIBYTE_BITS = 20


cdef inline DeviceState *called_device(Stream *s) noexcept nogil:
    """The state of the VkDevice that the current command is called on."""
    return device_state(s.core, s.first) if s.first != NULL else NULL


cdef inline int state_buffer(Stream *s, DeviceState *device, VkBufferCreateInfo *info,
                             uint32_t *types) noexcept nogil:
    """Say to the driver what external memory a buffer can be bound to.

    types: becomes the mask of the guest's memory types that it can be bound to.
    """
    cdef VkExternalMemoryBufferCreateInfo *external = (
        <VkExternalMemoryBufferCreateInfo *>chain_find(
            info, VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO))
    cdef bint is_shared = external != NULL and external.handleTypes != 0
    types[0] = ALL_TYPES
    if is_shared:
        types[0] = device.shared_types
    elif info.flags & (SPARSE_BUFFER | PLACED_BUFFER):
        types[0] = device.sparse_types if info.flags & SPARSE_BUFFER else device.native_types
    if not is_shared and not (device.buffer_always and types[0] & device.shared_types):
        return 0
    if device.buffer_handle_types == 0:
        return 0
    if external == NULL:
        external = <VkExternalMemoryBufferCreateInfo *>push_struct(
            s, info, VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
            sizeof(VkExternalMemoryBufferCreateInfo))
        if external == NULL:
            return -1
    external.handleTypes = device.buffer_handle_types
    return 0


cdef inline uint32_t guest_types(const DeviceState *device, uint32_t host,
                                 uint32_t allowed) noexcept nogil:
    """The guest's memory types for the driver's, as `guest.memory_types.MemoryTypes.shown`."""
    cdef uint32_t found = 0
    cdef uint32_t i
    if device.type_count == 0:
        return host
    for i in range(device.type_count):
        found |= (host >> device.type_host[i] & 1) << i
    return found & allowed if found & allowed else found


cdef inline bint is_too_large(Stream *s, uint64_t size) noexcept nogil:
    """Whether a buffer would have more than the device allows: drivers round sizes up, to 0."""
    cdef uint64_t most = device_number(s, NUMBER_BUFFER_MEBIBYTES)
    return most and size > most << MEBIBYTE_BITS


cdef inline int refuse_buffer(Stream *s) noexcept nogil:
    """Have vkCreateBuffer fail, as drivers do."""
    cdef New new
    if prepare_new(s, &new):
        return -1
    set_result(s, VK_ERROR_OUT_OF_DEVICE_MEMORY)
    if register_new(s, &new):
        return -1
    restore_ids(&new)
    return 0


cdef inline int create_buffer(Stream *s) noexcept nogil:
    """vkCreateBuffer."""
    cdef vkCreateBuffer_parameters *block = <vkCreateBuffer_parameters *>s.parameters
    cdef DeviceState *device = called_device(s)
    cdef Entry *entry
    cdef uint32_t types = ALL_TYPES
    if block.pCreateInfo.size >> MEBIBYTE_BITS and is_too_large(s, block.pCreateInfo.size):
        return refuse_buffer(s)
    if device != NULL and state_buffer(s, device, block.pCreateInfo, &types):
        return -1
    if serve(s):
        return -1
    if types != ALL_TYPES:
        entry = object_find(&s.core.objects, block.pBuffer[0])
        if entry != NULL and entry.type == HANDLE_VkBuffer:
            # Inverted, so that most objects have what all have at first.
            entry.extra = <uint32_t>~types
    feedback_begin(s)
    return 0


cdef inline int translate_needs(Stream *s, VkMemoryRequirements *needs,
                                uint32_t types) noexcept nogil:
    """Ask the driver, and name the guest's memory types in its answer."""
    cdef DeviceState *device = called_device(s)
    if serve(s):
        return -1
    if device != NULL:
        needs.memoryTypeBits = guest_types(device, needs.memoryTypeBits, types)
    return 0


cdef inline uint32_t bindable(Stream *s) noexcept nogil:
    """The guest's memory types that the buffer can be bound to which a question is about."""
    if s.parent != NULL and s.parent.type == HANDLE_VkBuffer:
        return ~<uint32_t>s.parent.extra
    return ALL_TYPES


cdef inline int buffer_needs(Stream *s) noexcept nogil:
    """vkGetBufferMemoryRequirements."""
    cdef vkGetBufferMemoryRequirements_parameters *block = (
        <vkGetBufferMemoryRequirements_parameters *>s.parameters)
    return translate_needs(s, block.pMemoryRequirements, bindable(s))


cdef inline int buffer_needs_2(Stream *s) noexcept nogil:
    """vkGetBufferMemoryRequirements2."""
    cdef vkGetBufferMemoryRequirements2_parameters *block = (
        <vkGetBufferMemoryRequirements2_parameters *>s.parameters)
    return translate_needs(s, &block.pMemoryRequirements.memoryRequirements, bindable(s))


cdef inline int described_needs(Stream *s) noexcept nogil:
    """vkGetDeviceBufferMemoryRequirements."""
    cdef vkGetDeviceBufferMemoryRequirements_parameters *block = (
        <vkGetDeviceBufferMemoryRequirements_parameters *>s.parameters)
    cdef DeviceState *device = called_device(s)
    cdef uint32_t types = ALL_TYPES
    if device != NULL and state_buffer(s, device, block.pInfo.pCreateInfo, &types):
        return -1
    return translate_needs(s, &block.pMemoryRequirements.memoryRequirements, types)


cdef inline int bind_buffers(Stream *s) noexcept nogil:
    """vkBindBufferMemory2."""
    if serve(s):
        return -1
    if s.core.feedback_count:
        feedback_bind(s.core, s.begin, s.cursor)
    return 0


cdef inline int destroy_buffer(Stream *s) noexcept nogil:
    """vkDestroyBuffer."""
    if s.core.feedback_count and s.victim_count:
        feedback_end(s.core, s.victims[0].id)
    return serve(s)


cdef inline void buffer_overrides(Core *core) noexcept nogil:
    put_override(core, COMMAND_vkCreateBuffer, create_buffer)
    put_override(core, COMMAND_vkGetBufferMemoryRequirements, buffer_needs)
    put_override(core, COMMAND_vkGetBufferMemoryRequirements2, buffer_needs_2)
    put_override(core, COMMAND_vkGetDeviceBufferMemoryRequirements, described_needs)
    put_override(core, COMMAND_vkBindBufferMemory2, bind_buffers)
    put_override(core, COMMAND_vkDestroyBuffer, destroy_buffer)
