"""Signs of life: the watch sets ALIVE on rings whose guest asked for it, again and again.

A driver may take longer over one command than the guest is willing to wait without a sign.  And a
guest looks for one whenever it waits for long: also for a fence, while its ring has nothing to
do.  It takes ALIVE away when its wait begins and tells nobody, so a ring at rest needs the signs,
too.
"""

from hesper.kernel.core.platform cimport (
    hesper_load_acquire, hesper_set_bits, hesper_timer_set, hesper_timer_wait, pthread_mutex_lock,
    pthread_mutex_unlock)
from hesper.kernel.core.state cimport STATUS_ALIVE, Core, RingCore


cdef inline void watch_loop(Core *core) noexcept nogil:
    """Until `watch_stop` is called."""
    cdef RingCore *ring
    cdef bint stopping = False
    while not stopping:
        hesper_timer_wait(&core.watch_timer)
        pthread_mutex_lock(&core.monitor.mutex)
        ring = core.rings
        while ring != NULL:
            if ring.monitored:
                hesper_set_bits(ring.status, STATUS_ALIVE)
            ring = ring.chain
        stopping = hesper_load_acquire(&core.stopping)
        if not stopping:
            hesper_timer_set(&core.watch_timer, core.watch_ns)
        pthread_mutex_unlock(&core.monitor.mutex)


cdef inline void watch_stop(Core *core) noexcept nogil:
    """End the watch; `stopping` is set."""
    pthread_mutex_lock(&core.monitor.mutex)
    hesper_timer_set(&core.watch_timer, 1)
    pthread_mutex_unlock(&core.monitor.mutex)
