# Signs of life: the watch sets ALIVE on rings whose guest asked for it, while one is at work.
#
# A driver may take longer over one command than the guest is willing to wait without a sign.  A
# ring that comes to rest puts the timer off: an idle client wakes nobody up.

cdef void ring_note_busy(RingCore *ring, bint busy) noexcept nogil:
    """A ring starts to work, or comes to rest."""
    cdef Core *core = ring.stream.core
    if not ring.monitored:
        return
    pthread_mutex_lock(&core.monitor.mutex)
    if busy and not ring.busy:
        hesper_set_bits(ring.status, STATUS_ALIVE)
        core.busy_rings += 1
        if core.busy_rings == 1:
            hesper_timer_set(&core.watch_timer, core.watch_ns)
    elif ring.busy and not busy:
        core.busy_rings -= 1
        if core.busy_rings == 0:
            hesper_timer_set(&core.watch_timer, 0)
    ring.busy = busy
    pthread_mutex_unlock(&core.monitor.mutex)


cdef void watch_loop(Core *core) noexcept nogil:
    """Until `watch_stop` is called."""
    cdef RingCore *ring
    cdef bint stopping = False
    while not stopping:
        hesper_timer_wait(&core.watch_timer)
        pthread_mutex_lock(&core.monitor.mutex)
        ring = core.rings
        while ring != NULL:
            if ring.busy:
                hesper_set_bits(ring.status, STATUS_ALIVE)
            ring = ring.chain
        stopping = core.stopping
        if core.busy_rings and not stopping:
            hesper_timer_set(&core.watch_timer, core.watch_ns)
        pthread_mutex_unlock(&core.monitor.mutex)


cdef void watch_stop(Core *core) noexcept nogil:
    """End the watch; `stopping` is set."""
    pthread_mutex_lock(&core.monitor.mutex)
    hesper_timer_set(&core.watch_timer, 1)
    pthread_mutex_unlock(&core.monitor.mutex)
