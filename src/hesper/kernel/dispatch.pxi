# One command after another: decode, call, register what it made, reply.

cdef enum:
    FLAG_REPLY = 1              # VK_COMMAND_GENERATE_REPLY_BIT_EXT
    LEFT_TO_HANDLER = 1
    POPULATED_BYTES = 65536     # at a time, of what replies go to; a multiple of the page size
    ASPECT_COLOR = 0x1
    ASPECT_MEMORY_PLANE_0 = 0x80
    PARAMETER_WORDS = 16        # of a block that HOT_WORDS commands fit into
    WAIT_SLICE_NS = 100000000
    VK_TIMEOUT = 2

# Indices (into hesper_commands and hesper_structs) of what the kernel treats by itself.
cdef uint32_t EXECUTE_STREAMS = command_named(b"vkExecuteCommandStreamsMESA")
cdef uint32_t SET_REPLY = command_named(b"vkSetReplyCommandStreamMESA")
cdef uint32_t SEEK_REPLY = command_named(b"vkSeekReplyCommandStreamMESA")
cdef uint32_t NOTIFY_RING = command_named(b"vkNotifyRingMESA")
cdef uint32_t WRITE_RING_EXTRA = command_named(b"vkWriteRingExtraMESA")
cdef uint32_t SUBMIT_VIRTQUEUE_SEQNO = command_named(b"vkSubmitVirtqueueSeqnoMESA")
cdef uint32_t WAIT_VIRTQUEUE_SEQNO = command_named(b"vkWaitVirtqueueSeqnoMESA")
cdef uint32_t WAIT_RING_SEQNO = command_named(b"vkWaitRingSeqnoMESA")
cdef uint32_t WAIT_FOR_FENCES = command_named(b"vkWaitForFences")
cdef uint32_t WAIT_SEMAPHORES = command_named(b"vkWaitSemaphores")
cdef uint32_t QUEUE_SUBMIT = command_named(b"vkQueueSubmit")
cdef uint32_t QUEUE_SUBMIT_2 = command_named(b"vkQueueSubmit2")
cdef uint32_t GET_QUERY_POOL_RESULTS = command_named(b"vkGetQueryPoolResults")
cdef uint32_t SUBRESOURCE_LAYOUT = command_named(b"vkGetImageSubresourceLayout")
cdef uint32_t SUBRESOURCE_LAYOUT_2 = command_named(b"vkGetImageSubresourceLayout2")
cdef uint32_t QUEUE_TYPE = handle_named(b"VkQueue")
cdef uint32_t COMMAND_BUFFER = handle_named(b"VkCommandBuffer")


cdef uint32_t command_named(const char *name) except? 0xffffffff:
    cdef uint32_t i
    for i in range(hesper_command_count):
        if strcmp(hesper_commands[i].name, name) == 0:
            return i
    raise KeyError(name)


cdef uint32_t handle_named(const char *name) except? 0xffffffff:
    cdef uint32_t i
    for i in range(hesper_handle_count):
        if strcmp(hesper_handle_names[i], name) == 0:
            return i
    raise KeyError(name)


cdef struct New:
    # Objects a command makes: guest ids taken off their place, host handles put there.
    uint64_t *handles
    uint64_t *ids
    uint64_t count


cdef int prepare_new(Stream *s, New *new) noexcept nogil:
    """Take the guest ids off the output array; all must be free."""
    cdef uint64_t i
    cdef const hesper_command *c = s.command
    new.handles = (<uint64_t **>(s.parameters + c.new_offset))[0]
    new.count = 0
    new.ids = NULL
    if new.handles == NULL:
        return 0
    new.count = 1 if c.new_single else length_of(&hesper_lengths[c.new_length], s.parameters)
    new.ids = <uint64_t *>arena_take_array(&s.arena, new.count, 8)
    if new.ids == NULL:
        return fail(s, ERROR_MEMORY, NULL, new.count)
    for i in range(new.count):
        new.ids[i] = new.handles[i]
        new.handles[i] = 0
        if new.ids[i] == 0 or (object_find(&s.core.objects, new.ids[i]) != NULL
                               and not heard_remove(s.core, new.ids[i])):
            return fail(s, ERROR_ID, NULL, new.ids[i])
    return 0


