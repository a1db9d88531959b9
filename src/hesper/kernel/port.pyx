"""A context as a compiled transport sees it: its own stream, its fences, its blobs."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from hesper.kernel.core.platform cimport hesper_now_ns, hesper_store_u64
from hesper.kernel.core.polling cimport HESPER_CONTENDED_NS, HESPER_HELD_UP_NS, polling_patience
from hesper.kernel.core.state cimport TIMELINES, Core, Stream, TimelineCore, retired_fn
from hesper.kernel.core.timeline cimport timeline_attend, timeline_leave
from hesper.kernel.runtime cimport (
    CoreRef, context_catch_up, context_create_blob, context_destroy_blob, context_fence, stream_run)

from hesper.kernel.errors import ProtocolError


cdef class Port:
    cdef int submit(self, const uint8_t *data, uint64_t size) noexcept nogil:
        """Run the commands in `size` bytes at `data`, which are aligned to 4."""
        return -1

    cdef int fence(self, uint32_t ring_idx, retired_fn retired, void *data) noexcept nogil:
        """Call `retired`, from any thread, when a timeline has done what it has so far."""
        return -1

    cdef void catch_up(self) noexcept nogil:
        """Come to the end of what `submit` was given, before Python serves a message."""

    cdef int create_blob(self, uint32_t id, uint64_t memory, uint64_t size,
                         bint apart) noexcept nogil:
        """Make resource `id` of device memory; its descriptor, or -1: that is left to Python.

        apart: somebody besides the guest may map it.
        """
        return -1

    cdef bint destroy_blob(self, uint32_t id) noexcept nogil:
        """Forget a resource that `create_blob` has made; False: that is left to Python."""
        return False

    cdef object refusal(self):
        """The exception that says why the last call failed."""
        return NotImplementedError()

    # A frontend's thread that looks out for the next message looks at the fences as well: nobody
    # else has to be woken for them.

    cdef uint64_t patience(self, uint64_t now) noexcept nogil:
        """How long to look out, in ns; 0: not at all."""
        return 0

    cdef bint held_up(self, uint64_t last, uint64_t now) noexcept nogil:
        """Whether too much time has gone by between two looks: others want the processor."""
        return False

    cdef bint attend(self) noexcept nogil:
        """Retire what fences are signalled; whether there are others to look at."""
        return False

    cdef void leave(self) noexcept nogil:
        """Look at no fences any more: before blocking, and before returning to Python."""


cdef class ContextPort(Port):
    cdef CoreRef ref
    cdef Stream *stream
    cdef object refused             # poisons the context; returns the exception
    cdef int64_t unbound            # the timeline that was asked for and is not there, else -1
    cdef TimelineCore *attended[TIMELINES]
    cdef uint32_t attended_count

    def __init__(self, CoreRef ref not None, refused):
        self.ref = ref
        self.stream = ref.stream
        self.refused = refused
        ref.core.runs_ahead = True

    cdef int submit(self, const uint8_t *data, uint64_t size) noexcept nogil:
        self.unbound = -1
        return stream_run(self.stream, data, size)

    cdef int fence(self, uint32_t ring_idx, retired_fn retired, void *data) noexcept nogil:
        cdef Core *core = self.stream.core
        cdef TimelineCore *held = NULL
        cdef bint hold = (self.attended_count < TIMELINES
                          and polling_patience(&core.polling, hesper_now_ns()) != 0)
        if context_fence(core, ring_idx, retired, data, &held if hold else NULL):
            self.unbound = ring_idx
            return -1
        if held != NULL:
            self.attended[self.attended_count] = held
            self.attended_count += 1
        return 0

    cdef void catch_up(self) noexcept nogil:
        context_catch_up(self.stream.core)

    cdef int create_blob(self, uint32_t id, uint64_t memory, uint64_t size,
                         bint apart) noexcept nogil:
        context_catch_up(self.stream.core)
        return context_create_blob(self.stream.core, id, memory, size, apart)

    cdef bint destroy_blob(self, uint32_t id) noexcept nogil:
        context_catch_up(self.stream.core)
        return context_destroy_blob(self.stream.core, id)

    cdef uint64_t patience(self, uint64_t now) noexcept nogil:
        return polling_patience(&self.stream.core.polling, now)

    cdef bint held_up(self, uint64_t last, uint64_t now) noexcept nogil:
        if now - last < HESPER_HELD_UP_NS:
            return False
        hesper_store_u64(&self.stream.core.polling.contended_until, now + HESPER_CONTENDED_NS)
        return True

    cdef bint attend(self) noexcept nogil:
        cdef uint32_t i = 0
        while i < self.attended_count:
            if timeline_attend(self.attended[i]):
                i += 1
            else:
                self.attended_count -= 1
                self.attended[i] = self.attended[self.attended_count]
        return self.attended_count != 0

    cdef void leave(self) noexcept nogil:
        while self.attended_count:
            self.attended_count -= 1
            timeline_leave(self.attended[self.attended_count])

    cdef object refusal(self):
        if self.unbound >= 0:
            return ProtocolError(f"timeline {self.unbound} is bound to no queue")
        return self.refused()
