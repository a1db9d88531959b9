"""GPU time: what a context uses is measured, and who is over its share waits to submit.

A page is shared with the supervisor, which decides (`isolation.shares`).  Measured is for how long
the context has anything submitted that is not done, by fences of our own: one a queue at a time,
asked for by a thread of our own, whatever the number of submissions.

The share's monitor is never held when a queue's is taken, nor the other way round.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from posix.unistd cimport write

from hesper_commands cimport VK_TIMEOUT

from hesper.kernel.core.fences cimport fence_spare, fence_take, fences_destroy, fences_init
from hesper.kernel.core.objects cimport Entry, object_find
from hesper.kernel.core.platform cimport (
    hesper_add_u64, hesper_exchange_u64, hesper_load_acquire, hesper_load_u64,
    hesper_monitor_wait_for, hesper_note, hesper_now_ns, hesper_sleep_ns, hesper_store_u64,
    pthread_cond_broadcast, pthread_cond_wait, pthread_mutex_lock, pthread_mutex_unlock)
from hesper.kernel.core.progress cimport ring_settle
from hesper.kernel.core.state cimport (
    STAGE_WAIT, Core, DeviceState, Fences, QueueState, Share, Stream)


cdef enum:
    # Words of the page, u64; `isolation.sharer` has the same.
    SHARE_TOLD = 0              # by the supervisor: bits below
    SHARE_LOOKS                 # how often the supervisor has looked
    SHARE_BUSY                  # ns for which something was submitted, but the time since
    SHARE_SINCE                 # when it began to be; 0: nothing is
    SHARE_HELD                  # threads that wait to submit
    SHARE_DONE                  # submissions that are done

    TOLD_MEASURE = 1            # it matters what the context uses
    TOLD_HOLD = 2               # it is over its share; who is through wakes the supervisor
    TOLD_WAKE = 4               # the supervisor is to be woken when something is submitted

    LOOK_NS = 200000            # between two looks of a thread that is held
    ONE_QUEUE_NS = 50000000     # of a wait for a fence
    FORGOTTEN_NS = 20 * ONE_QUEUE_NS  # without a look of the supervisor, until nobody is held
    MORE_QUEUES_NS = 1000000    # the same where others have fences, too


cdef inline bint share_holds(Core *core) noexcept nogil:
    """Whether who wants to submit has to wait."""
    return (core.share.page != NULL
            and hesper_load_u64(&core.share.page[SHARE_TOLD]) & TOLD_HOLD != 0)


cdef inline void share_wait(Stream *s) noexcept nogil:
    """Wait until the context may submit; no lock is held, nor anything that was decoded."""
    cdef Core *core = s.core
    cdef uint64_t *page = core.share.page
    cdef uint64_t looks = hesper_load_u64(&page[SHARE_LOOKS])
    cdef uint64_t now = hesper_now_ns()
    cdef uint64_t until = now + <uint64_t>FORGOTTEN_NS
    if s.ring != NULL:
        ring_settle(s.ring)
    hesper_note(&s.stage, STAGE_WAIT)
    hesper_add_u64(&page[SHARE_HELD], 1)
    while (share_holds(core) and now < until and not hesper_load_acquire(&core.stopping)
           and not hesper_load_acquire(&core.fatal)
           and (s.ring == NULL or not hesper_load_acquire(&s.ring.stopping))):
        hesper_sleep_ns(LOOK_NS)
        now = hesper_now_ns()
        if hesper_load_u64(&page[SHARE_LOOKS]) != looks:
            looks = hesper_load_u64(&page[SHARE_LOOKS])
            until = now + <uint64_t>FORGOTTEN_NS
    hesper_add_u64(&page[SHARE_HELD], <uint64_t>-1)


cdef inline void share_wake(Share *share) noexcept nogil:
    """Have the supervisor look."""
    # Where that fails, there is a wake in the pipe already.
    cdef ssize_t _written = write(share.wake, b"", 1)


cdef inline bint share_begin(Core *core, QueueState *queue, Entry *entry) noexcept nogil:
    """Note that a queue is about to be given work; whether `share_end` is to be called after that.

    entry: the queue's.
    """
    cdef Share *share = &core.share
    cdef uint64_t told
    cdef bint woken = False
    if share.page == NULL:
        return False
    told = hesper_load_u64(&share.page[SHARE_TOLD])
    if not told & TOLD_MEASURE:
        return False
    pthread_mutex_lock(&share.monitor.mutex)
    if share.stopping or queue.meter_over or not meter_has(core, queue, entry):
        pthread_mutex_unlock(&share.monitor.mutex)
        return False
    share.inside += 1
    if share.since == 0:
        share.since = hesper_now_ns()
        hesper_exchange_u64(&share.page[SHARE_SINCE], share.since)
        # What holds by now: who wants to be woken from then on looks at the page after that.
        woken = hesper_load_u64(&share.page[SHARE_TOLD]) & TOLD_WAKE != 0
    pthread_mutex_unlock(&share.monitor.mutex)
    if woken:
        share_wake(share)
    return True


cdef inline bint meter_has(Core *core, QueueState *queue, Entry *entry) noexcept nogil:
    """See to it that a queue has fences of the meter's; False without memory.  Monitor held."""
    cdef Entry *device
    if queue.meter != NULL:
        return True
    device = object_find(&core.objects, queue.device.id)
    if device == NULL:
        return False
    queue.meter = <Fences *>calloc(1, sizeof(Fences))
    if queue.meter == NULL:
        return False
    fences_init(queue.meter, <void *>queue.handle, <void *>device.handle, entry.table)
    queue.meter_next = core.share.queues
    core.share.queues = queue
    return True