cdef int register_new(Stream *s, New *new) noexcept nogil:
    """Make objects of the handles the driver has given, dead ones where it has given none."""
    cdef uint64_t i
    cdef uint32_t type
    cdef int32_t result = command_result(s)
    cdef Entry *entry
    cdef Objects *objects = &s.core.objects
    cdef uint64_t parent_id = s.parent_id if s.parent != NULL else s.first_id
    cdef uint64_t device_id
    if s.first == NULL:
        return fail(s, ERROR_NULL, NULL, 0)
    device_id = s.first_id if s.device else 0
    if result < 0 and s.command.new_single and new.count:
        new.handles[0] = 0      # a driver may leave anything there
    for i in range(new.count):
        type = s.command.new_type
        if new.handles[i] == 0:
            if result == 0:
                continue
            type |= DEAD
        entry = object_add(objects, new.ids[i], type, new.handles[i], s.first.table, s.device,
                           device_id, parent_id)
        if entry == NULL and type & DEAD and s.wants_reply:
            continue
        if entry == NULL:
            return fail(s, ERROR_LIMIT, NULL, objects.limit)
        if type & DEAD:
            entry.extra = <void *><uint64_t><uint32_t>(result if result < 0 else VK_ERROR_UNKNOWN)
            if s.wants_reply:
                heard_add(s.core, new.ids[i])
                continue
        if s.parent != NULL:
            object_adopt(s.parent, entry)
    return 0


cdef inline void restore_ids(New *new) noexcept nogil:
    """Put guest ids back for the reply; null where nothing was made."""
    cdef uint64_t i
    for i in range(new.count):
        if new.handles[i]:
            new.handles[i] = new.ids[i]


cdef void forget_victims(Stream *s) noexcept nogil:
    cdef uint32_t i
    cdef Entry *entry
    for i in range(s.victim_count):
        entry = object_find(&s.core.objects, s.victims[i])
        if entry != NULL:
            object_remove(&s.core.objects, entry)


cdef void clear_pool(Stream *s) noexcept nogil:
    """vkResetDescriptorPool: all sets of the pool are gone."""
    cdef uint64_t id = s.victims[0] if s.victim_count else 0
    cdef Entry *entry = object_find(&s.core.objects, id)
    if entry != NULL:
        object_clear(&s.core.objects, entry)


cdef hesper_function host_function(Stream *s) noexcept nogil:
    """The driver's function for the current command, or null with the error noted."""
    cdef uint32_t index = <uint32_t>(s.command - &hesper_commands[0])
    cdef hesper_function function = NULL
    if s.first != NULL and s.first.table != NULL:
        function = s.first.table[index]
    if function == NULL:
        fail(s, ERROR_FUNCTION, NULL, 0)
    return function


cdef inline void queue_leave(QueueState *queue) noexcept nogil:
    """Unlock a queue that was given something; somebody has to look out for its end."""
    cdef TimelineCore *unwatched = NULL
    if not queue.watched:
        queue.watched = True
        unwatched = queue.timeline
    pthread_mutex_unlock(&queue.monitor.mutex)
    if unwatched != NULL:
        timeline_wake(unwatched)


cdef void call_host(Stream *s, hesper_function function) noexcept nogil:
    """Call the driver; queues are one thread's at a time (Vulkan: externally synchronised)."""
    cdef QueueState *queue = NULL
    cdef uint64_t ahead = 0
    if s.first != NULL and s.first.type == QUEUE_TYPE + 1:
        queue = <QueueState *>s.first.extra
    if queue == NULL:
        s.command.call(function, s.parameters)
        return
    pthread_mutex_lock(&queue.monitor.mutex)
    queue.calls += 1
    if queue.fences != NULL and (s.command == &hesper_commands[QUEUE_SUBMIT]
                                 or s.command == &hesper_commands[QUEUE_SUBMIT_2]):
        ahead = fence_ahead(queue.fences, s.parameters,
                            s.command == &hesper_commands[QUEUE_SUBMIT_2])
    s.command.call(function, s.parameters)
    if ahead:
        fence_is_ahead(queue, ahead, (<int32_t *>(s.parameters + s.command.result_offset))[0])
    queue_leave(queue)


