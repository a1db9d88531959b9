"""The loops over commands, for a context with a tape.

They are the loops of `context.pxd`, `ring.pxd` and `transport.pxd`, over copies: those know nothing
of tapes but a pointer for each, so that a context without one pays nothing.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from hesper.kernel.core.arena cimport Arena, arena_reset, arena_rewind
from hesper.kernel.core.context cimport may_run_ahead
from hesper.kernel.core.platform cimport (
    hesper_count, hesper_load_acquire, hesper_note, hesper_read_u32)
from hesper.kernel.core.progress cimport core_catch_up, ring_publish
from hesper.kernel.core.recording cimport piece_end, recording_begin, recording_settle
from hesper.kernel.core.ring cimport may_block
from hesper.kernel.core.state cimport (
    ERROR_MEMORY, ERROR_STOPPED, STAGE_ASLEEP, STAGE_WAIT, Core, RingCore, Stream, fail)
from hesper.kernel.core.taped cimport run_taped


cdef inline int run_span_taped(Stream *s, const uint8_t *data, uint64_t size) noexcept nogil:
    """`run_span`; what is at `data` is nobody else's already."""
    cdef const uint8_t *piece
    s.start = data
    s.cursor = data
    s.end = data + size
    recording_begin(s)
    while s.cursor < s.end:
        piece = piece_end(s)
        while s.cursor < piece:
            if s.core.ahead_of != NULL and not may_run_ahead(s):
                core_catch_up(s.core)
            if run_taped(s) < 0:
                return -1
            arena_reset(&s.arena)
        recording_settle(s)
    hesper_note(&s.stage, STAGE_ASLEEP)
    hesper_count(&s.bytes, size)
    return 0


cdef inline int run_ring_taped(RingCore *ring, uint32_t tail, uint32_t limit) noexcept nogil:
    """`ring_run`, whose checks have been made."""
    cdef Stream *s = &ring.stream
    cdef uint32_t size = tail - ring.position
    cdef uint32_t offset = ring.position & ring.mask
    cdef uint32_t first = ring.size - offset
    cdef uint32_t done
    cdef const uint8_t *data = ring.linear
    cdef const uint8_t *piece
    cdef int result
    if first > size:
        first = size
    memcpy(ring.linear, ring.buffer + offset, first)
    memcpy(ring.linear + first, ring.buffer, size - first)
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
        result = run_taped(s)
        if result < 0:
            return -1
        arena_reset(&s.arena)
        done = ring.position + <uint32_t>(s.cursor - data)
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


cdef inline int run_stream_taped(Stream *s, Arena *mark) noexcept nogil:
    """The loop of `execute_stream`, over a copy; everything has been run then."""
    cdef Core *core = s.core
    cdef uint64_t size = <uint64_t>(s.end - s.start)
    cdef const uint8_t *piece
    cdef uint8_t *copy = <uint8_t *>malloc(size)
    cdef int result = 0
    if copy == NULL:
        return fail(s, ERROR_MEMORY, NULL, size)
    memcpy(copy, s.start, size)
    s.start = copy
    s.cursor = copy
    s.end = copy + size
    recording_begin(s)
    while s.cursor < s.end and result == 0:
        piece = piece_end(s)
        while s.cursor < piece:
            if run_taped(s) < 0:
                result = -1
                break
            arena_rewind(&s.arena, mark)
            if hesper_load_acquire(&core.fatal):
                result = fail(s, ERROR_STOPPED, NULL, 0)
                break
        recording_settle(s)
    free(copy)
    return result


cdef inline void fill_taped_loops(Core *core) noexcept nogil:
    core.up.run_span = run_span_taped
    core.up.run_ring = run_ring_taped
    core.up.run_stream = run_stream_taped
