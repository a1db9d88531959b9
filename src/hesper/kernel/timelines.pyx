"""Timelines, the fences of queues, as Python sees them; `timelines.pyi`."""

import threading

from libc.stdint cimport uint32_t, uint64_t

from hesper_commands cimport HANDLE_VkQueue

from hesper.kernel.core.driver cimport timeline_wake
from hesper.kernel.core.fences cimport fences_destroy
from hesper.kernel.core.ledger cimport LIMIT_THREADS, ledger_add, ledger_remove
from hesper.kernel.core.objects cimport Entry, Objects, object_find, object_kin
from hesper.kernel.core.platform cimport (
    hesper_now_ns, hesper_store_u64, pthread_cond_broadcast, pthread_mutex_lock,
    pthread_mutex_unlock)
from hesper.kernel.core.state cimport (
    TIMELINES, Core, Pending, QueueState, TimelineCore, queue_state)
from hesper.kernel.core.timeline cimport count_fence, timeline_new
from hesper.kernel.runtime cimport CoreRef, timeline_serve

from hesper.kernel.errors import ProtocolError


cdef class Timeline:
    cdef TimelineCore *core
    cdef CoreRef ref                # whose memory the waiter uses
    cdef readonly uint32_t ring_idx
    cdef object on_refused
    cdef object thread
    cdef bint is_counted            # among the threads

    def _run(self):
        """Body of the waiter's thread."""
        cdef bint refused = True
        while refused:
            with nogil:
                refused = timeline_serve(self.core)
            if refused:
                self.on_refused(self.core.fences.result)

    def stop(self, double timeout):
        cdef TimelineCore *t = self.core
        cdef Core *core = self.ref.core
        cdef bint idle = True
        cdef Pending first
        pthread_mutex_lock(&core.monitor.mutex)
        if core.timelines[self.ring_idx] == t:
            core.timelines[self.ring_idx] = NULL
        pthread_mutex_unlock(&core.monitor.mutex)
        pthread_mutex_lock(&t.monitor.mutex)
        t.deadline = hesper_now_ns() + <uint64_t>(timeout * 1e9)
        pthread_cond_broadcast(&t.monitor.condition)
        pthread_mutex_unlock(&t.monitor.mutex)
        self.thread.join()
        if self.is_counted:
            self.is_counted = False
            ledger_remove(&core.pool.ledger, LIMIT_THREADS, 1)
        with nogil:
            pthread_mutex_lock(&t.queue.monitor.mutex)
            t.queue.fences = NULL
            t.queue.timeline = NULL
            pthread_mutex_unlock(&t.queue.monitor.mutex)
        # Nobody adds to it any more.
        while t.count:
            first = t.pending[t.first]
            t.first = (t.first + 1) % t.capacity
            count_fence(t, &first, <uint32_t>-1)
            idle = idle and first.fence == 0
            with nogil:
                first.retired(first.data, False)
        if idle:
            fences_destroy(&t.fences)
        return idle


cdef class Timelines:
    cdef CoreRef ref

    def __init__(self, CoreRef ref not None):
        self.ref = ref

    def bind(self, uint32_t ring_idx, uint64_t queue, on_refused):
        cdef Objects *objects = &self.ref.core.objects
        cdef Entry *entry = object_find(objects, queue)
        cdef Entry *device = NULL
        cdef QueueState *state = NULL
        cdef Timeline timeline = Timeline.__new__(Timeline)
        if entry != NULL and entry.type == HANDLE_VkQueue:
            state = queue_state(self.ref.core, entry)
            device = object_find(objects, object_kin(entry).device_id)
        if state == NULL or device == NULL:
            raise KeyError(f"there is no queue {queue}")
        if not 0 < ring_idx < TIMELINES:
            raise ProtocolError(f"timeline {ring_idx} is out of range")
        if self.ref.core.timelines[ring_idx] != NULL:
            raise ProtocolError(f"timeline {ring_idx} is bound already")
        if state.fences != NULL:
            raise ProtocolError(f"queue {queue} has a timeline already")
        if not ledger_add(&self.ref.core.pool.ledger, LIMIT_THREADS, 1):
            raise ProtocolError(f"timeline {ring_idx}: too many threads (--limit threads)")
        timeline.is_counted = True
        timeline.core = timeline_new(self.ref.core, state, entry, device)
        timeline.core.ring_idx = ring_idx
        timeline.core.next = self.ref.core.all_timelines
        self.ref.core.all_timelines = timeline.core
        pthread_mutex_lock(&timeline.core.queue.monitor.mutex)
        timeline.core.queue.fences = &timeline.core.fences
        timeline.core.queue.timeline = timeline.core
        pthread_mutex_unlock(&timeline.core.queue.monitor.mutex)
        pthread_mutex_lock(&self.ref.core.monitor.mutex)
        self.ref.core.timelines[ring_idx] = timeline.core
        pthread_mutex_unlock(&self.ref.core.monitor.mutex)
        timeline.ref = self.ref
        timeline.ring_idx = ring_idx
        timeline.on_refused = on_refused
        timeline.thread = threading.Thread(target=timeline._run, name=f"fences-{ring_idx}",
                                           daemon=True)
        timeline.thread.start()
        return timeline

    def set_lookout(self, uint64_t nanoseconds):
        cdef TimelineCore *timeline = self.ref.core.all_timelines
        hesper_store_u64(&self.ref.core.lookout_ns, nanoseconds)
        while timeline != NULL:
            with nogil:
                timeline_wake(timeline)
            timeline = timeline.next
