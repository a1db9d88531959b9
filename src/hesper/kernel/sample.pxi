# Looking at what streams are doing, again and again: where the time goes, without a clock in the
# loop that runs once a command.

cdef tuple STAGE_NAMES = ("asleep", "wait", "decode", "driver", "reply", "handler")


cdef inline size_t sample_size() noexcept nogil:
    return <size_t>STAGES * hesper_number_count


cdef inline void sample_stream(const Stream *s, uint64_t *counts) noexcept nogil:
    """Count what a stream is doing.  Stage and number may be of two commands in a row."""
    cdef uint32_t stage = hesper_noted(&s.stage)
    cdef uint32_t number = hesper_noted(&s.number)
    if stage == STAGE_ASLEEP or stage == STAGE_WAIT:
        number = 0
    counts[stage * hesper_number_count + number] += 1


cdef void sample_loop(Core *core, Stream *own, uint64_t *counts, uint64_t interval_ns) \
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


cdef dict stages_of(const uint64_t *counts):
    """Samples by stage and command, without those that never were."""
    cdef uint32_t stage
    cdef uint32_t number
    cdef dict found = {}
    cdef dict commands
    cdef uint64_t count
    for stage in range(STAGES):
        commands = {}
        for number in range(hesper_number_count):
            count = counts[stage * hesper_number_count + number]
            if count == 0:
                continue
            if stage == STAGE_ASLEEP or stage == STAGE_WAIT:
                commands[""] = count
            else:
                commands[hesper_commands[hesper_command_index[number]].name.decode()] = count
        if commands:
            found[STAGE_NAMES[stage]] = commands
    return found
