"""Fences of a queue's timeline, retired in the order in which they were asked for."""

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from hesper_commands cimport (
    COMMAND_vkGetFenceStatus, COMMAND_vkQueueSubmit, COMMAND_vkWaitForFences, VK_ERROR_DEVICE_LOST,
    VK_NOT_READY, VK_TIMEOUT)

from hesper.kernel.core.fences cimport fence_spare, fence_submit, fences_init
from hesper.kernel.core.ledger cimport LIMIT_FENCES
from hesper.kernel.core.lost cimport device_lose, is_lost, settle_if_lost, settle_lost
from hesper.kernel.core.objects cimport Entry
from hesper.kernel.core.platform cimport (
    hesper_add_u64, hesper_count, hesper_load_acquire, hesper_load_u64, hesper_monitor_init,
    hesper_monitor_wait_for, hesper_now_ns, hesper_thread, hesper_thread_worked,
    pthread_cond_broadcast, pthread_cond_wait, pthread_mutex_lock, pthread_mutex_unlock)
from hesper.kernel.core.polling cimport POLL_FENCE, poll_begin, poll_step
from hesper.kernel.core.state cimport (
    SPAN_FENCE, SPAN_QUEUE, TIMELINES, Core, Pending, QueueState, TimelineCore, retired_fn)
from hesper.kernel.core.tables cimport hesper_commands
from hesper.kernel.core.watch cimport note_span, watched_now


cdef enum:
    FENCE_WAIT_NS = 250000000   # of one vkWaitForFences: a waiter must notice that it has to stop
    RETIRED_AT_ONCE = 32
    MOST_TIMED = 64             # pending fences of a queue; beyond, none is asked for to time it


cdef inline bint grow_timeline(TimelineCore *t) noexcept nogil:
    """Make room for more pending fences; False without memory."""
    cdef uint32_t capacity = 2 * t.capacity if t.capacity else 16
    cdef Pending *pending = <Pending *>calloc(capacity, sizeof(Pending))
    cdef uint32_t i
    if pending == NULL:
        return False
    for i in range(t.count):
        pending[i] = t.pending[(t.first + i) % t.capacity]
    free(t.pending)
    t.pending = pending
    t.capacity = capacity
    t.first = 0
    return True


cdef inline int32_t timeline_look(TimelineCore *t, uint64_t fence) noexcept nogil:
    """The fence's status, not VK_NOT_READY for a lost device.  The monitor is held."""
    cdef int32_t result = t.fences.status(t.fences.device, fence)
    if result == VK_ERROR_DEVICE_LOST:
        device_lose(t.context, t.queue.device, &hesper_commands[COMMAND_vkGetFenceStatus])
    return VK_ERROR_DEVICE_LOST if is_lost(t.queue.device) else result


cdef inline bint begin_fence(TimelineCore *t, Pending *place) noexcept nogil:
    """Ask the queue for a fence; False if it has nothing to do.  The monitor is held."""
    cdef QueueState *queue = t.queue
    cdef const Pending *last = NULL
    cdef bint busy
    if t.count:
        last = &t.pending[(t.first + t.count - 1) % t.capacity]
    pthread_mutex_lock(&queue.monitor.mutex)
    place.calls = queue.calls
    # Mesa asks for a fence alone where a submission holds nothing.
    busy = t.count != 0 or t.waiting or t.through != place.calls
    if last != NULL and last.fence and last.calls == place.calls and last.unasked:
        # Who watches has asked for one behind the same work: this is through when that is.
        place.fence = 0
    elif busy:
        place.fence = 0 if is_lost(queue.device) else fence_submit(queue)
        if place.fence == 0:
            if queue.fences.result == VK_ERROR_DEVICE_LOST:
                device_lose(t.context, queue.device, &hesper_commands[COMMAND_vkQueueSubmit])
            t.refused = t.refused or not is_lost(queue.device)
    pthread_mutex_unlock(&queue.monitor.mutex)
    return busy


