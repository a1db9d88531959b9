"""Commands of a context with a tape: each is noted when it has run.

What runs them has copied them out of the guest's memory before, so that what is noted is what was
decoded.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from hesper_commands cimport (
    COMMAND_vkQueueBindSparse, COMMAND_vkQueueSubmit, COMMAND_vkQueueSubmit2, COMMAND_vkSetEvent,
    COMMAND_vkSignalSemaphore)

from hesper.kernel.core.dispatch cimport run_command
from hesper.kernel.core.platform cimport (
    hesper_add_u64, hesper_load_acquire, hesper_read_u32, pthread_mutex_lock, pthread_mutex_unlock)
from hesper.kernel.core.resources cimport resource_find
from hesper.kernel.core.shm_pool cimport ShmRegion, region_share
from hesper.kernel.core.state cimport Core, Resource, Stream, retired_fn
from hesper.kernel.core.tables cimport NO_COMMAND, hesper_command_index, hesper_number_count
from hesper.kernel.core.tape cimport (
    TAPE_BEGUN, TAPE_BLOB, TAPE_COMMAND, TAPE_FAILED, TAPE_FENCE, TAPE_GONE, TAPE_IS_FAILED,
    TAPE_NESTED, TAPE_REPLIED, TAPE_RETIRED, Tape, TapeBlob, TapeCommand, TapeFence, TapeHead,
    tape_add, tape_drop, tape_last, tape_memories, tape_now, tape_put, tape_running, tape_say)


cdef inline bint submits(uint32_t index) noexcept nogil:
    """Whether the device may read from now on what the guest has written until now."""
    return (index == COMMAND_vkQueueSubmit or index == COMMAND_vkQueueSubmit2
            or index == COMMAND_vkQueueBindSparse or index == COMMAND_vkSignalSemaphore
            or index == COMMAND_vkSetEvent)


cdef inline int run_taped(Stream *s) noexcept nogil:
    """`run_command`, noted; the stream is a copy of the guest's."""
    cdef Tape *tape = s.core.tape
    cdef const uint8_t *begin = s.cursor
    cdef const uint8_t *end = s.end
    cdef const uint8_t *reply = s.reply
    cdef bint nested = s.nested
    cdef uint64_t stream = s.ring.id if s.ring != NULL else 0
    cdef uint32_t number
    cdef uint32_t index
    cdef int result
    cdef TapeHead head
    cdef TapeCommand body
    if hesper_load_acquire(&tape.over):
        return run_command(s)
    number = hesper_read_u32(begin) if end - begin >= 4 else hesper_number_count
    index = hesper_command_index[number] if number < hesper_number_count else NO_COMMAND
    if index != NO_COMMAND and not s.core.hot[number].records:
        if submits(index):
            tape_memories(tape, stream)
        tape_say(tape, TAPE_BEGUN, stream, &number, sizeof(number))
    if s.tape_running == NULL:
        s.tape_running = tape_running(tape, stream)
    if s.tape_running != NULL:
        s.tape_running.end = end
        s.tape_running.begin = begin
    memset(&head, 0, sizeof(head))
    head.kind = TAPE_COMMAND
    head.stream = stream
    head.time = tape_now(tape)
    result = run_command(s)
    body.duration = tape_now(tape) - head.time
    body.reply = 0
    body.zero = 0
    if nested:
        head.flags |= TAPE_NESTED
    if result < 0:
        head.flags |= TAPE_IS_FAILED
        if end - begin > TAPE_FAILED:
            end = begin + TAPE_FAILED
    else:
        end = s.cursor
        if result and s.reply > reply:
            head.flags |= TAPE_REPLIED
            body.reply = <uint32_t>(s.reply - reply)
    tape_put(tape, &head, &body, sizeof(body), begin, <uint64_t>(end - begin), reply, body.reply)
    if s.tape_running != NULL:
        s.tape_running.begin = NULL
    return result


# One loop over commands, made twice: for streams whose commands are noted, and for all others.

cdef struct TapedStream:
    Stream plain


ctypedef fused AnyStream:
    Stream
    TapedStream


cdef inline Stream *plain(AnyStream *s) noexcept nogil:
    return <Stream *>s


cdef inline int run_next(AnyStream *s) noexcept nogil:
    """Run the command at the cursor."""
    if AnyStream is TapedStream:
        return run_taped(&s.plain)
    else:
        return run_command(s)


# Resources.

cdef inline void taped_blob(Core *core, uint32_t id, uint64_t memory, uint64_t size,
                            uint32_t flags, bint apart) noexcept nogil:
    """Note a resource that the guest has made, and look at its memory from now on."""
    cdef TapeBlob blob
    cdef Resource *resource
    cdef ShmRegion *region = NULL
    blob.resource = id
    blob.flags = flags
    blob.memory = memory
    blob.size = size
    tape_say(core.tape, TAPE_BLOB, 0, &blob, sizeof(blob))
    if memory == 0:
        return                  # what streams lie in is noted as commands
    pthread_mutex_lock(&core.monitor.mutex)
    resource = resource_find(core, id)
    if resource != NULL and resource.region != NULL and resource.region.data != NULL:
        region = resource.region
        region_share(core.pool, region)
    pthread_mutex_unlock(&core.monitor.mutex)
    if region != NULL:
        tape_add(core.tape, core.pool, region, &blob, apart)


cdef inline void taped_gone(Core *core, uint32_t id) noexcept nogil:
    """Note that a resource is given back, and what it held."""
    tape_last(core.tape, id)
    tape_drop(core.tape, id)
    tape_say(core.tape, TAPE_GONE, 0, &id, sizeof(id))


# Fences.

cdef struct TapedFence:
    retired_fn retired
    void *data
    Tape *tape
    TapeFence fence


cdef inline void taped_retired(void *data, bint lost) noexcept nogil:
    cdef TapedFence *taped = <TapedFence *>data
    taped.fence.lost = lost
    tape_say(taped.tape, TAPE_RETIRED, 0, &taped.fence, sizeof(taped.fence))
    taped.retired(taped.data, lost)
    free(taped)


cdef inline TapedFence *tape_fence(Core *core, uint32_t timeline, retired_fn retired,
                                   void *data) noexcept nogil:
    """Note that a fence is asked for; what is to be retired in its place, or null."""
    cdef TapedFence *taped = <TapedFence *>malloc(sizeof(TapedFence))
    if taped == NULL:
        return NULL
    taped.retired = retired
    taped.data = data
    taped.tape = core.tape
    taped.fence.timeline = timeline
    taped.fence.lost = 0
    taped.fence.number = hesper_add_u64(&core.tape.fences, 1)
    tape_say(core.tape, TAPE_FENCE, 0, &taped.fence, sizeof(taped.fence))
    return taped
