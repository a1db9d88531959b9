"""One guest context: its core, and the parts by which Python reaches it; `engine.pyi`."""

import os

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from hesper.kernel.handlers cimport Handlers
from hesper.kernel.core.arena cimport arena_init
from hesper.kernel.core.objects cimport PAGE_BYTES, Page
from hesper.kernel.core.platform cimport (
    hesper_counted, hesper_load_acquire, hesper_noted, hesper_store_u64, pthread_mutex_lock,
    pthread_mutex_unlock)
from hesper.kernel.core.sample cimport sample_loop, sample_size
from hesper.kernel.core.shm_pool cimport pool_hold
from hesper.kernel.core.state cimport ERROR_NONE, STAGE_ASLEEP, STAGE_WAIT, STAGES, RingCore
from hesper.kernel.core.tables cimport *
from hesper.kernel.crashes cimport crash_enter, crash_leave
from hesper.kernel.ledger cimport Ledger
from hesper.kernel.messages cimport describe
from hesper.kernel.port cimport call_retired, too_many
from hesper.kernel.runtime cimport (
    CoreRef, commands_ready, context_fence, context_poison, context_tape, layouts_change,
    stream_run)
from hesper.kernel.shm cimport Pool
from hesper.kernel.tape cimport Tape
from hesper.kernel.vulkan cimport Vulkan

from hesper.kernel.devices import Devices
from hesper.kernel.errors import ProtocolError
from hesper.kernel.objects import ObjectTable
from hesper.kernel.port import ContextPort
from hesper.kernel.resources import ResourceTable
from hesper.kernel.rings import Rings
from hesper.kernel.shares import Shares
from hesper.kernel.timelines import Timelines
from hesper.kernel.watch import STAGE_NAMES, Watch

cdef enum:
    LOOKOUT_NS = 250000000      # a queue at work is looked at that often