cdef inline void time_fence(TimelineCore *t, const Pending *place) noexcept nogil:
    """Count for how long the queue has worked; once where fences are asked for in a row."""
    cdef uint64_t now = hesper_now_ns()
    cdef uint64_t begin = place.began if place.began > t.last_end else t.last_end
    if not place.unasked:
        note_span(t.context, SPAN_FENCE, t.ring_idx, place.began, now, place.calls)
    if place.fence:
        hesper_count(&t.busy_ns, now - begin)
        t.last_end = now
        note_span(t.context, SPAN_QUEUE, t.ring_idx, begin, now, place.calls)


cdef inline void nobody_waits(void *data, bint lost) noexcept nogil:
    pass


cdef inline void end_fence(TimelineCore *t, const Pending *place) noexcept nogil:
    """A fence is through.  The monitor is held."""
    if place.began:
        time_fence(t, place)
    if place.fence == 0:
        return
    t.through = place.calls
    pthread_mutex_lock(&t.queue.monitor.mutex)
    fence_spare(&t.fences, place.fence)
    pthread_mutex_unlock(&t.queue.monitor.mutex)


cdef inline void count_fence(TimelineCore *t, const Pending *place,
                             uint32_t change) noexcept nogil:
    """One pending fence more, or with -1 less.  The monitor is held."""
    t.count += change
    if place.unasked:
        return                  # a guest's limit counts its own
    hesper_add_u64(&t.context.pool.ledger.count[LIMIT_FENCES], <uint64_t><int32_t>change)


cdef inline bint is_soon_signalled(TimelineCore *t, uint64_t fence) noexcept nogil:
    """Wait a little for `fence`, if the queue's work was short lately.  The monitor is held."""
    if not poll_begin(&t.poll, POLL_FENCE):
        return False
    while timeline_look(t, fence) == VK_NOT_READY:
        if not poll_step(&t.poll, &t.context.polling):
            return False
    return True


cdef inline bint timeline_fence(TimelineCore *t, retired_fn retired, void *data,
                                bint hold) noexcept nogil:
    """Call `retired`, here or in the waiter, once the queue has done its work so far.

    A queue that has lost its device, or cannot take a fence, counts as done; so does one whose
    timeline has been stopped.
    hold: whether the caller would rather look at the fence itself; True when it has to do so from
    now on, with `timeline_attend`, until it calls `timeline_leave`.
    """
    cdef Pending *place
    cdef bint began = False
    pthread_mutex_lock(&t.monitor.mutex)
    if t.deadline or (t.count == t.capacity and not grow_timeline(t)):
        pthread_mutex_unlock(&t.monitor.mutex)
        retired(data, is_lost(t.queue.device))
        return False
    place = &t.pending[(t.first + t.count) % t.capacity]
    place.retired = retired
    place.data = data
    place.unasked = False
    place.began = watched_now(t.context)
    if not begin_fence(t, place):
        pthread_mutex_unlock(&t.monitor.mutex)
        retired(data, is_lost(t.queue.device))
    elif hold and place.fence and not t.waiting:
        count_fence(t, place, 1)
        began = not t.held
        t.held = True
        pthread_mutex_unlock(&t.monitor.mutex)
    elif place.fence and t.count == 0 and not t.waiting and is_soon_signalled(t, place.fence):
        end_fence(t, place)
        pthread_mutex_unlock(&t.monitor.mutex)
        settle_if_lost(t.context)
        retired(data, is_lost(t.queue.device))
    else:
        count_fence(t, place, 1)
        # The waiter has to say that the queue has refused a fence.
        t.held = t.held and place.fence != 0
        pthread_mutex_unlock(&t.monitor.mutex)
        # With the monitor held, the waiter would wake up only to wait for it.
        pthread_cond_broadcast(&t.monitor.condition)
    return began


