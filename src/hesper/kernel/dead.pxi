# Dead objects: ids that the guest takes for objects and the driver has never made.
#
# Mesa sends most commands without waiting and tells its program that they have succeeded.  One that
# fails cannot be told of, and ending the context would end the program for what it could survive:
#
# - What a command fails to make stays as a dead object: it counts as one, is destroyed silently,
#   and goes with its pool and device.  Where the guest has heard of the failure it will hardly name
#   the object again: of those the last few are kept.
# - A command that uses a dead object never reaches the driver.  It has the dead object's result, if
#   it has one, and what it would have made or bound is dead, too.
# - A command buffer that such a command was to be recorded into is dead until it is begun again.
# - Where work would be missing that the guest waits for or builds on (a submission, an update of
#   descriptors), the device is lost: the guest hears of that (`lost.pxi`).

cdef enum:
    DEAD = 1 << 16              # in Entry.type; Entry.extra is the VkResult then
    VK_ERROR_UNKNOWN = -13
    VK_ERROR_FRAGMENTED_POOL = -12
    VK_ERROR_OUT_OF_POOL_MEMORY = -1000069000
    BIND_INFO_SIZE = 40         # VkBindBufferMemoryInfo, VkBindImageMemoryInfo
    BIND_INFO_OBJECT = 16

cdef uint32_t BEGIN_COMMANDS = command_named(b"vkBeginCommandBuffer")
cdef uint32_t RESET_COMMANDS = command_named(b"vkResetCommandBuffer")
cdef uint32_t BIND_BUFFER = command_named(b"vkBindBufferMemory")
cdef uint32_t BIND_IMAGE = command_named(b"vkBindImageMemory")
cdef uint32_t BIND_IMAGES = command_named(b"vkBindImageMemory2")
cdef uint32_t IMAGE_TYPE = handle_named(b"VkImage")

# Without a reply, and nothing is missing where they have failed: they are about what is dead
# itself, or for the eyes only.
cdef set HARMLESS = {
    b"vkWaitForFences", b"vkWaitSemaphores", b"vkSignalSemaphore", b"vkSetEvent", b"vkResetEvent",
    b"vkResetQueryPool", b"vkTrimCommandPool", b"vkMergePipelineCaches",
    b"vkSetDebugUtilsObjectNameEXT", b"vkSetDebugUtilsObjectTagEXT",
    b"vkDebugMarkerSetObjectNameEXT", b"vkDebugMarkerSetObjectTagEXT", b"vkSetPrivateData",
    b"vkSetDeviceMemoryPriorityEXT", b"vkResetFenceResourceMESA", b"vkWaitSemaphoreResourceMESA",
    b"vkImportSemaphoreResourceMESA",
}


cdef inline int32_t dead_result(const Entry *entry) noexcept nogil:
    return <int32_t><uint32_t><uint64_t>entry.extra


cdef inline int32_t command_result(Stream *s) noexcept nogil:
    """The VkResult of the command that has just run, 0 if it has none."""
    if s.command.result != RESULT_I32:
        return 0
    return (<int32_t *>(s.parameters + s.command.result_offset))[0]


cdef inline void set_result(Stream *s, int32_t result) noexcept nogil:
    if s.command.result == RESULT_I32:
        (<int32_t *>(s.parameters + s.command.result_offset))[0] = result


cdef void heard_add(Core *core, uint64_t id) noexcept nogil:
    """Keep a dead object that the guest knows of, in the place of the oldest one."""
    cdef uint64_t oldest
    cdef Entry *entry
    hesper_spin_lock(&core.heard_lock)
    oldest = core.heard[core.heard_next]
    core.heard[core.heard_next] = id
    core.heard_next = (core.heard_next + 1) % HEARD
    entry = object_find(&core.objects, oldest) if oldest else NULL
    if entry != NULL and entry.type & DEAD and entry.handle == 0:
        object_remove(&core.objects, entry)
    hesper_spin_unlock(&core.heard_lock)


cdef bint heard_remove(Core *core, uint64_t id) noexcept nogil:
    """Forget such an object, whose id is used again; False if it is none."""
    cdef Entry *entry
    cdef bint found = False
    cdef uint32_t i
    hesper_spin_lock(&core.heard_lock)
    for i in range(HEARD):
        if core.heard[i] == id:
            core.heard[i] = 0
            entry = object_find(&core.objects, id)
            found = entry != NULL and entry.type & DEAD
            if found:
                object_remove(&core.objects, entry)
    hesper_spin_unlock(&core.heard_lock)
    return found


cdef void object_break(Entry *entry, int32_t result) noexcept nogil:
    """Let a live object be dead from now on; the driver's stays until it is destroyed."""
    cdef uint32_t type = hesper_load_acquire(&entry.type)
    if type != NO_TYPE and not type & DEAD:
        entry.extra = <void *><uint64_t><uint32_t>result
        hesper_replace(&entry.type, type, type | DEAD)


cdef uint64_t note_dead(Stream *s, const hesper_op *op, const Entry *entry) noexcept nogil:
    """Note that a command names a dead object; what stands in the parameters for it.

    The driver has what it can destroy: a command buffer that is dead since something failed for it,
    or a buffer without its memory.
    """
    if op.flags & FLAG_VICTIM and s.command.destroys == 1:
        return entry.handle
    if op.flags & FLAG_FIRST:
        s.dead_first = True
    else:
        s.dead_argument = True
    s.dead = dead_result(entry)
    return entry.handle if op.flags & FLAG_FIRST else 0