cdef void wait_in_slices(Stream *s, hesper_function function, uint32_t offset) noexcept nogil:
    """Call a command that waits, its timeout (u64, ns) at `offset`, so that it can be broken off.

    What it waits for may never come: a guest can forget to submit it, or a driver can hang.
    """
    cdef uint64_t *timeout = <uint64_t *>(s.parameters + offset)
    cdef int32_t *result = <int32_t *>(s.parameters + s.command.result_offset)
    cdef uint64_t left = timeout[0]
    while True:
        timeout[0] = left if left < WAIT_SLICE_NS else WAIT_SLICE_NS
        left -= timeout[0]
        call_host(s, function)
        if is_lost(device_of(s)):
            result[0] = VK_ERROR_DEVICE_LOST
        if (result[0] != VK_TIMEOUT or left == 0 or hesper_load_acquire(&s.core.stopping)
                or hesper_load_acquire(&s.core.fatal)):
            return


cdef int serve(Stream *s) noexcept nogil:
    """What an ordinary command needs: the call, and the book-keeping of objects."""
    cdef New new
    cdef hesper_function function = host_function(s)
    if function == NULL:
        return -1
    if s.command.destroys == 1:
        forget_victims(s)
    elif s.command.destroys == 2:
        clear_pool(s)
    if s.command.new_type == 0:
        if s.command == &hesper_commands[WAIT_FOR_FENCES]:
            wait_in_slices(s, function, 32)
        elif s.command == &hesper_commands[WAIT_SEMAPHORES]:
            wait_in_slices(s, function, 16)
        else:
            call_host(s, function)
        return 0
    if prepare_new(s, &new):
        return -1
    call_host(s, function)
    if register_new(s, &new):
        return -1
    restore_ids(&new)
    return 0


cdef uint8_t *push_struct(Stream *s, uint8_t *info, uint32_t stype, size_t size) noexcept nogil:
    """Put a zeroed struct at the front of the pNext chain of `info`; null with the error noted."""
    cdef uint8_t *node = <uint8_t *>arena_take_zeroed(&s.arena, size)
    if node == NULL:
        fail(s, ERROR_MEMORY, NULL, size)
        return NULL
    (<uint32_t *>node)[0] = stype
    (<uint8_t **>(node + 8))[0] = (<uint8_t **>(info + 8))[0]
    (<uint8_t **>(info + 8))[0] = node
    return node


cdef int reply(Stream *s) noexcept nogil:
    """Write the reply of the command that has just run."""
    cdef const hesper_command *c = s.command
    if s.reply_start == NULL:
        return fail(s, ERROR_REPLY, NULL, 0)
    if put_u32(s, <uint32_t>c.number):
        return -1
    if c.result == RESULT_U64:
        if put_u64(s, (<uint64_t *>(s.parameters + c.result_offset))[0]):
            return -1
    elif c.result != RESULT_VOID:
        if put_u32(s, (<uint32_t *>(s.parameters + c.result_offset))[0]):
            return -1
    s.core.replies += 1
    return encode(s, &hesper_ops[c.out], c.out_count, s.parameters)


cdef inline Entry *command_buffer(Stream *s) noexcept nogil:
    """The command buffer whose id follows the header at the cursor, or null."""
    cdef uint64_t id = hesper_read_u64(s.cursor + 8)
    cdef Entry *entry = s.recorded
    # Its entry may be another one's by now.
    if entry != NULL and <uint64_t>entry.extra == id and entry.type == COMMAND_BUFFER + 1:
        return entry
    entry = object_find(&s.core.objects, id)
    if entry == NULL or entry.type != COMMAND_BUFFER + 1:
        return NULL
    s.recorded = entry
    return entry


