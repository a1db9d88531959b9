"""What a guest looks at in memory instead of asking: feedback.

Mesa's Venus learns that a fence, event, timeline semaphore or query is through by a value that
the device itself writes into a small buffer (`vn_feedback.c`): a command buffer with a fill or a
copy goes along with every submission.  A device that is lost writes nothing more, and the guest
would look for ever.  So the places are noted while those commands are recorded, and when the
device is lost the host writes what ends the wait.  What lies in memory that a lost device was to
write is undefined anyway.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from hesper_commands cimport (
    HANDLE_VkDeviceMemory, VK_BUFFER_USAGE_TRANSFER_DST_BIT, VK_BUFFER_USAGE_TRANSFER_SRC_BIT,
    VK_ERROR_DEVICE_LOST, VK_EVENT_RESET, VK_EVENT_SET, VK_NOT_READY, VK_QUERY_RESULT_64_BIT,
    VK_QUERY_RESULT_WITH_AVAILABILITY_BIT, VkBufferCreateInfo, WIRE_VkBindBufferMemoryInfo_SIZE,
    WIRE_VkBindBufferMemoryInfo_buffer, WIRE_VkBindBufferMemoryInfo_memory,
    WIRE_VkBindBufferMemoryInfo_memoryOffset, WIRE_VkBindBufferMemoryInfo_pNext,
    WIRE_VkBufferCopy_SIZE, WIRE_VkBufferCopy_dstOffset, WIRE_VkBufferCopy_size,
    WIRE_vkBindBufferMemory2_bindInfoCount, WIRE_vkBindBufferMemory2_pBindInfos,
    WIRE_vkCmdCopyBuffer_dstBuffer, WIRE_vkCmdCopyBuffer_pRegions,
    WIRE_vkCmdCopyBuffer_regionCount, WIRE_vkCmdCopyQueryPoolResults_dstBuffer,
    WIRE_vkCmdCopyQueryPoolResults_dstOffset, WIRE_vkCmdCopyQueryPoolResults_flags,
    WIRE_vkCmdCopyQueryPoolResults_queryCount, WIRE_vkCmdCopyQueryPoolResults_stride,
    WIRE_vkCmdFillBuffer_data, WIRE_vkCmdFillBuffer_dstBuffer, WIRE_vkCmdFillBuffer_dstOffset,
    WIRE_vkCmdFillBuffer_size, vkCreateBuffer_parameters)

from hesper.kernel.core.objects cimport Entry, object_find, object_kin
from hesper.kernel.core.platform cimport (
    hesper_read_u32, hesper_read_u64, hesper_replace, hesper_spin_lock, hesper_spin_unlock,
    hesper_store_release, hesper_write_u64, pthread_mutex_lock, pthread_mutex_unlock)
from hesper.kernel.core.shm_pool cimport ShmRegion
from hesper.kernel.core.state cimport FEEDBACK_SLOTS, Core, Feedback, Stream
from hesper.kernel.core.tables cimport LENGTH_SIZE


cdef enum:
    MOST_FEEDBACK = 1 << 16     # buffers that are noted
    FEEDBACK_BYTES = 1 << 20    # of the largest buffer that may be one
    QUERY_64_AVAILABLE = VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WITH_AVAILABILITY_BIT

    # Where the first region of a vkCmdCopyBuffer lies, and where the commands end.
    COPY = WIRE_vkCmdCopyBuffer_pRegions + LENGTH_SIZE
    COPY_END = COPY + WIRE_VkBufferCopy_SIZE
    FILL_END = WIRE_vkCmdFillBuffer_data + 4
    QUERIES_END = WIRE_vkCmdCopyQueryPoolResults_flags + 4

    # What stands at a place; 0: nothing that is known.
    PLACE_FENCE = 1             # a VkResult
    PLACE_EVENT                 # VK_EVENT_SET or VK_EVENT_RESET
    PLACE_COUNTER               # u64, of a timeline semaphore
    PLACE_AVAILABLE             # u64, not 0 once a query's results are there


cdef inline uint32_t feedback_slot(Core *core, uint64_t id) noexcept nogil:
    return <uint32_t>((id * core.objects.multiplier) >> 54)


cdef inline Feedback **feedback_find(Core *core, uint64_t id) noexcept nogil:
    """The link to the buffer's, or to null; the lock is held."""
    cdef Feedback **link = &core.feedback[feedback_slot(core, id)]
    while link[0] != NULL and link[0].id != id:
        link = &link[0].chain
    return link


