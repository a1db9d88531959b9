# What a guest looks at in memory instead of asking: feedback.
#
# Mesa's Venus learns that a fence, event, timeline semaphore or query is through by a value that
# the device itself writes into a small buffer (`vn_feedback.c`): a command buffer with a fill or a
# copy goes along with every submission.  A device that is lost writes nothing more, and the guest
# would look for ever.  So the places are noted while those commands are recorded, and when the
# device is lost the host writes what ends the wait.  What lies in memory that a lost device was to
# write is undefined anyway.

cdef enum:
    MOST_FEEDBACK = 1 << 16     # buffers that are noted
    FEEDBACK_USAGE = 3          # VK_BUFFER_USAGE_TRANSFER_SRC_BIT, ..._TRANSFER_DST_BIT
    FEEDBACK_BYTES = 1 << 20    # of the largest buffer that may be one
    BIND_INFO_WIRE = 36         # bytes of a VkBindBufferMemoryInfo without a chain
    VK_EVENT_SET = 3
    VK_EVENT_RESET = 4
    QUERY_64_AVAILABLE = 5      # VK_QUERY_RESULT_64_BIT, ..._WITH_AVAILABILITY_BIT

    # What stands at a place; 0: nothing that is known.
    PLACE_FENCE = 1             # a VkResult
    PLACE_EVENT                 # VK_EVENT_SET or VK_EVENT_RESET
    PLACE_COUNTER               # u64, of a timeline semaphore
    PLACE_AVAILABLE             # u64, not 0 once a query's results are there


cdef struct Feedback:
    # A buffer that may be for that; the core's feedback lock guards it.
    uint64_t id                 # of the VkBuffer
    uint64_t memory             # of the VkDeviceMemory it is bound to, 0: none
    uint64_t offset             # in that
    uint64_t size
    uint32_t device             # serial
    uint8_t *places             # a PLACE_... for every 4 bytes; null: none so far
    Feedback *chain


cdef uint32_t DESTROY_BUFFER = command_named(b"vkDestroyBuffer")
cdef uint32_t BIND_BUFFERS = command_named(b"vkBindBufferMemory2")


cdef inline Feedback **feedback_find(Core *core, uint64_t id) noexcept nogil:
    """The link to the buffer's, or to null; the lock is held."""
    cdef Feedback **link = &core.feedback[id % FEEDBACK_SLOTS]
    while link[0] != NULL and link[0].id != id:
        link = &link[0].chain
    return link


cdef void feedback_begin(Stream *s) noexcept nogil:
    """Note the buffer that vkCreateBuffer has made, if it is small and for transfers only."""
    cdef const uint8_t *info = (<const uint8_t *const *>(s.parameters + 8))[0]
    cdef const uint64_t *made = (<const uint64_t *const *>(s.parameters + 24))[0]
    cdef Core *core = s.core
    cdef Feedback *feedback
    cdef uint32_t usage
    if info == NULL or made == NULL or made[0] == 0 or core.feedback_count == MOST_FEEDBACK:
        return
    usage = (<const uint32_t *>(info + 32))[0]
    if (usage == 0 or usage & ~<uint32_t>FEEDBACK_USAGE
            or (<const uint64_t *>(info + 24))[0] > FEEDBACK_BYTES):
        return
    feedback = <Feedback *>calloc(1, sizeof(Feedback))
    if feedback == NULL:
        return
    feedback.id = made[0]
    feedback.size = (<const uint64_t *>(info + 24))[0]
    feedback.device = s.device
    hesper_spin_lock(&core.feedback_lock)
    feedback.chain = core.feedback[feedback.id % FEEDBACK_SLOTS]
    core.feedback[feedback.id % FEEDBACK_SLOTS] = feedback
    core.feedback_count += 1
    hesper_spin_unlock(&core.feedback_lock)


cdef void feedback_end(Core *core, uint64_t id) noexcept nogil:
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