cdef int record_words(Stream *s, const Hot *hot) noexcept nogil:
    """HOT_WORDS: the command buffer's id, then `hot.words` bytes that lie in C as on the wire."""
    cdef uint64_t parameters[2 * PARAMETER_WORDS]   # the compiler cannot see that half would do
    cdef Entry *entry
    cdef hesper_function function
    if not has(s, 16 + hot.words):
        return run_whole(s, hot.index, 0)
    entry = command_buffer(s)
    function = entry.table[hot.index] if entry != NULL else NULL
    if function == NULL:
        return run_whole(s, hot.index, 0)
    parameters[0] = entry.handle
    hesper_copy_words(&parameters[1], s.cursor + 16, hot.words)
    s.cursor += 16 + hot.words
    hesper_note(&s.stage, STAGE_DRIVER)
    hot.call(function, parameters)
    s.commands += 1
    return 0


cdef int record(Stream *s, const Hot *hot) noexcept nogil:
    """HOT_RECORD: nothing is created, destroyed or answered."""
    cdef const uint8_t *start = s.cursor
    cdef const hesper_command *c
    cdef Entry *entry
    cdef hesper_function function
    if not has(s, 16):
        return run_whole(s, hot.index, 0)
    entry = command_buffer(s)
    function = entry.table[hot.index] if entry != NULL else NULL
    if function == NULL:
        return run_whole(s, hot.index, 0)
    c = &hesper_commands[hot.index]
    s.command = c
    s.device = entry.device
    s.depth = 0
    s.parameters = <uint8_t *>arena_take(&s.arena, c.size)
    if s.parameters == NULL:
        return fail(s, ERROR_MEMORY, NULL, c.size)
    (<uint64_t *>s.parameters)[0] = entry.handle
    s.cursor += 16
    if decode(s, &hesper_ops[c.in_ + 1], c.in_count - 1, s.parameters):
        return run_lenient(s, start, hot.index, 0) if s.error == ERROR_DEAD else -1
    hesper_note(&s.stage, STAGE_DRIVER)
    hot.call(function, s.parameters)
    s.commands += 1
    return 0


cdef inline int run_command(Stream *s) noexcept nogil:
    """Run the command at the cursor: 0, FLAG_REPLY when it was answered, -1 on an error."""
    cdef uint64_t header
    cdef uint32_t number
    cdef const Hot *hot
    if not has(s, 8):
        s.command = NULL
        return fail(s, ERROR_SHORT, NULL, 8)
    header = hesper_read_u64(s.cursor)
    number = <uint32_t>header
    if number >= hesper_number_count or hesper_command_index[number] == 0xffff:
        s.command = NULL
        return fail(s, ERROR_COMMAND, NULL, number)
    hot = &s.core.hot[number]
    hesper_note(&s.number, number)
    hesper_note(&s.stage, STAGE_DECODE)
    if not header >> 32 & FLAG_REPLY:
        if hot.kind == HOT_WORDS:
            return record_words(s, hot)
        if hot.kind == HOT_RECORD:
            return record(s, hot)
        if hot.kind >= HOT_COPY:
            if hot.kind != HOT_COPY or copies_counter(s):
                feedback_note(s, hot.kind)
            return record(s, hot)
    return run_whole(s, hot.index, <uint32_t>(header >> 32))


cdef inline bint may_wait(uint32_t index) noexcept nogil:
    """Whether the driver may take its time over a command."""
    return (index == WAIT_FOR_FENCES or index == WAIT_SEMAPHORES
            or index == GET_QUERY_POOL_RESULTS)