cdef inline void feedback_begin(Stream *s) noexcept nogil:
    """Note the buffer that vkCreateBuffer has made, if it is small and for transfers only."""
    cdef vkCreateBuffer_parameters *block = <vkCreateBuffer_parameters *>s.parameters
    cdef const VkBufferCreateInfo *info = block.pCreateInfo
    cdef const uint64_t *made = block.pBuffer
    cdef Core *core = s.core
    cdef Feedback *feedback
    if info == NULL or made == NULL or made[0] == 0 or core.feedback_count == MOST_FEEDBACK:
        return
    if (info.usage == 0 or info.size > FEEDBACK_BYTES or info.usage & ~<uint32_t>(
            VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT)):
        return
    feedback = <Feedback *>calloc(1, sizeof(Feedback))
    if feedback == NULL:
        return
    feedback.id = made[0]
    feedback.size = info.size
    feedback.device = s.device
    hesper_spin_lock(&core.feedback_lock)
    feedback.chain = core.feedback[feedback_slot(core, feedback.id)]
    core.feedback[feedback_slot(core, feedback.id)] = feedback
    core.feedback_count += 1
    hesper_spin_unlock(&core.feedback_lock)


cdef inline void feedback_end(Core *core, uint64_t id) noexcept nogil:
    """Forget a buffer."""
    cdef Feedback **link
    cdef Feedback *feedback
    hesper_spin_lock(&core.feedback_lock)
    link = feedback_find(core, id)
    feedback = link[0]
    if feedback != NULL:
        link[0] = feedback.chain
        core.feedback_count -= 1
    hesper_spin_unlock(&core.feedback_lock)
    if feedback != NULL:
        free(feedback.places)
        free(feedback)


cdef inline void feedback_bind(Core *core, const uint8_t *command,
                               const uint8_t *end) noexcept nogil:
    """Note what memory buffers are bound to: `command` is a vkBindBufferMemory2 on the wire.

    What is read here for a second time says nothing but where to write one day, and that is
    checked then.
    """
    cdef const uint8_t *info = command + WIRE_vkBindBufferMemory2_pBindInfos + LENGTH_SIZE
    cdef Feedback *feedback
    cdef uint32_t count
    if end < info:
        return
    count = hesper_read_u32(command + WIRE_vkBindBufferMemory2_bindInfoCount)
    hesper_spin_lock(&core.feedback_lock)
    # Mesa chains nothing to those of its own.
    while (count and end - info >= WIRE_VkBindBufferMemoryInfo_SIZE
           and hesper_read_u64(info + WIRE_VkBindBufferMemoryInfo_pNext) == 0):
        feedback = feedback_find(
            core, hesper_read_u64(info + WIRE_VkBindBufferMemoryInfo_buffer))[0]
        if feedback != NULL:
            feedback.memory = hesper_read_u64(info + WIRE_VkBindBufferMemoryInfo_memory)
            feedback.offset = hesper_read_u64(info + WIRE_VkBindBufferMemoryInfo_memoryOffset)
        info += WIRE_VkBindBufferMemoryInfo_SIZE
        count -= 1
    hesper_spin_unlock(&core.feedback_lock)


cdef inline void feedback_place(Core *core, uint64_t id, uint64_t offset, uint64_t stride,
                                uint64_t count, uint8_t place) noexcept nogil:
    """Note `count` places in a buffer, `stride` bytes apart."""
    cdef Feedback *feedback
    hesper_spin_lock(&core.feedback_lock)
    feedback = feedback_find(core, id)[0]
    if feedback != NULL and feedback.places == NULL:
        feedback.places = <uint8_t *>calloc(feedback.size / 4 + 1, 1)
    if feedback != NULL and feedback.places != NULL:
        while count and offset < feedback.size:
            feedback.places[offset >> 2] = place
            if stride > FEEDBACK_BYTES:
                break
            offset += stride
            count -= 1
    hesper_spin_unlock(&core.feedback_lock)


cdef inline void note_fill(Stream *s) noexcept nogil:
    """Note the place that the vkCmdFillBuffer at the cursor writes to: a fence's, or an event's."""
    cdef const uint8_t *at = s.cursor
    cdef uint32_t value
    if s.end - at < FILL_END or hesper_read_u64(at + WIRE_vkCmdFillBuffer_size) != 4:
        return
    value = hesper_read_u32(at + WIRE_vkCmdFillBuffer_data)
    if value == 0 or value == VK_EVENT_SET or value == VK_EVENT_RESET:
        feedback_place(s.core, hesper_read_u64(at + WIRE_vkCmdFillBuffer_dstBuffer),
                       hesper_read_u64(at + WIRE_vkCmdFillBuffer_dstOffset), 4, 1,
                       PLACE_EVENT if value else PLACE_FENCE)


