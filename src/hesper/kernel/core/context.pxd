"""What both doors ask of a context: commands, fences, blobs, and its end.

Only one thread at a time may use them, that of the context's own stream.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc

from hesper_commands cimport (
    COMMAND_vkNotifyRingMESA, COMMAND_vkSubmitVirtqueueSeqnoMESA, COMMAND_vkWaitRingSeqnoMESA,
    WIRE_vkSubmitVirtqueueSeqnoMESA_ring, WIRE_vkSubmitVirtqueueSeqnoMESA_seqno)

from hesper.kernel.core.arena cimport arena_reset
from hesper.kernel.core.ledger cimport LIMIT_FENCES, Ledger, ledger_note
from hesper.kernel.core.memory cimport memory_share
from hesper.kernel.core.platform cimport (
    hesper_count, hesper_load_acquire, hesper_load_u64, hesper_note, hesper_read_u32,
    hesper_read_u64, hesper_set_bits, hesper_store_release, pthread_cond_broadcast,
    pthread_mutex_lock, pthread_mutex_unlock)
from hesper.kernel.core.progress cimport core_catch_up, defer_fence, ring_wake
from hesper.kernel.core.recording cimport piece_end, recording_begin, recording_settle
from hesper.kernel.core.resources cimport (
    resource_add, resource_find, resource_free, resource_unlink)
from hesper.kernel.core.shm_pool cimport ShmRegion, region_release
from hesper.kernel.core.state cimport (
    STAGE_ASLEEP, STATUS_FATAL, Core, Resource, RingCore, Stream, TimelineCore, retired_fn)
from hesper.kernel.core.tables cimport hesper_command_index, hesper_number_count
from hesper.kernel.core.taped cimport (
    AnyStream, TapedFence, plain, run_next, tape_fence, taped_retired)
from hesper.kernel.core.timeline cimport core_timeline, timeline_fence


cdef inline void core_poison(Core *core) noexcept nogil:
    """Stop everything: FATAL on all rings, all waits ended."""
    cdef RingCore *ring
    hesper_store_release(&core.fatal, 1)
    hesper_store_release(&core.pool.ledger.ending, 1)
    pthread_mutex_lock(&core.monitor.mutex)
    ring = core.rings
    while ring != NULL:
        hesper_set_bits(ring.status, STATUS_FATAL)
        ring_wake(ring)
        ring = ring.chain
    pthread_cond_broadcast(&core.monitor.condition)
    pthread_mutex_unlock(&core.monitor.mutex)


cdef inline bint may_run_ahead(Stream *s) noexcept nogil:
    """Whether the next command may be run although a ring is not where it should be by now.

    vkSubmitVirtqueueSeqnoMESA may, if it is for that ring: what the ring then does without waiting
    comes after the fences that were left to it.
    """
    cdef uint32_t number
    cdef uint32_t index
    if s.end - s.cursor < WIRE_vkSubmitVirtqueueSeqnoMESA_seqno:
        return False
    number = hesper_read_u32(s.cursor)
    if number >= hesper_number_count:
        return False
    index = hesper_command_index[number]
    if index == COMMAND_vkSubmitVirtqueueSeqnoMESA:
        return (hesper_read_u64(s.cursor + WIRE_vkSubmitVirtqueueSeqnoMESA_ring)
                == s.core.ahead_of.id)
    return index == COMMAND_vkNotifyRingMESA or index == COMMAND_vkWaitRingSeqnoMESA


cdef inline int run_span(Stream *s, const uint8_t *data, uint64_t size) noexcept nogil:
    """Run the commands in `size` bytes at `data`, unless the context is poisoned."""
    if hesper_load_acquire(&s.core.fatal):
        return -1
    if s.core.up.run_span != NULL:
        return s.core.up.run_span(s, data, size)
    return span_commands(s, data, size)


cdef inline int span_commands(AnyStream *which, const uint8_t *data,
                              uint64_t size) noexcept nogil:
    """Run the commands in `size` bytes at `data`."""
    cdef Stream *s = plain(which)
    cdef const uint8_t *piece
    s.start = data
    s.cursor = data
    s.end = data + size
    recording_begin(s)
    while s.cursor < s.end:
        piece = piece_end(s)
        while s.cursor < piece:
            if s.core.ahead_of != NULL and not may_run_ahead(s):
                core_catch_up(s.core)
            if run_next(which) < 0:
                return -1
            arena_reset(&s.arena)
        recording_settle(s)
    hesper_note(&s.stage, STAGE_ASLEEP)
    hesper_count(&s.bytes, size)
    return 0


cdef inline int core_fence(Core *core, uint32_t ring_idx, retired_fn retired, void *data,
                           TimelineCore **held) noexcept nogil:
    """`Engine.fence`; -1 for a timeline that is bound to no queue, -2 where too many are pending.

    held: null, or becomes the timeline that the caller has to look at from now on.
    """
    cdef TimelineCore *timeline = core_timeline(core, ring_idx)
    cdef Ledger *ledger = &core.pool.ledger
    cdef TapedFence *taped = NULL
    if timeline == NULL and ring_idx and not hesper_load_acquire(&core.fatal):
        return -1
    if (timeline != NULL and hesper_load_u64(&ledger.count[LIMIT_FENCES])
            >= ledger.most[LIMIT_FENCES]):
        ledger_note(ledger, LIMIT_FENCES)
        return -2
    if core.tape != NULL:
        taped = tape_fence(core, ring_idx, retired, data)
        if taped != NULL:
            retired = taped_retired
            data = taped
    if core.ahead_of != NULL and defer_fence(core, ring_idx, retired, data):
        return 0
    if timeline == NULL:
        retired(data, False)
    elif timeline_fence(timeline, retired, data, held != NULL):
        held[0] = timeline
    return 0


cdef inline int blob_create(Core *core, uint32_t id, uint64_t memory, uint64_t size,
                            bint apart) noexcept nogil:
    """Make resource `id` of a VkDeviceMemory; its descriptor, or -1: Python knows what is wrong."""
    cdef ShmRegion *region = memory_share(core, memory, apart)
    cdef Resource *resource
    if region == NULL:
        return -1
    resource = <Resource *>calloc(1, sizeof(Resource))
    if resource == NULL:
        region_release(core.pool, region)
        return -1
    resource.id = id
    resource.size = size
    resource.region = region
    if not 0 < size <= region.size or not resource_add(core, resource):
        resource_free(core, resource)
        return -1
    return region.fd


cdef inline bint blob_destroy(Core *core, uint32_t id) noexcept nogil:
    """Forget a resource of a VkDeviceMemory; False: there is none, or streams may lie in it."""
    cdef Resource *resource
    pthread_mutex_lock(&core.monitor.mutex)
    resource = resource_find(core, id)
    if resource != NULL:
        resource = NULL if resource.is_stream else resource_unlink(core, id)
    pthread_mutex_unlock(&core.monitor.mutex)
    if resource == NULL:
        return False
    resource_free(core, resource)
    return True
