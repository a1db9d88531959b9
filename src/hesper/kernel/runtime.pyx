"""The core (`core/*.pxd`) as one C unit: what the kernel's Python classes call of it.

Everything below `core/` is inlined here, and mostly here alone.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from hesper.kernel.core.alive cimport watch_loop
from hesper.kernel.core.arena cimport arena_free
from hesper.kernel.core.bounds cimport check_bound
from hesper.kernel.core.context cimport blob_create, blob_destroy, core_fence, core_poison, run_span
from hesper.kernel.core.costs cimport charge_new, settle_new
from hesper.kernel.core.created cimport New, clear_pool, forget_victims, prepare_new, register_new
from hesper.kernel.core.dispatch cimport fill_hot
from hesper.kernel.core.driver cimport call_host, host_function, index_of
from hesper.kernel.core.feedback cimport feedback_free
from hesper.kernel.core.layouts cimport layout_overrides
from hesper.kernel.core.ledger cimport ACCOUNT_OBJECTS
from hesper.kernel.core.objects cimport Entry, object_find, object_kin, objects_free
from hesper.kernel.core.overrides cimport fill_overrides
from hesper.kernel.core.platform cimport (
    hesper_add_u64, hesper_monitor_destroy, hesper_monitor_init, hesper_thread,
    hesper_thread_begin, hesper_thread_end)
from hesper.kernel.core.progress cimport core_catch_up
from hesper.kernel.core.relations cimport check_relations
from hesper.kernel.core.resources cimport resources_free
from hesper.kernel.core.ring cimport ring_loop
from hesper.kernel.core.set_sizes cimport set_sizes_free
from hesper.kernel.core.sets cimport check_sets
from hesper.kernel.core.shares cimport meter_free, meter_loop, share_forget
from hesper.kernel.core.shm_pool cimport pool_drop, pool_room
from hesper.kernel.core.stand_ins cimport stand_in_overrides
from hesper.kernel.core.state cimport (
    QUEUES, Core, DeviceState, Hot, RingCore, Row, Stream, TimelineCore, retired_fn)
from hesper.kernel.core.tables cimport hesper_command_count, hesper_function, hesper_number_count
from hesper.kernel.core.tape cimport Tape
from hesper.kernel.core.taped cimport taped_blob, taped_gone
from hesper.kernel.core.taped_loops cimport fill_taped_loops
from hesper.kernel.core.timeline cimport timeline_free, timeline_loop


cdef class CoreRef:
    """Owns a context's C memory, for as long as anything in Python refers to it."""

    def __cinit__(self):
        self.core = <Core *>calloc(1, sizeof(Core))
        self.stream = <Stream *>calloc(1, sizeof(Stream))
        if self.core == NULL or self.stream == NULL:
            raise MemoryError
        self.stream.core = self.core
        self.core.up.check = check_relations
        self.core.check_bound = check_bound
        self.core.check_sets = check_sets
        self.core.rows = <Row *>calloc(hesper_command_count, sizeof(Row))
        self.core.hot = <Hot *>calloc(hesper_number_count, sizeof(Hot))
        if (self.core.rows == NULL or self.core.hot == NULL
                or hesper_monitor_init(&self.core.monitor)
                or hesper_monitor_init(&self.core.share.monitor)):
            raise MemoryError

    def __dealloc__(self):
        cdef Core *core = self.core
        cdef uint32_t i
        cdef DeviceState *device
        cdef TimelineCore *timeline
        if core == NULL:
            return
        while core.all_timelines != NULL:
            timeline = core.all_timelines
            core.all_timelines = timeline.next
            hesper_monitor_destroy(&timeline.monitor)
            timeline_free(timeline)
        while core.devices != NULL:
            device = core.devices
            core.devices = device.next
            for i in range(QUEUES):
                if device.queues[i] != NULL:
                    hesper_monitor_destroy(&device.queues[i].monitor)
                    meter_free(device.queues[i])
                    free(device.queues[i])
            free(device)
        feedback_free(core)
        set_sizes_free(core)
        if self.stream != NULL:
            arena_free(&self.stream.arena)
            free(self.stream)
        resources_free(core)
        pool_drop(core.pool)
        objects_free(&core.objects)
        hesper_monitor_destroy(&core.monitor)
        hesper_monitor_destroy(&core.share.monitor)
        free(core.rows)
        free(core.hot)
        free(core)