cdef inline void note_copy(Stream *s) noexcept nogil:
    """The same of a vkCmdCopyBuffer of 8 bytes, as for a timeline semaphore."""
    cdef const uint8_t *at = s.cursor
    if (s.end - at >= COPY_END and hesper_read_u64(at + COPY + WIRE_VkBufferCopy_size) == 8
            and hesper_read_u32(at + WIRE_vkCmdCopyBuffer_regionCount) == 1):
        feedback_place(s.core, hesper_read_u64(at + WIRE_vkCmdCopyBuffer_dstBuffer),
                       hesper_read_u64(at + COPY + WIRE_VkBufferCopy_dstOffset), 8, 1,
                       PLACE_COUNTER)


cdef inline void note_queries(Stream *s) noexcept nogil:
    """The same of a vkCmdCopyQueryPoolResults that says whether they are there."""
    cdef const uint8_t *at = s.cursor
    cdef uint64_t stride
    if s.end - at < QUERIES_END or (
            hesper_read_u32(at + WIRE_vkCmdCopyQueryPoolResults_flags) & QUERY_64_AVAILABLE
            != QUERY_64_AVAILABLE):
        return
    stride = hesper_read_u64(at + WIRE_vkCmdCopyQueryPoolResults_stride)
    if stride >= 16:
        feedback_place(s.core, hesper_read_u64(at + WIRE_vkCmdCopyQueryPoolResults_dstBuffer),
                       hesper_read_u64(at + WIRE_vkCmdCopyQueryPoolResults_dstOffset)
                       + stride - 8, stride,
                       hesper_read_u32(at + WIRE_vkCmdCopyQueryPoolResults_queryCount),
                       PLACE_AVAILABLE)


cdef inline void feedback_release(Core *core, uint32_t device) noexcept nogil:
    """End all waits for a device that is lost."""
    cdef Feedback *feedback
    cdef Entry *memory
    cdef ShmRegion *region
    cdef uint32_t i
    hesper_spin_lock(&core.feedback_lock)
    # Who holds the lock of the pool keeps memory from being freed.
    pthread_mutex_lock(&core.pool.lock)
    for i in range(FEEDBACK_SLOTS):
        feedback = core.feedback[i]
        while feedback != NULL:
            if feedback.device == device and feedback.places != NULL:
                memory = object_find(&core.objects, feedback.memory)
                region = NULL
                if memory != NULL and memory.type == HANDLE_VkDeviceMemory:
                    region = <ShmRegion *>object_kin(memory).region
                if region != NULL:
                    feedback_write(feedback, region)
            feedback = feedback.chain
    pthread_mutex_unlock(&core.pool.lock)
    hesper_spin_unlock(&core.feedback_lock)


cdef inline void feedback_write(Feedback *feedback, ShmRegion *region) noexcept nogil:
    """Write to all places of a buffer that lies in `region` what ends a wait."""
    cdef uint8_t *at
    cdef uint8_t place
    cdef uint64_t i
    if (region.data == NULL or feedback.offset & 3 or feedback.offset > region.size
            or feedback.size > region.size - feedback.offset):
        return
    for i in range(feedback.size / 4):
        place = feedback.places[i]
        if place == 0:
            continue
        at = region.data + feedback.offset + 4 * i
        if place == PLACE_FENCE:
            # One that is signalled stays so.
            hesper_replace(<uint32_t *>at, VK_NOT_READY, <uint32_t>VK_ERROR_DEVICE_LOST)
        elif place == PLACE_EVENT:
            hesper_store_release(<uint32_t *>at, <uint32_t>VK_ERROR_DEVICE_LOST)
        elif 4 * i + 8 <= feedback.size:
            # No result fits here: whoever waits goes on, and hears of it where it asks next.
            hesper_write_u64(at, <uint64_t>-1)


cdef inline void feedback_free(Core *core) noexcept nogil:
    cdef uint32_t i
    for i in range(FEEDBACK_SLOTS):
        while core.feedback[i] != NULL:
            feedback_end(core, core.feedback[i].id)