cdef inline void share_end(Core *core, QueueState *queue) noexcept nogil:
    """A queue has been given work."""
    cdef Share *share = &core.share
    pthread_mutex_lock(&share.monitor.mutex)
    share.inside -= 1
    queue.meter_given += 1
    if share.asleep:
        pthread_cond_broadcast(&share.monitor.condition)
    pthread_mutex_unlock(&share.monitor.mutex)


cdef inline void meter_look(QueueState *queue, uint64_t given, uint64_t wait_ns) noexcept nogil:
    """Ask a queue for a fence, or wait for the one that it has.  No lock is held.

    given: submissions that such a fence covers.
    """
    cdef Fences *f = queue.meter
    if queue.meter_fence == 0:
        pthread_mutex_lock(&queue.monitor.mutex)
        queue.meter_fence = fence_take(f)
        queue.meter_covers = given
        if queue.meter_fence and f.submit(f.queue, 0, NULL, queue.meter_fence):
            fence_spare(f, queue.meter_fence)
            queue.meter_fence = 0
        pthread_mutex_unlock(&queue.monitor.mutex)
        if queue.meter_fence == 0:
            # A lost device, or no memory: what it does is not known.
            queue.meter_done = given
            return
    if f.wait(f.device, 1, &queue.meter_fence, 1, wait_ns) == VK_TIMEOUT:
        return
    fence_spare(f, queue.meter_fence)
    queue.meter_fence = 0
    queue.meter_done = queue.meter_covers


cdef inline QueueState *meter_next_busy(Share *share, uint32_t *count) noexcept nogil:
    """The queue to look at after the last one, or null; and how many there are.  Monitor held."""
    cdef QueueState *queue = share.queues
    cdef QueueState *first = NULL
    cdef QueueState *following = NULL
    cdef bint passed = False
    count[0] = 0
    while queue != NULL:
        if queue.meter_given != queue.meter_done:
            count[0] += 1
            if first == NULL:
                first = queue
            if passed and following == NULL:
                following = queue
        passed = passed or queue == share.last
        queue = queue.meter_next
    return following if following != NULL else first


cdef inline void meter_rest(Share *share) noexcept nogil:
    """Note that all is done; the monitor is held."""
    if share.since == 0:
        return
    share.busy += hesper_now_ns() - share.since
    share.since = 0
    hesper_store_u64(&share.page[SHARE_BUSY], share.busy)
    hesper_store_u64(&share.page[SHARE_SINCE], 0)
    if hesper_load_u64(&share.page[SHARE_TOLD]) & TOLD_HOLD:
        # Who waits for it to be through may go.
        share_wake(share)


cdef inline void meter_loop(Core *core) noexcept nogil:
    """Look at what is submitted until the context ends."""
    cdef Share *share = &core.share
    cdef QueueState *queue
    cdef uint32_t busy
    cdef uint64_t given
    cdef uint64_t done
    pthread_mutex_lock(&share.monitor.mutex)
    while not share.stopping:
        queue = meter_next_busy(share, &busy)
        if queue == NULL:
            if share.inside == 0:
                meter_rest(share)
            share.asleep = True
            pthread_cond_wait(&share.monitor.condition, &share.monitor.mutex)
            share.asleep = False
            continue
        share.current = queue
        share.last = queue
        given = queue.meter_given
        done = queue.meter_done
        pthread_mutex_unlock(&share.monitor.mutex)
        meter_look(queue, given, ONE_QUEUE_NS if busy == 1 else MORE_QUEUES_NS)
        hesper_add_u64(&share.page[SHARE_DONE], queue.meter_done - done)
        pthread_mutex_lock(&share.monitor.mutex)
        share.current = NULL
        if share.forgetting:
            pthread_cond_broadcast(&share.monitor.condition)
            # Who waits for that goes first.
            hesper_monitor_wait_for(&share.monitor, MORE_QUEUES_NS)
    pthread_mutex_unlock(&share.monitor.mutex)


cdef inline void share_forget(Core *core, DeviceState *device) noexcept nogil:
    """Measure nothing of a device any more, whose queues have come to rest or which is lost."""
    cdef Share *share = &core.share
    cdef QueueState **place
    cdef QueueState *queue
    if share.page == NULL:
        return
    pthread_mutex_lock(&share.monitor.mutex)
    share.forgetting += 1
    while share.current != NULL and share.current.device == device:
        hesper_monitor_wait_for(&share.monitor, MORE_QUEUES_NS)
    share.forgetting -= 1
    place = &share.queues
    while place[0] != NULL:
        queue = place[0]
        if queue.device != device:
            place = &queue.meter_next
            continue
        place[0] = queue.meter_next
        if share.last == queue:
            share.last = NULL
        queue.meter_over = True
        if queue.meter_fence:
            # The queue has come to rest: it is signalled, or will be at once.
            queue.meter.wait(queue.meter.device, 1, &queue.meter_fence, 1, FORGOTTEN_NS)
            queue.meter.destroy(queue.meter.device, queue.meter_fence, NULL)
            queue.meter_fence = 0
        fences_destroy(queue.meter)
    # The meter has perhaps nothing more to look at, and is to say so.
    pthread_cond_broadcast(&share.monitor.condition)
    pthread_mutex_unlock(&share.monitor.mutex)


cdef inline void meter_free(QueueState *queue) noexcept nogil:
    """Free what a queue has of the meter; its device is gone."""
    if queue.meter != NULL:
        free(queue.meter.spare)
        free(queue.meter)