cdef class Engine:
    cdef CoreRef ref
    cdef Handlers handlers
    cdef readonly Vulkan vulkan
    cdef readonly Pool pool
    cdef readonly Ledger ledger
    cdef readonly object objects
    cdef readonly object resources
    cdef readonly object devices
    cdef readonly object rings
    cdef readonly object timelines
    cdef readonly object watch
    cdef readonly object shares
    cdef object on_fatal
    cdef int crash_slot

    def __cinit__(self):
        self.crash_slot = -1

    def __init__(self, Vulkan vulkan not None, dict handlers, *, size_t arena_limit,
                 uint32_t object_limit, uint32_t resource_limit, uint64_t memory_limit, on_fatal,
                 dict most=None, on_notice=None, asleep=(), Tape tape=None):
        cdef CoreRef ref = CoreRef()
        if tape is not None:
            ref.tape = tape
            context_tape(ref.core, tape.core)
        self.ref = ref
        self.vulkan = vulkan
        self.on_fatal = on_fatal
        self.pool = Pool(memory_limit)
        # Held apart: when the engine goes, its Python objects may have gone before it.
        ref.core.pool = pool_hold(self.pool.core)
        ref.core.arena_limit = arena_limit
        ref.core.objects.limit = object_limit
        # What is known at build time: no page may reach into the next.
        assert sizeof(Page) <= PAGE_BYTES
        ref.core.objects.multiplier = int.from_bytes(os.urandom(8), "little") | 1
        ref.core.objects.ledger = &ref.core.pool.ledger
        ref.core.objects.descriptions.ledger = &ref.core.pool.ledger
        self.ledger = Ledger(ref, most or {})
        ref.core.resource_limit = resource_limit
        ref.core.watch_ns = <uint64_t>-1
        ref.core.lookout_ns = LOOKOUT_NS
        if arena_init(&ref.stream.arena, arena_limit, ref.core.pool):
            raise MemoryError
        self.objects = ObjectTable(ref)
        self.resources = ResourceTable(ref, self._resource_in_use)
        self.devices = Devices(ref, self.objects)
        self.rings = Rings(ref, self.poison)
        self.timelines = Timelines(ref)
        self.watch = Watch(ref)
        self.shares = Shares(ref)
        self.handlers = Handlers(
            ref, vulkan, self.objects, self.rings.by_id, self.ledger, handlers, asleep,
            on_notice)
        commands_ready(ref.core)
        # The thread that makes the engine is the one that submits to it.
        self.crash_slot = crash_enter(0, &ref.stream.stage, &ref.stream.number)

    def __dealloc__(self):
        crash_leave(self.crash_slot)

    def change_layouts(self):
        layouts_change(self.ref.core)

    def wake(self, names):
        self.handlers.wake(names)

    # Failing.

    @property
    def fatal(self):
        return bool(hesper_load_acquire(&self.ref.core.fatal))

    def poison(self, str reason):
        cdef bint first = not hesper_load_acquire(&self.ref.core.fatal)
        with nogil:
            context_poison(self.ref.core)
        if first:
            self.on_fatal(reason)

    def _resource_in_use(self, str reason):
        self.poison(reason)
        self.stop()

    def _refused(self):
        """Poison the context, whose own stream has failed; return what to raise."""
        if self.ref.stream.error == ERROR_NONE:
            return ProtocolError("the context is poisoned")
        reason = describe(self.ref.stream)
        self.poison(reason)
        return ProtocolError(reason)

    # What transports ask for.

    def submit(self, data):
        cdef const uint8_t[::1] view = data
        cdef const uint8_t *start
        cdef uint64_t size = view.shape[0]
        cdef int result
        if size == 0:
            return
        start = &view[0]
        with nogil:
            result = stream_run(self.ref.stream, start, size)
        if result:
            raise self._refused()

    def fence(self, uint32_t ring_idx, retired):
        cdef int result
        cdef void *data = <void *>retired
        Py_INCREF(retired)
        with nogil:
            result = context_fence(self.ref.core, ring_idx, call_retired, data, NULL)
        if result == -2:
            Py_DECREF(retired)
            raise too_many(self.ref)
        if result:
            Py_DECREF(retired)
            raise KeyError(ring_idx)

    def port(self, *, create_blob=None, destroy_blob=None):
        return ContextPort(self.ref, self._refused, create_blob, destroy_blob)

    def set_patience(self, uint64_t nanoseconds):
        hesper_store_u64(&self.ref.core.polling.patience_ns, nanoseconds)

    def stop(self):
        self.rings.stop()

    # Figures.

    def sample(self, uint64_t interval_ns):
        cdef uint64_t *counts = <uint64_t *>calloc(2 * sample_size(), sizeof(uint64_t))
        if counts == NULL:
            raise MemoryError
        try:
            with nogil:
                sample_loop(self.ref.core, self.ref.stream, counts, interval_ns)
            return {"rings": stages_of(counts), "socket": stages_of(counts + sample_size())}
        finally:
            free(counts)

    def statistics(self):
        cdef RingCore *ring
        cdef uint64_t commands = hesper_counted(&self.ref.stream.commands)
        cdef uint64_t bytes_read = hesper_counted(&self.ref.stream.bytes)
        pthread_mutex_lock(&self.ref.core.monitor.mutex)
        ring = self.ref.core.rings
        while ring != NULL:
            commands += hesper_counted(&ring.stream.commands)
            bytes_read += hesper_counted(&ring.stream.bytes)
            ring = ring.chain
        pthread_mutex_unlock(&self.ref.core.monitor.mutex)
        return {
            "commands": commands,
            "bytes": bytes_read,
            "replies": self.ref.core.replies,
            "objects": hesper_noted(&self.ref.core.objects.live),
            "object_pages": hesper_noted(&self.ref.core.objects.page_count),
            "rings": len(self.rings),
            "handler_calls": self.ref.core.handler_calls,
        }


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


def commands():
    cdef CoreRef ref = CoreRef()
    cdef uint32_t i
    commands_ready(ref.core)
    found = []
    for i in range(hesper_command_count):
        c = &hesper_commands[i]
        if c.number < 0:
            continue
        is_here = (c.level == LEVEL_DEVICE or c.level == LEVEL_INSTANCE
                   or ref.core.rows[i].override != NULL)
        how = "refused" if c.refused != NULL else "kernel" if is_here else "python"
        found.append((c.number, c.name.decode(), how))
    return sorted(found)