cdef int run_lenient(Stream *s, const uint8_t *start, uint32_t index,
                     uint32_t flags) noexcept nogil:
    """Run the command at `start`, which names a dead object, once more from its beginning."""
    cdef int result
    s.error = ERROR_NONE
    s.error_op = NULL
    s.cursor = start
    s.lenient = True
    s.dead = 0
    s.dead_first = False
    s.dead_argument = False
    result = run_whole(s, index, flags)
    s.lenient = False
    return result


cdef int serve_dead(Stream *s, uint32_t index) noexcept nogil:
    """Do in the driver's place what is left to do of a command that names a dead object."""
    cdef New new
    if s.first == NULL:
        return 0
    if s.command.destroys == 1:
        forget_victims(s)
        return 0
    if s.command.destroys == 2:
        clear_pool(s)
        return 0
    if (s.dead_first and not s.dead_argument and s.first.handle
            and (index == BEGIN_COMMANDS or index == RESET_COMMANDS)):
        s.first.extra = <void *>s.first_id
        hesper_store_release(&s.first.type, COMMAND_BUFFER + 1)
        return serve(s)
    set_result(s, s.dead)
    if s.first.type & ~<uint32_t>DEAD == COMMAND_BUFFER + 1:
        object_break(s.first, s.dead)
    elif s.command.new_type:
        if prepare_new(s, &new) or register_new(s, &new):
            return -1
        restore_ids(&new)
    elif s.command.result == RESULT_VOID and not s.wants_reply and not s.core.harmless[index]:
        device_lose(s.core, device_of(s), s.command.name)
    return 0


cdef void note_failure(Stream *s, uint32_t index) noexcept nogil:
    """Look at the result of the command that has just run, and has one."""
    cdef int32_t result = command_result(s)
    if result >= 0:
        return
    if result == VK_ERROR_DEVICE_LOST:
        device_lose(s.core, device_of(s), s.command.name)
        return
    if is_worth_telling(s, index):
        tell_failure(s, index)
    if s.wants_reply or s.first == NULL or s.command.new_type:
        return
    if s.first.type & ~<uint32_t>DEAD == COMMAND_BUFFER + 1:
        object_break(s.first, result)
    elif index == BIND_BUFFERS or index == BIND_BUFFER:
        break_bound(s, index == BIND_BUFFERS, BUFFER, result)
    elif index == BIND_IMAGES or index == BIND_IMAGE:
        break_bound(s, index == BIND_IMAGES, IMAGE_TYPE, result)
    elif not s.core.harmless[index]:
        device_lose(s.core, device_of(s), s.command.name)


cdef void break_bound(Stream *s, bint is_second, uint32_t type, int32_t result) noexcept nogil:
    """Nothing that memory could not be bound to may be used."""
    cdef uint32_t count = (<uint32_t *>(s.parameters + 8))[0]
    cdef const uint8_t *info = (<const uint8_t *const *>(s.parameters + 16))[0]
    cdef uint32_t i
    if not is_second:
        break_handle(s, type, (<const uint64_t *>(s.parameters + 8))[0], result)
        return
    for i in range(count if info != NULL else 0):
        break_handle(s, type, (<const uint64_t *>(info + BIND_INFO_OBJECT))[0], result)
        info += BIND_INFO_SIZE


cdef void break_handle(Stream *s, uint32_t type, uint64_t handle, int32_t result) noexcept nogil:
    """Break the object with that host handle; a search, for what has failed."""
    cdef Entry *entry = object_with(&s.core.objects, type, handle, s.device)
    if entry != NULL:
        object_break(entry, result)


cdef Entry *object_with(Objects *objects, uint32_t type, uint64_t handle,
                        uint32_t device) noexcept nogil:
    """The live object of a type with that host handle, of a device (0: any); a search, or null."""
    cdef Walk walk
    cdef Entry *entry
    if handle == 0:
        return NULL
    memset(&walk, 0, sizeof(walk))
    entry = object_next(objects, &walk)
    while entry != NULL:
        if (entry.handle == handle and entry.type == type + 1
                and (device == 0 or entry.device == device or entry.device == 0)):
            return entry
        entry = object_next(objects, &walk)
    return NULL


cdef bint is_worth_telling(Stream *s, uint32_t index) noexcept nogil:
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
    if s.core.failure_told[index]:
        return False
    s.core.failure_told[index] = 1
    return True


cdef void tell_failure(Stream *s, uint32_t index) noexcept with gil:
    """Say that the driver has refused a command."""
    tell_reason(s, index, "the driver said so")


cdef object tell_reason(Stream *s, uint32_t index, str reason):
    cdef const uint8_t *info
    facts = {"command": s.command.name.decode(), "result": command_result(s), "reason": reason}
    if index == ALLOCATE_MEMORY:
        info = (<const uint8_t **>(s.parameters + 8))[0]
        if info != NULL:
            facts["size"] = (<const uint64_t *>(info + 16))[0]
            facts["memory_type"] = (<const uint32_t *>(info + 24))[0]
    notice(s.core, "command failed", facts)