cdef int stream_run(Stream *s, const uint8_t *data, uint64_t size) noexcept nogil:
    """Run commands on the context's own stream; -1 with the error noted, or it is poisoned."""
    return run_span(s, data, size)


cdef int command_prepare(Stream *s, New *new) noexcept nogil:
    """Take the ids of what the current command makes off their place; -1 with the error noted."""
    return prepare_new(s, new)


cdef int command_call(Stream *s) noexcept nogil:
    """Have the driver run the current command; -1 with the error noted where it cannot."""
    cdef hesper_function function = host_function(s)
    if function == NULL:
        return -1
    call_host(s, function)
    return 0


cdef int command_register(Stream *s, New *new) noexcept nogil:
    """Make objects of what the current command has made; -1 with the error noted."""
    return register_new(s, new)


cdef bint command_charge(Stream *s, New *new) noexcept nogil:
    """Take what it costs that the current command is to make; False: it has failed for that."""
    return charge_new(s, new, index_of(s))


cdef void command_settle(Stream *s, New *new) noexcept nogil:
    """Charge the objects that a handler has made by itself, and give back the rest."""
    cdef Entry *entry
    cdef uint64_t i
    for i in range(new.count if new.charged else 0):
        entry = object_find(&s.core.objects, new.ids[i])
        if (entry != NULL and entry.type == s.command.new_type and object_kin(entry).charged == 0
                and new.charged >= new.each):
            hesper_add_u64(&object_kin(entry).charged, new.each)
            new.charged -= new.each
    settle_new(s, new)


cdef bint object_charge(Core *core, uint64_t id, uint64_t size) noexcept nogil:
    """Take bytes for as long as an object lives; False when they are not left."""
    cdef Entry *entry = object_find(&core.objects, id)
    if entry == NULL:
        return True
    if not pool_room(core.pool, ACCOUNT_OBJECTS, size):
        return False
    hesper_add_u64(&object_kin(entry).charged, size)
    return True


cdef int command_forget(Stream *s) noexcept nogil:
    """Forget what the current command destroys; -1 with the error noted."""
    if s.command.destroys == 1:
        return forget_victims(s)
    if s.command.destroys == 2:
        clear_pool(s)
    return 0


cdef void commands_ready(Core *core) noexcept nogil:
    """Make the tables the loop works with, once it is known which commands have handlers."""
    fill_hot(core)
    fill_overrides(core)


cdef void layouts_change(Core *core) noexcept nogil:
    layout_overrides(core)


cdef void stand_ins_begin(Core *core) noexcept nogil:
    stand_in_overrides(core)


cdef int ring_serve(RingCore *ring) noexcept nogil:
    """Body of a ring's thread."""
    return ring_loop(ring)


cdef bint timeline_serve(TimelineCore *t) noexcept nogil:
    """Body of the thread that waits for a queue's fences."""
    cdef hesper_thread thread
    cdef bint refused
    hesper_thread_begin(&thread)
    refused = timeline_loop(t, &thread)
    hesper_thread_end(&thread)
    return refused


cdef void alive_serve(Core *core) noexcept nogil:
    """Body of the thread that shows signs of life to the guest."""
    watch_loop(core)


cdef void meter_serve(Core *core) noexcept nogil:
    """Body of the thread that measures what of the GPU's time is used."""
    meter_loop(core)


cdef void device_forget(Core *core, DeviceState *device) noexcept nogil:
    share_forget(core, device)


cdef void context_poison(Core *core) noexcept nogil:
    core_poison(core)


cdef void context_catch_up(Core *core) noexcept nogil:
    core_catch_up(core)


cdef int context_fence(Core *core, uint32_t ring_idx, retired_fn retired, void *data,
                       TimelineCore **held) noexcept nogil:
    return core_fence(core, ring_idx, retired, data, held)


cdef int context_create_blob(Core *core, uint32_t id, uint64_t memory, uint64_t size,
                             bint apart) noexcept nogil:
    return blob_create(core, id, memory, size, apart)


cdef bint context_destroy_blob(Core *core, uint32_t id) noexcept nogil:
    return blob_destroy(core, id)


cdef void context_tape(Core *core, Tape *tape) noexcept nogil:
    core.tape = tape
    fill_taped_loops(core)


cdef void context_taped_blob(Core *core, uint32_t id, uint64_t memory, uint64_t size,
                             uint32_t flags, bint apart) noexcept nogil:
    taped_blob(core, id, memory, size, flags, apart)


cdef void context_taped_gone(Core *core, uint32_t id) noexcept nogil:
    taped_gone(core, id)