cdef void feedback_bind(Core *core, const uint8_t *command, const uint8_t *end) noexcept nogil:
    """Note what memory buffers are bound to: `command` is a vkBindBufferMemory2 on the wire.

    What is read here for a second time says nothing but where to write one day, and that is
    checked then.
    """
    cdef const uint8_t *info = command + 28
    cdef Feedback *feedback
    cdef uint32_t count
    if end - command < 28:
        return
    count = hesper_read_u32(command + 16)
    hesper_spin_lock(&core.feedback_lock)
    # Mesa chains nothing to those of its own.
    while count and end - info >= BIND_INFO_WIRE and hesper_read_u64(info + 4) == 0:
        feedback = feedback_find(core, hesper_read_u64(info + 12))[0]
        if feedback != NULL:
            feedback.memory = hesper_read_u64(info + 20)
            feedback.offset = hesper_read_u64(info + 28)
        info += BIND_INFO_WIRE
        count -= 1
    hesper_spin_unlock(&core.feedback_lock)


cdef void feedback_place(Core *core, uint64_t id, uint64_t offset, uint64_t stride, uint64_t count,
                         uint8_t place) noexcept nogil:
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


cdef inline bint copies_counter(Stream *s) noexcept nogil:
    """Whether the vkCmdCopyBuffer at the cursor copies 8 bytes, as for a timeline semaphore."""
    return (s.end - s.cursor >= 68 and hesper_read_u64(s.cursor + 60) == 8
            and hesper_read_u32(s.cursor + 32) == 1)


cdef void feedback_note(Stream *s, uint8_t kind) noexcept nogil:
    """Note the places that the command at the cursor, a HOT_FILL or the like, writes to."""
    cdef const uint8_t *at = s.cursor + 8   # the command buffer
    cdef uint64_t left = s.end - s.cursor
    cdef uint64_t stride
    cdef uint32_t value
    if kind == HOT_FILL:
        if left < 44 or hesper_read_u64(at + 24) != 4:
            return
        value = hesper_read_u32(at + 32)
        if value == 0 or value == VK_EVENT_SET or value == VK_EVENT_RESET:
            feedback_place(s.core, hesper_read_u64(at + 8), hesper_read_u64(at + 16), 4, 1,
                           PLACE_EVENT if value else PLACE_FENCE)
    elif kind == HOT_COPY:
        feedback_place(s.core, hesper_read_u64(at + 16), hesper_read_u64(at + 44), 8, 1,
                       PLACE_COUNTER)
    elif left >= 60 and hesper_read_u32(at + 48) & QUERY_64_AVAILABLE == QUERY_64_AVAILABLE:
        stride = hesper_read_u64(at + 40)
        if stride >= 16:
            feedback_place(s.core, hesper_read_u64(at + 24), hesper_read_u64(at + 32) + stride - 8,
                           stride, hesper_read_u32(at + 20), PLACE_AVAILABLE)


cdef void feedback_release(Core *core, uint32_t device) noexcept nogil:
    """End all waits for a device that is lost."""
    cdef Feedback *feedback
    cdef Entry *memory
    cdef uint32_t i
    hesper_spin_lock(&core.feedback_lock)
    # Who holds the lock of the store keeps memory from being freed.
    pthread_mutex_lock(&core.store.lock)
    for i in range(FEEDBACK_SLOTS):
        feedback = core.feedback[i]
        while feedback != NULL:
            if feedback.device == device and feedback.places != NULL:
                memory = object_find(&core.objects, feedback.memory)
                if memory != NULL and memory.type == DEVICE_MEMORY + 1 and memory.extra != NULL:
                    feedback_write(feedback, <RegionCore *>memory.extra)
            feedback = feedback.chain
    pthread_mutex_unlock(&core.store.lock)
    hesper_spin_unlock(&core.feedback_lock)


cdef void feedback_write(Feedback *feedback, RegionCore *region) noexcept nogil:
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


cdef void feedback_free(Core *core) noexcept:
    cdef uint32_t i
    for i in range(FEEDBACK_SLOTS):
        while core.feedback[i] != NULL:
            feedback_end(core, core.feedback[i].id)
