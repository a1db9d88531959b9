"""What a context is doing, as Python sees it; `watch.pyi`."""

from libc.stdint cimport uint32_t, uint64_t

from hesper.kernel.core.platform cimport (
    hesper_counted, hesper_load_u64, hesper_note, hesper_noted, hesper_now_ns, hesper_spin_lock,
    hesper_spin_unlock, hesper_store_u64, pthread_mutex_lock, pthread_mutex_unlock)
from hesper.kernel.core.state cimport (
    QUEUES, STAGE_ASLEEP, STAGE_WAIT, STAGES, Core, DeviceState, RingCore, Span, Stream,
    TimelineCore)
from hesper.kernel.core.tables cimport (
    NO_COMMAND, hesper_command_index, hesper_commands, hesper_number_count)
from hesper.kernel.core.watch cimport trace_loop
from hesper.kernel.runtime cimport CoreRef

STAGE_NAMES = ("asleep", "wait", "decode", "driver", "reply", "handler")
SPAN_BYTES = sizeof(Span)


cdef class Watch:
    cdef CoreRef ref

    def __init__(self, CoreRef ref not None):
        self.ref = ref

    def attend(self, uint64_t nanoseconds):
        cdef Core *core = self.ref.core
        cdef uint64_t until = hesper_now_ns() + nanoseconds
        if until > hesper_load_u64(&core.watched_until):
            hesper_store_u64(&core.watched_until, until)

    def queues(self):
        cdef DeviceState *device = self.ref.core.devices
        cdef TimelineCore *timeline = self.ref.core.all_timelines
        cdef uint64_t submissions = 0
        cdef uint64_t busy = 0
        cdef uint32_t i
        while device != NULL:
            for i in range(QUEUES):
                if device.queues[i] != NULL:
                    submissions += hesper_counted(&device.queues[i].calls)
            device = device.next
        while timeline != NULL:
            busy += hesper_counted(&timeline.busy_ns)
            timeline = timeline.next
        return (submissions, busy)

    def streams(self, size_t most):
        cdef RingCore *ring
        cdef list found = [doing(self.ref.stream)]
        pthread_mutex_lock(&self.ref.core.monitor.mutex)
        ring = self.ref.core.rings
        while ring != NULL and len(found) < most:
            found.append(doing(&ring.stream))
            ring = ring.chain
        pthread_mutex_unlock(&self.ref.core.monitor.mutex)
        return found

    def trace(self, uint64_t address, uint64_t size, uint64_t nanoseconds, uint64_t interval):
        cdef Core *core = self.ref.core
        cdef uint64_t until = hesper_now_ns() + nanoseconds
        hesper_spin_lock(&core.span_lock)
        taken = core.spans != NULL
        if not taken:
            core.spans = <Span *>address
            core.span_count = 0
            core.span_limit = size // sizeof(Span)
        hesper_spin_unlock(&core.span_lock)
        if taken:
            return False
        hesper_note(&core.tracing, 1)
        self.attend(nanoseconds)
        with nogil:
            trace_loop(core, self.ref.stream, interval, until)
        hesper_note(&core.tracing, 0)
        hesper_spin_lock(&core.span_lock)
        core.spans = NULL
        hesper_spin_unlock(&core.span_lock)
        return True

    def end_trace(self):
        hesper_note(&self.ref.core.tracing, 0)


cdef tuple doing(const Stream *s):
    """The stage of a stream, and the command it is about."""
    cdef uint32_t stage = hesper_noted(&s.stage)
    cdef uint32_t number = hesper_noted(&s.number)
    if stage == STAGE_ASLEEP or stage == STAGE_WAIT or stage >= STAGES:
        return (STAGE_NAMES[stage % STAGES], "")
    return (STAGE_NAMES[stage], command_name(number))


def command_name(uint32_t number):
    if number >= hesper_number_count or hesper_command_index[number] == NO_COMMAND:
        return ""
    return hesper_commands[hesper_command_index[number]].name.decode()
