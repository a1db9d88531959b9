"""Rings: commands in shared memory, and the thread that waits for them."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from hesper_commands cimport (
    COMMAND_vkNotifyRingMESA, COMMAND_vkSubmitVirtqueueSeqnoMESA, COMMAND_vkWaitRingSeqnoMESA,
    COMMAND_vkWaitVirtqueueSeqnoMESA, COMMAND_vkWriteRingExtraMESA, vkNotifyRingMESA_parameters,
    vkSubmitVirtqueueSeqnoMESA_parameters, vkWaitRingSeqnoMESA_parameters,
    vkWaitVirtqueueSeqnoMESA_parameters, vkWriteRingExtraMESA_parameters)

from hesper.kernel.core.arena cimport arena_free, arena_reset
from hesper.kernel.core.dispatch cimport put_override
from hesper.kernel.core.platform cimport *
from hesper.kernel.core.polling cimport (
    POLL_BORROWED, POLL_COMMANDS, POLL_SEQNO, POLL_VIRTQUEUE, Poll, poll_begin, poll_came,
    poll_step)
from hesper.kernel.core.progress cimport (
    core_catch_up, is_reached, ring_await, ring_publish, ring_settle, ring_wake)
from hesper.kernel.core.recording cimport piece_end, recording_begin, recording_settle
from hesper.kernel.core.shares cimport share_holds
from hesper.kernel.core.state cimport (
    ERROR_NONE, ERROR_PLACE, ERROR_RING, ERROR_STOPPED, STAGE_ASLEEP, STAGE_WAIT, STATUS_IDLE,
    Core, RingCore, Stream, fail)
from hesper.kernel.core.tables cimport hesper_number_count
from hesper.kernel.core.taped cimport AnyStream, run_next


cdef enum:
    BORROWED = 8                # commands that the notifying thread runs at most
    RING_COST = 192 << 10       # of its thread and its arena, besides a copy of its buffer


cdef inline RingCore *ring_find(Core *core, uint64_t id) noexcept nogil:
    """The ring with that id; the core's monitor is held."""
    cdef RingCore *ring = core.rings
    while ring != NULL and ring.id != id:
        ring = ring.chain
    return ring


cdef inline RingCore *named_ring(Stream *s, uint64_t id) noexcept nogil:
    """The ring that a command of the context's own stream is about; null with the error noted."""
    cdef RingCore *ring
    if s.ring != NULL:
        fail(s, ERROR_PLACE, NULL, 0)
        return NULL
    pthread_mutex_lock(&s.core.monitor.mutex)
    ring = ring_find(s.core, id)
    pthread_mutex_unlock(&s.core.monitor.mutex)
    if ring == NULL:
        fail(s, ERROR_RING, NULL, id)
    return ring


cdef inline int notify_ring(Stream *s) noexcept nogil:
    """vkNotifyRingMESA: run what waits in a ring whose thread may be asleep, and wake that thread.

    A thread takes tens of microseconds to wake up, most of what a guest waits for its first
    answer after a pause.
    """
    cdef RingCore *ring = named_ring(s, (<vkNotifyRingMESA_parameters *>s.parameters).ring)
    if ring == NULL:
        return -1
    ring_take_over(ring)
    ring_wake(ring)
    return 0


cdef inline int write_ring_extra(Stream *s) noexcept nogil:
    """vkWriteRingExtraMESA."""
    cdef vkWriteRingExtraMESA_parameters *block = <vkWriteRingExtraMESA_parameters *>s.parameters
    cdef RingCore *ring = named_ring(s, block.ring)
    if ring == NULL:
        return -1
    if block.offset & 3 or ring.extra_size < 4 or block.offset > ring.extra_size - 4:
        return fail(s, ERROR_RING, NULL, block.offset)
    hesper_store_release(<uint32_t *>(ring.extra + block.offset), block.value)
    return 0


cdef inline int submit_virtqueue(Stream *s) noexcept nogil:
    """vkSubmitVirtqueueSeqnoMESA: the context's own stream has come to a number."""
    cdef vkSubmitVirtqueueSeqnoMESA_parameters *block = (
        <vkSubmitVirtqueueSeqnoMESA_parameters *>s.parameters)
    cdef RingCore *ring = named_ring(s, block.ring)
    if ring == NULL:
        return -1
    pthread_mutex_lock(&ring.monitor.mutex)
    hesper_store_u64(&ring.virtqueue_seqno, block.seqno)
    ring.notified = 1
    pthread_cond_broadcast(&ring.monitor.condition)
    pthread_mutex_unlock(&ring.monitor.mutex)
    return 0


