"""The loops over commands, for a context with a tape.

They run those of `context.pxd`, `ring.pxd` and `transport.pxd` over copies: these know nothing
of tapes but a pointer for each, so that a context without one pays nothing.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from hesper.kernel.core.arena cimport Arena
from hesper.kernel.core.context cimport span_commands
from hesper.kernel.core.recording cimport recording_begin
from hesper.kernel.core.ring cimport ring_commands
from hesper.kernel.core.state cimport ERROR_MEMORY, Core, RingCore, Stream, fail
from hesper.kernel.core.taped cimport TapedStream
from hesper.kernel.core.transport cimport stream_commands


cdef inline int run_span_taped(Stream *s, const uint8_t *data, uint64_t size) noexcept nogil:
    """`run_span`; what is at `data` is nobody else's already."""
    return span_commands(<TapedStream *>s, data, size)


cdef inline int run_ring_taped(RingCore *ring, uint32_t tail, uint32_t limit) noexcept nogil:
    """`ring_run`, whose checks have been made."""
    cdef uint32_t size = tail - ring.position
    cdef uint32_t offset = ring.position & ring.mask
    cdef uint32_t first = ring.size - offset
    if first > size:
        first = size
    memcpy(ring.linear, ring.buffer + offset, first)
    memcpy(ring.linear + first, ring.buffer, size - first)
    return ring_commands(<TapedStream *>&ring.stream, ring, ring.linear, size, limit)


cdef inline int run_stream_taped(Stream *s, Arena *mark) noexcept nogil:
    """The loop of `execute_stream`, over a copy; everything has been run then."""
    cdef uint64_t size = <uint64_t>(s.end - s.start)
    cdef uint8_t *copy = <uint8_t *>malloc(size)
    cdef int result
    if copy == NULL:
        return fail(s, ERROR_MEMORY, NULL, size)
    memcpy(copy, s.start, size)
    s.start = copy
    s.cursor = copy
    s.end = copy + size
    recording_begin(s)
    result = stream_commands(<TapedStream *>s, mark)
    free(copy)
    return result


cdef inline void fill_taped_loops(Core *core) noexcept nogil:
    core.up.run_span = run_span_taped
    core.up.run_ring = run_ring_taped
    core.up.run_stream = run_stream_taped