cdef inline bint retire_signalled(TimelineCore *t, uint32_t known) noexcept nogil:
    """Retire the first fences that are signalled, as `known` of them are; the monitor is held.

    It is not when this returns, which says whether the timeline is `held` still.
    """
    cdef Pending through[RETIRED_AT_ONCE]
    cdef Pending *first
    cdef bint held
    cdef uint32_t count = 0
    cdef uint32_t i
    while t.count and count < RETIRED_AT_ONCE:
        first = &t.pending[t.first]
        if (count >= known and first.fence
                and timeline_look(t, first.fence) == VK_NOT_READY):
            break
        through[count] = first[0]
        count += 1
        end_fence(t, first)
        t.first = (t.first + 1) % t.capacity
        count_fence(t, &through[count - 1], <uint32_t>-1)
    held = t.held and t.count != 0
    t.held = held
    pthread_mutex_unlock(&t.monitor.mutex)
    settle_if_lost(t.context)
    for i in range(count):
        through[i].retired(through[i].data, is_lost(t.queue.device))
    return held


cdef inline bint timeline_attend(TimelineCore *t) noexcept nogil:
    """Retire the fences that are signalled; whether the caller has to look at others."""
    pthread_mutex_lock(&t.monitor.mutex)
    if not t.held:
        pthread_mutex_unlock(&t.monitor.mutex)
        return False
    return retire_signalled(t, 0)


cdef inline void timeline_leave(TimelineCore *t) noexcept nogil:
    """Leave the fences to the waiter."""
    pthread_mutex_lock(&t.monitor.mutex)
    t.held = False
    if t.count:
        pthread_cond_broadcast(&t.monitor.condition)
    pthread_mutex_unlock(&t.monitor.mutex)


cdef inline bint is_busy(TimelineCore *t, uint64_t *calls) noexcept nogil:
    """Whether the queue may be at work; calls: how often it was called."""
    cdef QueueState *queue = t.queue
    cdef bint busy
    pthread_mutex_lock(&queue.monitor.mutex)
    calls[0] = queue.calls
    busy = t.through != queue.calls and not is_lost(queue.device)
    pthread_mutex_unlock(&queue.monitor.mutex)
    return busy


cdef inline void rest_until_called(TimelineCore *t, uint64_t calls) noexcept nogil:
    """Wait until somebody submits, unless the queue was called since.  The monitor is held."""
    cdef QueueState *queue = t.queue
    cdef bint called
    pthread_mutex_lock(&queue.monitor.mutex)
    called = queue.calls != calls
    queue.watched = called
    pthread_mutex_unlock(&queue.monitor.mutex)
    if called:
        return
    pthread_cond_wait(&t.monitor.condition, &t.monitor.mutex)


cdef inline bint look_out(TimelineCore *t) noexcept nogil:
    """Ask for a fence that nobody waits for but the waiter.  The monitor is held."""
    cdef Pending *place
    cdef bint wanted = t.fences.wanted
    if t.count == t.capacity and not grow_timeline(t):
        return False
    place = &t.pending[(t.first + t.count) % t.capacity]
    place.retired = nobody_waits
    place.unasked = True
    place.began = 0
    if not begin_fence(t, place):
        return False
    # The guest's submissions need not take any along for this.
    t.fences.wanted = wanted
    if place.fence == 0:
        t.through = place.calls
    else:
        count_fence(t, place, 1)
    return True


cdef inline void timeline_time(TimelineCore *t, uint64_t began) noexcept nogil:
    """Have it noted when the queue is through with what it was given at that time (ns)."""
    cdef Pending *place
    cdef bint asked = False
    pthread_mutex_lock(&t.monitor.mutex)
    if t.deadline == 0 and t.count < MOST_TIMED and (t.count < t.capacity or grow_timeline(t)):
        place = &t.pending[(t.first + t.count) % t.capacity]
        place.retired = nobody_waits
        place.unasked = True
        place.began = began
        asked = begin_fence(t, place) and place.fence != 0
        if asked:
            count_fence(t, place, 1)
    pthread_mutex_unlock(&t.monitor.mutex)
    if asked:
        # With the monitor held, the waiter would wake up only to wait for it.
        pthread_cond_broadcast(&t.monitor.condition)


