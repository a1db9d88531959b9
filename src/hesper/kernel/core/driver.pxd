"""Calls of the host driver, and what an ordinary command needs besides."""

from libc.stdint cimport int32_t, uint32_t, uint64_t

from hesper_commands cimport HANDLE_VkQueue, VK_ERROR_DEVICE_LOST, VK_TIMEOUT

from hesper.kernel.core.arena cimport arena_take_zeroed
from hesper.kernel.core.costs cimport charge_new, settle_new
from hesper.kernel.core.created cimport (
    New, clear_pool, forget_victims, prepare_new, register_new, restore_ids)
from hesper.kernel.core.dead cimport command_result, set_result
from hesper.kernel.core.fences cimport fence_ahead, fence_is_ahead
from hesper.kernel.core.lost cimport device_of, is_lost
from hesper.kernel.core.platform cimport (
    hesper_count, hesper_load_acquire, pthread_cond_broadcast, pthread_mutex_lock,
    pthread_mutex_unlock)
from hesper.kernel.core.shares cimport share_begin, share_end, share_holds
from hesper.kernel.core.state cimport (
    ERROR_FUNCTION, ERROR_MEMORY, ERROR_OBJECT, QueueState, Stream, TimelineCore, fail, queue_state)
from hesper.kernel.core.tables cimport hesper_base, hesper_commands, hesper_function
from hesper.kernel.core.timeline cimport timeline_time
from hesper.kernel.core.watch cimport watched_now


cdef enum:
    WAIT_SLICE_NS = 100000000
    # What an override says that has done nothing.
    LEFT_TO_HANDLER = 1
    LEFT_FOR_LATER              # `share_wait`, then decode it anew: objects may be gone by then


ctypedef bint (*submits_fn)(Stream *s) noexcept nogil


cdef inline uint32_t index_of(Stream *s) noexcept nogil:
    """The index of the current command."""
    return <uint32_t>(s.command - &hesper_commands[0])


cdef inline hesper_function host_function(Stream *s) noexcept nogil:
    """The driver's function for the current command, or null with the error noted."""
    cdef uint32_t index = index_of(s)
    cdef hesper_function function = NULL
    if s.first != NULL and s.first.table != NULL:
        function = s.first.table[index]
    if function == NULL:
        fail(s, ERROR_FUNCTION, NULL, 0)
    return function


cdef inline void timeline_wake(TimelineCore *t) noexcept nogil:
    pthread_mutex_lock(&t.monitor.mutex)
    pthread_cond_broadcast(&t.monitor.condition)
    pthread_mutex_unlock(&t.monitor.mutex)


cdef inline void queue_leave(QueueState *queue) noexcept nogil:
    """Unlock a queue that was given something; somebody has to look out for its end."""
    cdef TimelineCore *unwatched = NULL
    if not queue.watched:
        queue.watched = True
        unwatched = queue.timeline
    pthread_mutex_unlock(&queue.monitor.mutex)
    if unwatched != NULL:
        timeline_wake(unwatched)


cdef inline void call_host(Stream *s, hesper_function function) noexcept nogil:
    """Call the driver; queues are one thread's at a time (Vulkan: externally synchronised)."""
    cdef QueueState *queue = NULL
    if s.first != NULL and s.first.type == HANDLE_VkQueue:
        queue = queue_state(s.core, s.first)
    if queue == NULL:
        s.command.call(function, s.parameters)
        return
    pthread_mutex_lock(&queue.monitor.mutex)
    hesper_count(&queue.calls, 1)
    s.command.call(function, s.parameters)
    queue_leave(queue)