cdef int run_whole(Stream *s, uint32_t index, uint32_t flags) noexcept nogil:
    """Run a command with all that may belong to it."""
    cdef const hesper_command *c = &hesper_commands[index]
    cdef const uint8_t *start = s.cursor
    cdef int result
    s.cursor += 8
    s.command = c
    if c.refused != NULL:
        return fail(s, ERROR_REFUSED, NULL, 0)
    s.first = NULL
    s.first_id = 0
    s.parent = NULL
    s.victims = NULL
    s.victim_count = 0
    s.device = 0
    s.depth = 0
    s.wants_reply = flags & FLAG_REPLY
    s.parameters = <uint8_t *>arena_take(&s.arena, c.size)
    if s.parameters == NULL:
        return fail(s, ERROR_MEMORY, NULL, c.size)
    if c.result != RESULT_VOID:
        (<uint32_t *>(s.parameters + c.result_offset))[0] = 0
        if c.result == RESULT_U64:
            (<uint64_t *>(s.parameters + c.result_offset))[0] = 0
    if decode(s, &hesper_ops[c.in_], c.in_count, s.parameters):
        if s.error == ERROR_DEAD and not s.lenient:
            return run_lenient(s, start, index, flags)
        return -1
    if hesper_load_acquire(&s.core.lost_devices) and answer_lost(s, index):
        result = 0
    elif s.lenient and s.dead:
        result = serve_dead(s, index)
    elif s.core.handled[index]:
        result = serve_without_handler(s, index)
        if result == LEFT_TO_HANDLER:
            if s.ring != NULL:
                ring_settle(s.ring)
            hesper_note(&s.stage, STAGE_HANDLER)
            result = run_handler(s, index)
    elif c.level == LEVEL_TRANSPORT:
        result = run_transport(s, index)
    else:
        if index == SUBRESOURCE_LAYOUT or index == SUBRESOURCE_LAYOUT_2:
            name_colour(s, index)
        if s.core.changes_layouts:
            change_layouts(s, index)
        if s.ring != NULL and may_wait(index):
            ring_settle(s.ring)
        if index == DESTROY_BUFFER and s.core.feedback_count and s.victim_count:
            feedback_end(s.core, s.victims[0])
        hesper_note(&s.stage, STAGE_DRIVER)
        if index == FREE_MEMORY:
            result = free_memory(s)
        elif is_about_buffers(index):
            result = serve_buffer(s, index)
        else:
            result = serve(s)
        if index == CREATE_BUFFER:
            feedback_begin(s)
        elif index == BIND_BUFFERS and s.core.feedback_count:
            feedback_bind(s.core, start, s.cursor)
    if result:
        return -1
    if command_result(s) < 0:
        note_failure(s, index)
    settle_if_lost(s.core)
    s.commands += 1
    if flags & FLAG_REPLY:
        hesper_note(&s.stage, STAGE_REPLY)
        if reply(s):
            return -1
    return flags & FLAG_REPLY


cdef set PATIENT = {
    b"vkWaitVirtqueueSeqnoMESA", b"vkExecuteCommandStreamsMESA", b"vkWaitForFences",
    b"vkWaitSemaphores", b"vkGetQueryPoolResults", b"vkQueueWaitIdle", b"vkDeviceWaitIdle",
    b"vkCreateGraphicsPipelines", b"vkCreateComputePipelines",
    b"vkCreateRayTracingPipelinesKHR", b"vkDeferredOperationJoinKHR", b"vkDestroyDevice",
    b"vkCreateInstance", b"vkDestroyInstance", b"vkCreateDevice",
}


cdef HotKind hot_kind(const hesper_command *c) noexcept:
    """How much of a command can be left out."""
    cdef const hesper_op *op = &hesper_ops[c.in_]
    if (c.refused != NULL or c.call == NULL or c.result != RESULT_VOID or c.out_count
            or c.new_type or c.destroys or c.in_count == 0):
        return HOT_NO
    if op.code != OP_HANDLE or op.ref != COMMAND_BUFFER or not op.flags & FLAG_FIRST:
        return HOT_NO
    if c.name == b"vkCmdCopyBuffer":
        return HOT_COPY
    if c.name == b"vkCmdFillBuffer":
        return HOT_FILL
    if c.name == b"vkCmdCopyQueryPoolResults":
        return HOT_QUERIES
    if (c.in_count == 2 and op[1].code == OP_COPY and op[1].offset == 8
            and op[1].size <= 8 * (PARAMETER_WORDS - 1)):
        return HOT_WORDS
    return HOT_RECORD


