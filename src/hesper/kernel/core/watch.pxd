"""Somebody watches: how long queues work, and what happened when.

While nobody does, this costs a look at a number for each submission and for each fence that a guest
asks for, and nothing for any other command.
"""

from libc.stdint cimport uint32_t, uint64_t

from hesper.kernel.core.platform cimport (
    hesper_load_acquire, hesper_load_u64, hesper_noted, hesper_now_ns, hesper_precise_sleep,
    hesper_sleep_ns, hesper_spin_lock, hesper_spin_unlock, hesper_store_u64, pthread_mutex_lock,
    pthread_mutex_unlock)
from hesper.kernel.core.state cimport (
    SPAN_STREAM, STAGE_ASLEEP, STAGE_WAIT, Core, RingCore, Span, SpanKind, Stream)


cdef enum:
    TRACED_STREAMS = 64         # the socket's, and rings; those that come later are left out


cdef inline uint64_t watched_now(Core *core) noexcept nogil:
    """The time (ns), which is never 0, while somebody watches the queues; else 0."""
    cdef uint64_t until = hesper_load_u64(&core.watched_until)
    cdef uint64_t now
    if until == 0:
        return 0
    now = hesper_now_ns()
    if now <= until:
        return now
    hesper_store_u64(&core.watched_until, 0)
    return 0


cdef inline void note_span(Core *core, SpanKind kind, uint32_t track, uint64_t begin, uint64_t end,
                           uint64_t value) noexcept nogil:
    """Keep that something took from `begin` to `end` (ns), if that is wanted and there is room."""
    cdef Span *span
    if not hesper_noted(&core.tracing):
        return
    hesper_spin_lock(&core.span_lock)
    if core.spans != NULL and core.span_count < core.span_limit:
        span = &core.spans[core.span_count]
        core.span_count += 1
        span.begin = begin
        span.end = end
        span.kind = kind
        span.track = track
        span.value = value
    hesper_spin_unlock(&core.span_lock)


cdef struct Traced:
    # What a stream does, as it was seen last.
    const RingCore *ring        # null: the socket's stream, or a place that is free
    uint64_t id                 # of the ring: another may lie where one was
    uint64_t since              # 0: nothing
    uint32_t stage
    uint32_t number
    bint seen


cdef inline void end_span(Core *core, Traced *traced, uint32_t track, uint64_t now) noexcept nogil:
    if traced.since:
        note_span(core, SPAN_STREAM, track, traced.since, now,
                  <uint64_t>traced.stage << 32 | traced.number)
    traced.since = 0


cdef inline void trace_stream(Core *core, const Stream *s, Traced *traced, uint32_t track,
                              uint64_t now) noexcept nogil:
    """See what a stream does now.  Stage and number may be of two commands in a row."""
    cdef uint32_t stage = hesper_noted(&s.stage)
    cdef uint32_t number = hesper_noted(&s.number)
    traced.seen = True
    if traced.since and traced.stage == stage and traced.number == number:
        return
    end_span(core, traced, track, now)
    if stage != STAGE_ASLEEP and stage != STAGE_WAIT:
        traced.since = now
        traced.stage = stage
        traced.number = number


cdef inline void trace_loop(Core *core, const Stream *own, uint64_t interval_ns,
                            uint64_t until) noexcept nogil:
    """Look at all streams again and again, until that time (ns) or the context's end."""
    cdef Traced traced[TRACED_STREAMS]
    cdef RingCore *ring
    cdef uint64_t now = hesper_now_ns()
    cdef uint32_t i
    for i in range(TRACED_STREAMS):
        traced[i].ring = NULL
        traced[i].since = 0
    hesper_precise_sleep()
    while (now < until and hesper_noted(&core.tracing)
           and not (hesper_load_acquire(&core.stopping) or hesper_load_acquire(&core.fatal))):
        for i in range(1, TRACED_STREAMS):
            traced[i].seen = False
        trace_stream(core, own, &traced[0], 0, now)
        pthread_mutex_lock(&core.monitor.mutex)
        ring = core.rings
        while ring != NULL:
            i = place_of(traced, ring)
            if i:
                trace_stream(core, &ring.stream, &traced[i], i, now)
            ring = ring.chain
        pthread_mutex_unlock(&core.monitor.mutex)
        for i in range(1, TRACED_STREAMS):
            if traced[i].ring != NULL and not traced[i].seen:
                end_span(core, &traced[i], i, now)
                traced[i].ring = NULL
        hesper_sleep_ns(interval_ns)
        now = hesper_now_ns()
    for i in range(TRACED_STREAMS):
        end_span(core, &traced[i], i, now)


cdef inline uint32_t place_of(Traced *traced, const RingCore *ring) noexcept nogil:
    """Where what is known of a ring stands; 0: there is no place left."""
    cdef uint32_t place = 0
    cdef uint32_t i
    for i in range(1, TRACED_STREAMS):
        if traced[i].ring == ring and traced[i].id == ring.id:
            return i
        if traced[i].ring == NULL and place == 0:
            place = i
    if place:
        traced[place].ring = ring
        traced[place].id = ring.id
    return place