cdef inline int submit_to_queue(Stream *s, uint64_t *fence, submits_fn signals) noexcept nogil:
    """Submit, and have a fence go along if the queue's timeline will want one.

    fence: that of the submission.  signals: says whether it may signal a timeline semaphore.
    """
    cdef QueueState *queue
    cdef hesper_function function = host_function(s)
    cdef TimelineCore *timeline
    cdef uint64_t ahead = 0
    cdef uint64_t now = 0       # while somebody watches
    cdef bint is_measured
    if is_held(s):
        return LEFT_FOR_LATER
    if function == NULL:
        return -1
    queue = queue_state(s.core, s.first)
    if queue == NULL:
        return fail(s, ERROR_OBJECT, NULL, s.first_id)
    is_measured = share_begin(s.core, queue, s.first)
    pthread_mutex_lock(&queue.monitor.mutex)
    hesper_count(&queue.calls, 1)
    if queue.fences != NULL:
        now = watched_now(s.core)
        queue.fences.wanted = queue.fences.wanted or now != 0
        ahead = fence_ahead(queue.fences, fence, queue.fences.wanted and signals(s))
    s.command.call(function, s.parameters)
    if ahead:
        fence_is_ahead(queue, ahead, command_result(s))
    timeline = queue.timeline
    queue_leave(queue)
    if now and timeline != NULL:
        timeline_time(timeline, now)
    if is_measured:
        share_end(s.core, queue)
    return 0


cdef inline int bind_sparse(Stream *s) noexcept nogil:
    """Have a queue bind memory, which is work as any other."""
    cdef QueueState *queue
    cdef hesper_function function = host_function(s)
    cdef bint is_measured
    if is_held(s):
        return LEFT_FOR_LATER
    if function == NULL:
        return -1
    queue = queue_state(s.core, s.first)
    is_measured = queue != NULL and share_begin(s.core, queue, s.first)
    call_host(s, function)
    if is_measured:
        share_end(s.core, queue)
    return 0


cdef inline bint is_held(Stream *s) noexcept nogil:
    """Whether a submission has to wait first; it does once.

    Who runs a ring's commands for its thread does not wait: it has begun before there was a reason.
    """
    cdef bint is_borrowed = s.ring != NULL and s.ring.borrowed
    if not s.admitted and not is_borrowed and share_holds(s.core):
        return True
    s.admitted = False
    return False


cdef inline int wait_in_slices(Stream *s, uint64_t *timeout) noexcept nogil:
    """Run a command that waits, with its time-out (ns), so that it can be broken off.

    What it waits for may never come: a guest can forget to submit it, or a driver can hang.
    """
    cdef hesper_function function = host_function(s)
    cdef uint64_t left = timeout[0]
    if function == NULL:
        return -1
    while True:
        timeout[0] = left if left < WAIT_SLICE_NS else WAIT_SLICE_NS
        left -= timeout[0]
        call_host(s, function)
        if is_lost(device_of(s)):
            set_result(s, VK_ERROR_DEVICE_LOST)
        if (command_result(s) != VK_TIMEOUT or left == 0
                or hesper_load_acquire(&s.core.stopping) or hesper_load_acquire(&s.core.fatal)):
            return 0


cdef inline int serve(Stream *s) noexcept nogil:
    """What an ordinary command needs: the call, and the book-keeping of objects."""
    cdef New new
    cdef int result
    cdef hesper_function function = host_function(s)
    if function == NULL:
        return -1
    if s.command.destroys == 1:
        if forget_victims(s):
            return -1
    elif s.command.destroys == 2:
        clear_pool(s)
    if s.command.new_type == 0:
        call_host(s, function)
        return 0
    if prepare_new(s, &new):
        return -1
    if charge_new(s, &new, index_of(s)):
        call_host(s, function)
    result = register_new(s, &new)
    settle_new(s, &new)
    restore_ids(&new)
    return result


cdef inline hesper_base *push_struct(Stream *s, void *info, uint32_t stype,
                                     size_t size) noexcept nogil:
    """Put a zeroed struct at the front of the pNext chain of `info`; null with the error noted."""
    cdef hesper_base *node = <hesper_base *>arena_take_zeroed(&s.arena, size)
    if node == NULL:
        fail(s, ERROR_MEMORY, NULL, size)
        return NULL
    node.sType = stype
    node.pNext = (<hesper_base *>info).pNext
    (<hesper_base *>info).pNext = node
    return node
