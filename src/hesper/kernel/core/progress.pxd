"""How far rings have come, and what waits for that.

A ring's thread may be in the driver for as long as a frame takes to draw: Mesa's own drivers wait
in vkQueueSubmit until what signals a semaphore has been submitted in turn.  The thread of the
client's socket has more to do meanwhile than to wait for it.  So the context's own stream runs
ahead of the ring, and a fence that a guest asks for behind a vkWaitRingSeqnoMESA is left to the
thread that gets the ring there.  Almost everything else has to wait: see `core_catch_up`.
"""

from libc.stdint cimport int32_t, uint32_t
from libc.stdlib cimport free, malloc

from hesper.kernel.core.platform cimport (
    hesper_clear_bits, hesper_load_acquire, hesper_load_ordered, hesper_monitor_wait_for,
    hesper_set_bits, hesper_store_ordered, hesper_store_release, pthread_cond_broadcast,
    pthread_mutex_lock, pthread_mutex_unlock)
from hesper.kernel.core.state cimport Core, Deferred, RingCore, TimelineCore, retired_fn
from hesper.kernel.core.timeline cimport core_timeline, timeline_fence


cdef enum:
    MOST_DEFERRED = 1024        # of one ring; a client that asks for more waits
    WAIT_NS = 1000000           # between two looks of who is woken when it gets there

    # Bits of RingCore.waited.
    WAITED_BY_STREAM = 1
    WAITED_BY_FENCE = 2


cdef inline void ring_wake(RingCore *ring) noexcept nogil:
    pthread_mutex_lock(&ring.monitor.mutex)
    ring.notified = 1
    pthread_cond_broadcast(&ring.monitor.condition)
    pthread_mutex_unlock(&ring.monitor.mutex)


cdef inline bint is_reached(RingCore *ring, uint32_t seqno) noexcept nogil:
    return <int32_t>(hesper_load_ordered(&ring.published) - seqno) >= 0


cdef inline void ring_await(RingCore *ring, uint32_t seqno) noexcept nogil:
    """Block until the ring has done everything before `seqno`, or the context is at its end."""
    cdef Core *core = ring.stream.core
    pthread_mutex_lock(&ring.monitor.mutex)
    hesper_set_bits(&ring.waited, WAITED_BY_STREAM)
    while (not is_reached(ring, seqno)
           and not hesper_load_acquire(&core.fatal) and not hesper_load_acquire(&core.stopping)):
        hesper_monitor_wait_for(&ring.monitor, WAIT_NS)
    hesper_clear_bits(&ring.waited, WAITED_BY_STREAM)
    pthread_mutex_unlock(&ring.monitor.mutex)


cdef inline void core_catch_up(Core *core) noexcept nogil:
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


cdef inline bint defer_fence(Core *core, uint32_t ring_idx, retired_fn retired,
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


cdef inline void ring_ask(RingCore *ring) noexcept nogil:
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


cdef inline void ring_drop_deferred(RingCore *ring) noexcept nogil:
    """Call the fences through that the ring, whose thread has ended, will not come to."""
    cdef Deferred *fence
    while ring.deferred != NULL:
        fence = ring.deferred
        ring.deferred = fence.next
        fence.retired(fence.data, False)
        free(fence)


cdef inline void ring_publish(RingCore *ring, uint32_t position) noexcept nogil:
    """Tell the guest that everything before `position` is done."""
    cdef uint32_t waited
    hesper_store_release(ring.head, position)
    # Ordered: whoever sets a bit looks at `published` after that, and one of both has to see the
    # other.
    hesper_store_ordered(&ring.published, position)
    waited = hesper_load_ordered(&ring.waited)
    if waited & WAITED_BY_STREAM:
        ring_wake(ring)
    if waited & WAITED_BY_FENCE:
        ring_ask(ring)


cdef inline void ring_settle(RingCore *ring) noexcept nogil:
    """Publish what is done before a command that may wait.

    What it waits for may itself wait for the ring to be done with what came before.
    """
    if ring.published != ring.current:
        ring_publish(ring, ring.current)
