# Fences that a guest asks for behind a vkWaitRingSeqnoMESA.
#
# A ring's thread may be in the driver for as long as a frame takes to draw: Mesa's own drivers wait
# in vkQueueSubmit until what signals a semaphore has been submitted in turn.  The thread of the
# client's socket has more to do meanwhile than to wait for it.  So the stream runs ahead of the
# ring, and a fence that comes next is left to the thread that gets the ring there.  Almost
# everything else has to wait: see `core_catch_up`.

cdef enum:
    MOST_DEFERRED = 1024        # of one ring; a client that asks for more waits


cdef struct Deferred:
    uint32_t seqno              # of the ring, from where on the fence can be asked for
    uint32_t ring_idx
    retired_fn retired
    void *data
    Deferred *next


cdef inline bint is_reached(RingCore *ring, uint32_t seqno) noexcept nogil:
    return <int32_t>(hesper_load_ordered(&ring.published) - seqno) >= 0


cdef void core_catch_up(Core *core) noexcept nogil:
    """Wait until the context's own stream may go on, or the context is at its end.

    That is when the ring has come to where it waits for it, and has asked for all fences that were
    left to it: those that follow are asked for here, and may not overtake them.
    """
    cdef RingCore *ring = core.ahead_of
    if ring == NULL:
        return
    core.ahead_of = NULL
    ring_await(ring, core.ahead_seqno)
    pthread_mutex_lock(&ring.monitor.mutex)
    while ((ring.deferred != NULL or ring.asking)
           and not hesper_load_acquire(&core.fatal) and not hesper_load_acquire(&core.stopping)):
        hesper_monitor_wait_for(&ring.monitor, WAIT_NS)
    pthread_mutex_unlock(&ring.monitor.mutex)


cdef bint defer_fence(Core *core, uint32_t ring_idx, retired_fn retired,
                      void *data) noexcept nogil:
    """Leave a fence to the ring that the stream has run ahead of; False if it need not be left."""
    cdef RingCore *ring = core.ahead_of
    cdef uint32_t seqno = core.ahead_seqno
    cdef Deferred *fence = <Deferred *>malloc(sizeof(Deferred))
    if fence == NULL or ring.deferred_count == MOST_DEFERRED:
        free(fence)
        core_catch_up(core)
        return False
    fence.seqno = seqno
    fence.ring_idx = ring_idx
    fence.retired = retired
    fence.data = data
    fence.next = NULL
    pthread_mutex_lock(&ring.monitor.mutex)
    if ring.deferred == NULL and not ring.asking and is_reached(ring, seqno):
        core.ahead_of = NULL
        pthread_mutex_unlock(&ring.monitor.mutex)
        free(fence)
        return False
    if ring.deferred == NULL:
        ring.deferred = fence
    else:
        ring.deferred_last.next = fence
    ring.deferred_last = fence
    ring.deferred_count += 1
    hesper_set_bits(&ring.waited, WAITED_BY_FENCE)
    pthread_mutex_unlock(&ring.monitor.mutex)
    # The ring may have got there before it could see that bit.
    if is_reached(ring, seqno):
        ring_ask(ring)
    return True


cdef void ring_ask(RingCore *ring) noexcept nogil:
    """Ask for the fences that the ring has come to, in their order.

    One thread at a time does; it looks once more, with the monitor held, before it stops.
    """
    cdef Core *core = ring.stream.core
    cdef Deferred *fence
    cdef TimelineCore *timeline
    pthread_mutex_lock(&ring.monitor.mutex)
    if ring.asking:
        pthread_mutex_unlock(&ring.monitor.mutex)
        return
    ring.asking = True
    while ring.deferred != NULL and is_reached(ring, ring.deferred.seqno):
        fence = ring.deferred
        ring.deferred = fence.next
        ring.deferred_count -= 1
        pthread_mutex_unlock(&ring.monitor.mutex)
        timeline = core_timeline(core, fence.ring_idx)
        if timeline == NULL:
            fence.retired(fence.data, False)
        else:
            timeline_fence(timeline, fence.retired, fence.data, False)
        free(fence)
        pthread_mutex_lock(&ring.monitor.mutex)
    ring.asking = False
    if ring.deferred == NULL:
        hesper_clear_bits(&ring.waited, WAITED_BY_FENCE)
    pthread_cond_broadcast(&ring.monitor.condition)
    pthread_mutex_unlock(&ring.monitor.mutex)


cdef void ring_drop_deferred(RingCore *ring) noexcept nogil:
    """Call the fences through that the ring, whose thread has ended, will not come to."""
    cdef Deferred *fence
    while ring.deferred != NULL:
        fence = ring.deferred
        ring.deferred = fence.next
        fence.retired(fence.data, False)
        free(fence)
