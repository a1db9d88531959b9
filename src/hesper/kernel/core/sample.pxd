"""Looking at what streams are doing, again and again: where the time goes, without a clock in the
loop that runs once a command.
"""

from libc.stdint cimport uint32_t, uint64_t

from hesper.kernel.core.platform cimport (
    hesper_load_acquire, hesper_noted, hesper_precise_sleep, hesper_sleep_ns, pthread_mutex_lock,
    pthread_mutex_unlock)
from hesper.kernel.core.state cimport STAGE_ASLEEP, STAGE_WAIT, STAGES, Core, RingCore, Stream
from hesper.kernel.core.tables cimport hesper_number_count


cdef inline size_t sample_size() noexcept nogil:
    return <size_t>STAGES * hesper_number_count


cdef inline void sample_stream(const Stream *s, uint64_t *counts) noexcept nogil:
    """Count what a stream is doing.  Stage and number may be of two commands in a row."""
    cdef uint32_t stage = hesper_noted(&s.stage)
    cdef uint32_t number = hesper_noted(&s.number)
    if stage == STAGE_ASLEEP or stage == STAGE_WAIT:
        number = 0
    counts[stage * hesper_number_count + number] += 1


cdef inline void sample_loop(Core *core, Stream *own, uint64_t *counts, uint64_t interval_ns) \
        noexcept nogil:
    """Sample all rings, and the context's own stream, until the context is closed."""
    cdef RingCore *ring
    hesper_precise_sleep()
    while not (hesper_load_acquire(&core.stopping) or hesper_load_acquire(&core.fatal)):
        hesper_sleep_ns(interval_ns)
        pthread_mutex_lock(&core.monitor.mutex)
        ring = core.rings
        while ring != NULL:
            sample_stream(&ring.stream, counts)
            ring = ring.chain
        pthread_mutex_unlock(&core.monitor.mutex)
        sample_stream(own, counts + sample_size())