cdef int fill_hot(Core *core) except -1:
    """Make the table the loop works with; commands with a handler stay out of it."""
    cdef uint32_t number
    cdef uint32_t index
    cdef const hesper_command *c
    for number in range(hesper_number_count):
        index = hesper_command_index[number]
        if index == 0xffff:
            continue
        c = &hesper_commands[index]
        core.with_lost_device[index] = c.name in WITH_LOST_DEVICE
        core.harmless[index] = c.name in HARMLESS
        core.hot[number].call = c.call
        core.hot[number].index = <uint16_t>index
        core.hot[number].patient = c.name in PATIENT
        core.hot[number].kind = <uint8_t>(HOT_NO if core.handled[index] else hot_kind(c))
        if core.hot[number].kind == HOT_WORDS:
            core.hot[number].words = <uint16_t>hesper_ops[c.in_ + 1].size
    return 0


cdef inline void name_colour(Stream *s, uint32_t index) noexcept nogil:
    """The one memory plane of an image with a DRM format modifier is its colour.

    On the host such images are linear ones without a modifier (`guest/modifiers.py`).
    """
    cdef uint8_t *subresource = (<uint8_t **>(s.parameters + 16))[0]
    cdef uint32_t *aspect = <uint32_t *>(subresource + (16 if index == SUBRESOURCE_LAYOUT_2 else 0))
    if subresource != NULL and aspect[0] == ASPECT_MEMORY_PLANE_0:
        aspect[0] = ASPECT_COLOR


cdef int run_transport(Stream *s, uint32_t index) noexcept nogil:
    """Commands of the transport that need no policy."""
    if index == EXECUTE_STREAMS:
        return execute_streams(s)
    if index == SET_REPLY:
        return set_reply(s)
    if index == SEEK_REPLY:
        return seek_reply(s, (<uint64_t *>s.parameters)[0])
    if index == WAIT_VIRTQUEUE_SEQNO:
        if s.ring == NULL:
            return fail(s, ERROR_PLACE, NULL, 0)
        return wait_virtqueue(s, (<uint64_t *>s.parameters)[0])
    if s.ring != NULL:
        return fail(s, ERROR_PLACE, NULL, 0)
    return run_ring_command(s, index)


cdef int set_reply(Stream *s) noexcept nogil:
    """vkSetReplyCommandStreamMESA: replies go to a range of a resource from now on."""
    cdef uint8_t *info = (<uint8_t **>s.parameters)[0]
    cdef uint32_t id = (<uint32_t *>info)[0]
    cdef uint64_t offset = (<uint64_t *>(info + 8))[0]
    cdef uint64_t size = (<uint64_t *>(info + 16))[0]
    cdef Core *core = s.core
    cdef Resource *resource
    cdef int result = 0
    pthread_mutex_lock(&core.monitor.mutex)
    resource = stream_find(core, id)
    if resource == NULL or size > resource.size or offset > resource.size - size or offset & 3:
        result = fail(s, ERROR_RESOURCE, NULL, id)
    else:
        s.reply_resource = id
        s.reply_start = resource.data + offset
        s.reply_end = s.reply_start + size
        s.reply = s.reply_start
        populate(resource, offset, size)
    pthread_mutex_unlock(&core.monitor.mutex)
    return result


cdef void populate(Resource *resource, uint64_t offset, uint64_t size) noexcept nogil:
    """Get pages for a reply, and for those that may follow it.

    Mesa takes one reply after the other from a resource of 1 MiB: every hundredth would wait for a
    page to be cleared, and again while the guest maps it, which it does by pieces of this size if
    the pages are there.
    """
    cdef uint64_t start = offset & ~<uint64_t>(POPULATED_BYTES - 1)
    if size > POPULATED_BYTES:
        size = POPULATED_BYTES
    if offset + size <= resource.populated:
        return
    if start < resource.populated:
        start = resource.populated
    size = resource.size - start
    if size > POPULATED_BYTES:
        size = POPULATED_BYTES
    hesper_populate(resource.data + start, size)
    resource.populated = start + size


cdef int seek_reply(Stream *s, uint64_t position) noexcept nogil:
    if s.reply_start == NULL or position > <uint64_t>(s.reply_end - s.reply_start) or position & 3:
        return fail(s, ERROR_REPLY, NULL, position)
    s.reply = s.reply_start + position
    return 0