cdef inline void timeline_rest(TimelineCore *t) noexcept nogil:
    """Wait until there is something for the waiter to do.  The monitor is held.

    A guest that looks at memory asks for no fence, and so nobody would ask the driver, which says
    only who asks that its device is lost.
    """
    cdef uint64_t since = 0     # when that was seen which is so now; 0: look anew
    cdef uint64_t calls = 0
    cdef uint64_t seen = 0
    cdef uint64_t lookout
    cdef uint64_t now
    cdef bint busy
    cdef bint was_busy = False
    while (t.count == 0 or t.held) and t.deadline == 0:
        lookout = hesper_load_u64(&t.context.lookout_ns)
        if t.count:
            # Whoever holds the fences wakes nobody when they are through; somebody has to look out
            # for what is submitted then.
            since = 0
            hesper_monitor_wait_for(&t.monitor, lookout)
            continue
        now = hesper_now_ns()
        busy = is_busy(t, &calls)
        # Not at once at rest: whoever submits next would have to wake this thread.
        if since == 0 or busy != was_busy or not (busy or calls == seen):
            since = now
        was_busy = busy
        seen = calls
        if now - since < lookout:
            hesper_monitor_wait_for(&t.monitor, lookout - (now - since))
            continue
        since = 0
        if not busy:
            rest_until_called(t, calls)
            continue
        look_out(t)
        if hesper_load_acquire(&t.context.lost_unsettled):
            pthread_mutex_unlock(&t.monitor.mutex)
            settle_lost(t.context)
            pthread_mutex_lock(&t.monitor.mutex)


cdef inline bint timeline_loop(TimelineCore *t, hesper_thread *thread) noexcept nogil:
    """The waiter: until the timeline is stopped and through, or past its deadline.

    Returns True, once, when the queue has refused a fence: call it again then.
    """
    cdef uint64_t fence
    cdef uint64_t deadline
    cdef int32_t result
    while True:
        pthread_mutex_lock(&t.monitor.mutex)
        t.waiting = False
        timeline_rest(t)
        t.held = False
        if t.count == 0:
            pthread_mutex_unlock(&t.monitor.mutex)
            return False
        if t.refused and not t.told:
            t.told = True
            pthread_mutex_unlock(&t.monitor.mutex)
            return True
        fence = t.pending[t.first].fence
        deadline = t.deadline
        t.waiting = True
        pthread_mutex_unlock(&t.monitor.mutex)
        if fence:
            result = t.fences.wait(t.fences.device, 1, &fence, 1, FENCE_WAIT_NS)
            if result == VK_ERROR_DEVICE_LOST:
                device_lose(t.context, t.queue.device, &hesper_commands[COMMAND_vkWaitForFences])
            # Anything but a time-out counts as through.
            if result == VK_TIMEOUT and not is_lost(t.queue.device):
                if deadline and hesper_now_ns() > deadline:
                    return False
                continue
        hesper_thread_worked(thread)
        pthread_mutex_lock(&t.monitor.mutex)
        retire_signalled(t, 1)


cdef inline TimelineCore *core_timeline(Core *core, uint32_t ring_idx) noexcept nogil:
    """The timeline of a queue; null for the CPU's (0), and where none is bound."""
    cdef TimelineCore *timeline = NULL
    if 0 < ring_idx < TIMELINES and not hesper_load_acquire(&core.fatal):
        pthread_mutex_lock(&core.monitor.mutex)
        timeline = core.timelines[ring_idx]
        pthread_mutex_unlock(&core.monitor.mutex)
    return timeline


cdef inline TimelineCore *timeline_new(Core *core, QueueState *state, Entry *queue,
                                       Entry *device) except NULL:
    cdef TimelineCore *t = <TimelineCore *>calloc(1, sizeof(TimelineCore))
    if t == NULL or not grow_timeline(t) or hesper_monitor_init(&t.monitor):
        timeline_free(t)
        raise MemoryError
    t.context = core
    t.queue = state
    fences_init(&t.fences, <void *>queue.handle, <void *>device.handle, queue.table)
    return t


cdef inline void timeline_free(TimelineCore *t) noexcept nogil:
    if t == NULL:
        return
    free(t.pending)
    free(t.fences.spare)
    free(t)
