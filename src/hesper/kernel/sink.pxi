# Where a compiled frontend puts what a guest sends outside of rings (declared in `engine.pxd`).

cdef class Sink:
    cdef int submit(self, const uint8_t *data, uint64_t size) noexcept nogil:
        """Run the commands in `size` bytes at `data`, which are aligned to 4."""
        return -1

    cdef int fence(self, uint32_t ring_idx, retired_fn retired, void *data) noexcept nogil:
        """Call `retired(data)`, from any thread, when a timeline has done what it has so far."""
        return -1

    cdef object refusal(self):
        """The exception that says why the last call failed."""
        return NotImplementedError()


cdef class EngineSink(Sink):
    cdef Engine engine
    cdef Stream *stream
    cdef int64_t unbound            # the timeline that was asked for and is not there, else -1

    cdef int submit(self, const uint8_t *data, uint64_t size) noexcept nogil:
        self.unbound = -1
        return run_span(self.stream, data, size)

    cdef int fence(self, uint32_t ring_idx, retired_fn retired, void *data) noexcept nogil:
        if core_fence(self.stream.core, ring_idx, retired, data):
            self.unbound = ring_idx
            return -1
        return 0

    cdef object refusal(self):
        if self.unbound >= 0:
            return ProtocolError(f"timeline {self.unbound} is bound to no queue")
        return self.engine.refusal()