cdef int execute_streams(Stream *s) noexcept nogil:
    """vkExecuteCommandStreamsMESA: run commands that lie in resources."""
    cdef uint32_t count = (<uint32_t *>s.parameters)[0]
    cdef uint8_t *streams = (<uint8_t **>(s.parameters + 8))[0]
    cdef uint64_t *positions = (<uint64_t **>(s.parameters + 16))[0]
    cdef uint8_t *own_parameters = s.parameters
    cdef const hesper_command *own_command = s.command
    cdef const uint8_t *cursor = s.cursor
    cdef const uint8_t *end = s.end
    cdef const uint8_t *start = s.start
    cdef Arena saved = s.arena
    cdef uint32_t i
    cdef int result = 0
    if s.nested or count == 0:
        return fail(s, ERROR_NESTED, NULL, count)
    s.nested = True
    # The description of the streams lies in the arena; commands inside start behind it.
    for i in range(count):
        if positions != NULL and seek_reply(s, positions[i]):
            result = -1
            break
        if execute_stream(s, streams + 24 * i, &saved):
            result = -1
            break
    s.nested = False
    if result == 0:
        s.command = own_command
        s.parameters = own_parameters
        s.cursor = cursor
        s.end = end
        s.start = start
    return result


cdef int execute_stream(Stream *s, uint8_t *info, Arena *mark) noexcept nogil:
    """Run the commands of one slice of a resource.

    What lies in it, such as an image's contents, may be copied besides what commands may decode to:
    the guest was charged for it.
    """
    cdef uint32_t id = (<uint32_t *>info)[0]
    cdef uint64_t offset = (<uint64_t *>(info + 8))[0]
    cdef uint64_t size = (<uint64_t *>(info + 16))[0]
    cdef size_t limit = s.arena.limit
    cdef Core *core = s.core
    cdef Resource *resource
    cdef int result = 0
    if size == 0:
        return 0
    pthread_mutex_lock(&core.monitor.mutex)
    resource = stream_find(core, id)
    if resource == NULL or size > resource.size or offset > resource.size - size or offset & 3:
        pthread_mutex_unlock(&core.monitor.mutex)
        return fail(s, ERROR_RESOURCE, NULL, id)
    resource.users += 1
    s.start = resource.data + offset
    pthread_mutex_unlock(&core.monitor.mutex)
    s.cursor = s.start
    s.end = s.start + size
    s.arena.limit = limit + size
    while s.cursor < s.end:
        if run_command(s) < 0:
            result = -1
            break
        arena_rewind(&s.arena, mark)
        if hesper_load_acquire(&core.fatal):
            result = fail(s, ERROR_STOPPED, NULL, 0)
            break
    s.arena.limit = limit
    s.bytes += size
    pthread_mutex_lock(&core.monitor.mutex)
    resource.users -= 1
    pthread_cond_broadcast(&core.monitor.condition)
    pthread_mutex_unlock(&core.monitor.mutex)
    return result


cdef inline bint may_run_ahead(Stream *s) noexcept nogil:
    """Whether the next command may be run although a ring is not where it should be by now.

    vkSubmitVirtqueueSeqnoMESA may, if it is for that ring: what the ring then does without waiting
    comes after the fences that were left to it.
    """
    cdef uint32_t number
    if s.end - s.cursor < 16:
        return False
    number = hesper_read_u32(s.cursor)
    if number == <uint32_t>hesper_commands[SUBMIT_VIRTQUEUE_SEQNO].number:
        return hesper_read_u64(s.cursor + 8) == s.core.ahead_of.id
    return number in (<uint32_t>hesper_commands[NOTIFY_RING].number,
                      <uint32_t>hesper_commands[WAIT_RING_SEQNO].number)


cdef int run_span(Stream *s, const uint8_t *data, uint64_t size) noexcept nogil:
    """Run the commands in `size` bytes at `data`, unless the context is poisoned."""
    if hesper_load_acquire(&s.core.fatal):
        return -1
    s.start = data
    s.cursor = data
    s.end = data + size
    while s.cursor < s.end:
        if s.core.ahead_of != NULL and not may_run_ahead(s):
            core_catch_up(s.core)
        if run_command(s) < 0:
            return -1
        arena_reset(&s.arena)
    hesper_note(&s.stage, STAGE_ASLEEP)
    s.bytes += size
    return 0
