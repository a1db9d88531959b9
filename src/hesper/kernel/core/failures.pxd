"""Commands that have failed: what must not be used after that, and who hears of it."""

from libc.stdint cimport int32_t, uint32_t, uint64_t

from hesper_commands cimport (
    COMMAND_vkBindBufferMemory, COMMAND_vkBindBufferMemory2, COMMAND_vkBindImageMemory,
    COMMAND_vkBindImageMemory2, HANDLE_VkBuffer, HANDLE_VkCommandBuffer, HANDLE_VkImage,
    VK_ERROR_DEVICE_LOST, VK_ERROR_FRAGMENTED_POOL, VK_ERROR_OUT_OF_POOL_MEMORY,
    vkBindBufferMemory2_parameters, vkBindBufferMemory_parameters, vkBindImageMemory2_parameters,
    vkBindImageMemory_parameters)

from hesper.kernel.core.dead cimport command_result, object_break
from hesper.kernel.core.lost cimport device_lose, device_of
from hesper.kernel.core.objects cimport DEAD, Entry, object_with
from hesper.kernel.core.state cimport Stream
from hesper.kernel.core.tables cimport TRAIT_HARMLESS


cdef inline void note_failure(Stream *s, uint32_t index) noexcept nogil:
    """Look at the result of the command that has just run, and has one."""
    cdef int32_t result = command_result(s)
    if result >= 0:
        return
    if result == VK_ERROR_DEVICE_LOST:
        device_lose(s.core, device_of(s), s.command)
        return
    if s.limited:
        s.limited = False       # the limit is told, and not the driver's fault
    elif is_worth_telling(s, index):
        s.core.up.command_failed(s, index)
    if s.wants_reply or s.first == NULL or s.command.new_type:
        return
    if s.first.type & ~<uint32_t>DEAD == HANDLE_VkCommandBuffer:
        object_break(s.first, result)
    elif not break_bound(s, index, result) and not s.command.traits & TRAIT_HARMLESS:
        device_lose(s.core, device_of(s), s.command)


cdef inline bint break_bound(Stream *s, uint32_t index, int32_t result) noexcept nogil:
    """Nothing that memory could not be bound to may be used; False: it was no such command."""
    cdef vkBindBufferMemory2_parameters *buffers = <vkBindBufferMemory2_parameters *>s.parameters
    cdef vkBindImageMemory2_parameters *images = <vkBindImageMemory2_parameters *>s.parameters
    cdef uint32_t i
    if index == COMMAND_vkBindBufferMemory:
        break_handle(s, HANDLE_VkBuffer,
                     (<vkBindBufferMemory_parameters *>s.parameters).buffer, result)
    elif index == COMMAND_vkBindImageMemory:
        break_handle(s, HANDLE_VkImage,
                     (<vkBindImageMemory_parameters *>s.parameters).image, result)
    elif index == COMMAND_vkBindBufferMemory2:
        for i in range(buffers.bindInfoCount if buffers.pBindInfos != NULL else 0):
            break_handle(s, HANDLE_VkBuffer, buffers.pBindInfos[i].buffer, result)
    elif index == COMMAND_vkBindImageMemory2:
        for i in range(images.bindInfoCount if images.pBindInfos != NULL else 0):
            break_handle(s, HANDLE_VkImage, images.pBindInfos[i].image, result)
    else:
        return False
    return True


cdef inline void break_handle(Stream *s, uint32_t type, uint64_t handle,
                              int32_t result) noexcept nogil:
    """Break the object with that host handle; a search, for what has failed."""
    cdef Entry *entry = object_with(&s.core.objects, type, handle, s.device)
    if entry != NULL:
        object_break(entry, result)


cdef inline bint is_worth_telling(Stream *s, uint32_t index) noexcept nogil:
    """Whether somebody should hear of the command that has failed: once for each command.

    What the guest asks about, and hears the answer to, is its own business, and so is a pool that
    is full: programs make another one.  What follows from another failure says nothing new.
    """
    cdef int32_t result = command_result(s)
    if s.lenient:
        return False
    if (s.wants_reply and (s.command.new_type == 0 or result == VK_ERROR_FRAGMENTED_POOL
                           or result == VK_ERROR_OUT_OF_POOL_MEMORY)):
        return False
    if s.core.rows[index].failure_told:
        return False
    s.core.rows[index].failure_told = 1
    return True