cdef inline int wait_ring(Stream *s) noexcept nogil:
    """vkWaitRingSeqnoMESA: go on when the ring has done everything before a number.

    Or run ahead of it, for as long as nothing minds.
    """
    cdef vkWaitRingSeqnoMESA_parameters *block = <vkWaitRingSeqnoMESA_parameters *>s.parameters
    cdef RingCore *ring = named_ring(s, block.ring)
    cdef uint32_t seqno = <uint32_t>block.seqno
    cdef Core *core = s.core
    if ring == NULL:
        return -1
    if <int32_t>(hesper_load_acquire(ring.tail) - seqno) < 0:
        # Nothing of what the guest has written so far reaches it: it never would.
        return fail(s, ERROR_RING, NULL, seqno)
    if core.ahead_of != ring:
        core_catch_up(core)
    if is_reached(ring, seqno):
        return 0
    # What is left may be a few commands that have just been written: running them here saves two
    # switches of threads.
    ring_take_over(ring)
    ring_wake(ring)
    poll_begin(&s.poll, POLL_SEQNO)
    while not is_reached(ring, seqno):
        if poll_step(&s.poll, &core.polling):
            continue
        if core.runs_ahead and not s.nested:
            core.ahead_of = ring
            core.ahead_seqno = seqno
            return 0
        ring_await(ring, seqno)
        break
    if hesper_load_acquire(&core.fatal):
        return fail(s, ERROR_STOPPED, NULL, 0)
    return 0


cdef inline int wait_virtqueue(Stream *s) noexcept nogil:
    """vkWaitVirtqueueSeqnoMESA: go on when the context's own stream has come to a number."""
    cdef RingCore *ring = s.ring
    cdef uint64_t seqno = (<vkWaitVirtqueueSeqnoMESA_parameters *>s.parameters).seqno
    if ring == NULL:
        return fail(s, ERROR_PLACE, NULL, 0)
    if ring.borrowed:
        # The guest has changed the command since it was looked at: it would wait for itself.
        return fail(s, ERROR_PLACE, NULL, 0)
    ring_settle(ring)
    poll_begin(&ring.virtqueue_poll, POLL_VIRTQUEUE)
    while (hesper_load_u64(&ring.virtqueue_seqno) < seqno
           and poll_step(&ring.virtqueue_poll, &s.core.polling)):
        pass
    pthread_mutex_lock(&ring.monitor.mutex)
    while (ring.virtqueue_seqno < seqno and not hesper_load_acquire(&ring.stopping)
           and not hesper_load_acquire(&s.core.fatal)):
        pthread_cond_wait(&ring.monitor.condition, &ring.monitor.mutex)
    pthread_mutex_unlock(&ring.monitor.mutex)
    if ring.virtqueue_seqno < seqno:
        return fail(s, ERROR_STOPPED, NULL, 0)
    return 0


cdef inline int ring_run(RingCore *ring, uint32_t tail, uint32_t limit) noexcept nogil:
    """Run what stands between the ring's position and `tail`.

    limit: 0, or how many commands at most, and none that may take long.
    """
    cdef Stream *s = &ring.stream
    cdef uint32_t size = tail - ring.position
    cdef uint32_t offset = ring.position & ring.mask
    cdef uint32_t first = ring.size - offset
    cdef const uint8_t *data = ring.buffer + offset
    if size > ring.size or size & 3:
        s.command = NULL
        return fail(s, ERROR_RING, NULL, size)
    if s.core.up.run_ring != NULL:
        return s.core.up.run_ring(ring, tail, limit)
    if size > first:
        memcpy(ring.linear, data, first)
        memcpy(ring.linear + first, ring.buffer, size - first)
        data = ring.linear
    return ring_commands(&ring.stream, ring, data, size, limit)


cdef inline int ring_commands(AnyStream *which, RingCore *ring, const uint8_t *data, uint32_t size,
                              uint32_t limit) noexcept nogil:
    """Run what a ring, whose stream is `which`, has at its position: `size` bytes at `data`."""
    cdef Stream *s = &ring.stream
    cdef uint32_t done
    cdef const uint8_t *piece
    cdef int result
    s.start = data
    s.cursor = data
    s.end = data + size
    recording_begin(s)
    piece = piece_end(s)
    while s.cursor < piece:
        if limit:
            limit -= 1
            if limit == 0 or may_block(s.core, hesper_read_u32(s.cursor)):
                break
        ring.current = ring.position + <uint32_t>(s.cursor - data)
        result = run_next(which)
        if result < 0:
            return -1
        arena_reset(&s.arena)
        done = ring.position + <uint32_t>(s.cursor - data)
        # The guest waits for a reply, or may soon wait for room.
        if result or done - ring.published > ring.size >> 2:
            ring_publish(ring, done)
        if s.cursor >= piece:
            recording_settle(s)
            piece = piece_end(s)
    recording_settle(s)
    done = ring.position + <uint32_t>(s.cursor - data)
    hesper_count(&s.bytes, done - ring.position)
    hesper_note(&ring.position, done)
    ring_publish(ring, done)
    hesper_note(&s.stage, STAGE_WAIT)
    return 0


cdef inline bint may_block(Core *core, uint32_t number) noexcept nogil:
    return number < hesper_number_count and core.hot[number].may_block


cdef inline bint ring_take_over(RingCore *ring) noexcept nogil:
    """Run a few commands that wait in a ring; its thread must be woken after that.

    None that may wait, nor any while the context is over its share of the GPU's time: the thread
    that does this has a socket to serve.
    Returns whether there may be more to be done, or seen to be done, by the next try.
    """
    cdef uint32_t tail
    cdef bint more = False
    if share_holds(ring.stream.core):
        return False
    if not hesper_try_lock(&ring.owned):
        return True
    ring.borrowed = 1
    # The ring's thread may have gone back to sleep since the guest notified it, and nobody would
    # wake it without that bit.
    hesper_clear_bits(ring.status, STATUS_IDLE)
    tail = hesper_load_acquire(ring.tail)
    if tail != ring.position and ring.stream.error == ERROR_NONE \
            and not hesper_load_acquire(&ring.stream.core.fatal):
        # An error stays noted; the ring's own thread finds it.
        more = ring_run(ring, tail, BORROWED + 1) == 0 and not may_block(
            ring.stream.core, hesper_read_u32(ring.buffer + (ring.position & ring.mask)))
    ring.borrowed = 0
    hesper_spin_unlock(&ring.owned)
    return more


cdef inline void ring_sleep(RingCore *ring) noexcept nogil:
    """Say IDLE and block until the guest notifies."""
    cdef Core *core = ring.stream.core
    hesper_store_release(&ring.notified, 0)
    hesper_set_bits(ring.status, STATUS_IDLE)
    if hesper_load_ordered(ring.tail) == hesper_noted(&ring.position):
        hesper_note(&ring.stream.stage, STAGE_ASLEEP)
        pthread_mutex_lock(&ring.monitor.mutex)
        while not (ring.notified or hesper_load_acquire(&ring.stopping)
                   or hesper_load_acquire(&core.fatal)):
            pthread_cond_wait(&ring.monitor.condition, &ring.monitor.mutex)
        pthread_mutex_unlock(&ring.monitor.mutex)
        hesper_note(&ring.stream.stage, STAGE_WAIT)
    hesper_clear_bits(ring.status, STATUS_IDLE)


cdef inline void ring_await_borrower(RingCore *ring) noexcept nogil:
    """Wait for the thread that runs this ring's commands: it wakes the ring after that."""
    cdef Core *core = ring.stream.core
    poll_begin(&ring.borrow_poll, POLL_BORROWED)
    while hesper_load_acquire(&ring.owned) and poll_step(&ring.borrow_poll, &core.polling):
        pass
    pthread_mutex_lock(&ring.monitor.mutex)
    while (hesper_load_acquire(&ring.owned) and not hesper_load_acquire(&ring.stopping)
           and not hesper_load_acquire(&core.fatal)):
        pthread_cond_wait(&ring.monitor.condition, &ring.monitor.mutex)
    pthread_mutex_unlock(&ring.monitor.mutex)


cdef inline int ring_loop(RingCore *ring) noexcept nogil:
    """The ring thread: until it is stopped, or its guest breaks the protocol (-1)."""
    cdef Core *core = ring.stream.core
    cdef Poll *poll = &ring.poll
    cdef hesper_thread thread
    cdef int result = 0
    hesper_precise_sleep()
    hesper_give_way(ring.nice)
    hesper_thread_begin(&thread)
    begin_commands(ring)
    while not (hesper_load_acquire(&ring.stopping) or hesper_load_acquire(&core.fatal)):
        if hesper_load_acquire(ring.tail) == hesper_noted(&ring.position):
            if not poll_step(poll, &core.polling):
                hesper_thread_rest(&thread)
                ring_sleep(ring)
                begin_commands(ring)
            continue
        poll_came(poll)
        if not hesper_try_lock(&ring.owned):
            ring_await_borrower(ring)
            continue
        if ring.stream.error == ERROR_NONE:
            ring_run(ring, hesper_load_acquire(ring.tail), 0)
        hesper_spin_unlock(&ring.owned)
        if ring.stream.error != ERROR_NONE:
            result = -1
            break
        hesper_thread_worked(&thread)
        begin_commands(ring)
    hesper_thread_end(&thread)
    return result


cdef inline void begin_commands(RingCore *ring) noexcept nogil:
    poll_begin(&ring.poll, POLL_COMMANDS)
    ring.poll.until_ns = ring.idle_ns


cdef inline uint64_t ring_cost(const RingCore *ring) noexcept nogil:
    return ring.size + <uint64_t>RING_COST


cdef inline void ring_free(RingCore *ring) noexcept nogil:
    arena_free(&ring.stream.arena)
    hesper_monitor_destroy(&ring.monitor)
    free(ring.linear)
    free(ring)


cdef inline void ring_overrides(Core *core) noexcept nogil:
    put_override(core, COMMAND_vkNotifyRingMESA, notify_ring)
    put_override(core, COMMAND_vkWriteRingExtraMESA, write_ring_extra)
    put_override(core, COMMAND_vkSubmitVirtqueueSeqnoMESA, submit_virtqueue)
    put_override(core, COMMAND_vkWaitVirtqueueSeqnoMESA, wait_virtqueue)
    put_override(core, COMMAND_vkWaitRingSeqnoMESA, wait_ring)
