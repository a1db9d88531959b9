"""A context's rings and their threads as Python sees them; `rings.pyi`."""

import threading

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from hesper_commands cimport VkRingCreateInfoMESA

from hesper.kernel.core.alive cimport watch_stop
from hesper.kernel.core.arena cimport arena_init
from hesper.kernel.core.ledger cimport (
    ACCOUNT_RINGS, LIMIT_THREADS, ledger_add, ledger_give, ledger_remove)
from hesper.kernel.core.platform cimport (
    hesper_count, hesper_load_acquire, hesper_monitor_init, hesper_set_bits, hesper_store_release,
    hesper_timer_destroy, hesper_timer_init, hesper_timer_set, pthread_cond_broadcast,
    pthread_mutex_lock, pthread_mutex_unlock)
from hesper.kernel.core.progress cimport ring_drop_deferred, ring_wake
from hesper.kernel.core.resources cimport stream_find
from hesper.kernel.core.ring cimport ring_cost, ring_free
from hesper.kernel.core.shm_pool cimport pool_room
from hesper.kernel.core.state cimport STATUS_ALIVE, Core, Resource, RingCore
from hesper.kernel.crashes cimport crash_enter, crash_leave
from hesper.kernel.messages cimport describe
from hesper.kernel.runtime cimport CoreRef, alive_serve, ring_serve
from hesper.kernel.views cimport View

from hesper.kernel.errors import ProtocolError

cdef enum:
    RING_BUFFER_LIMIT = 16 << 20


cdef RingCore *ring_new(Core *core, uint64_t ring_id, const VkRingCreateInfoMESA *info) except NULL:
    """Check the layout the guest asks for.  Raises ProtocolError."""
    cdef Resource *resource
    cdef uint8_t *data = NULL
    cdef uint64_t available = 0
    cdef uint32_t resource_id = info.resourceId
    cdef uint64_t buffer_size = info.bufferSize
    pthread_mutex_lock(&core.monitor.mutex)
    resource = stream_find(core, resource_id)
    if resource != NULL:
        data = resource.data
        available = resource.size
    pthread_mutex_unlock(&core.monitor.mutex)
    if data == NULL:
        raise ProtocolError(f"ring {ring_id}: there is no resource {resource_id}")
    # Python's numbers: no sum of them overflows.
    offset, size = <object>info.offset, <object>info.size
    if offset + size > available:
        raise ProtocolError(f"ring {ring_id}: {offset}+{size} lies outside its resource")
    areas = {
        "head": (info.headOffset, 4),
        "tail": (info.tailOffset, 4),
        "status": (info.statusOffset, 4),
        "buffer": (info.bufferOffset, info.bufferSize),
        "extra": (info.extraOffset, info.extraSize),
    }
    for name, (start, length) in areas.items():
        if start + length > size or (offset + start) & 3:
            raise ProtocolError(
                f"ring {ring_id}: {name} at {start}+{length} is outside or unaligned")
        for other, (begin, extent) in areas.items():
            if name < other and start < begin + extent and begin < start + length:
                raise ProtocolError(f"ring {ring_id}: {name} and {other} overlap")
    if not 8 <= buffer_size <= RING_BUFFER_LIMIT or buffer_size & (buffer_size - 1):
        raise ProtocolError(f"ring {ring_id}: a buffer of {buffer_size} bytes is no power of two "
                            f"up to {RING_BUFFER_LIMIT}")
    data += info.offset
    cdef RingCore *ring = <RingCore *>calloc(1, sizeof(RingCore))
    if ring == NULL:
        raise MemoryError
    ring.id = ring_id
    ring.resource = resource_id
    ring.head = <uint32_t *>(data + info.headOffset)
    ring.tail = <uint32_t *>(data + info.tailOffset)
    ring.status = <uint32_t *>(data + info.statusOffset)
    ring.buffer = data + info.bufferOffset
    ring.extra = data + info.extraOffset
    ring.extra_size = info.extraSize
    ring.size = <uint32_t>buffer_size
    ring.mask = ring.size - 1
    ring.idle_ns = info.idleTimeout
    ring.stream.core = core
    ring.stream.ring = ring
    ring.linear = <uint8_t *>malloc(ring.size)
    if (ring.linear == NULL or hesper_monitor_init(&ring.monitor)
            or arena_init(&ring.stream.arena, core.arena_limit, core.pool)):
        free(ring.linear)
        free(ring)
        raise MemoryError
    if not ring_charge(core, ring):
        ring_free(ring)
        raise ProtocolError(f"ring {ring_id}: the memory limit is reached, or that of threads")
    if hesper_load_acquire(ring.head) or hesper_load_acquire(ring.status):
        ring_give(core, ring)
        ring_free(ring)
        raise ProtocolError(f"ring {ring_id}: head and status must be 0 at first")
    return ring


cdef bint ring_charge(Core *core, const RingCore *ring):
    """Take what a ring costs; False, with the limit noted, when that is not left."""
    cdef bint fits
    with nogil:
        fits = pool_room(core.pool, ACCOUNT_RINGS, ring_cost(ring))
    if fits and not ledger_add(&core.pool.ledger, LIMIT_THREADS, 1):
        ledger_give(&core.pool.ledger, ACCOUNT_RINGS, ring_cost(ring))
        fits = False
    return fits


cdef void ring_give(Core *core, const RingCore *ring):
    ledger_give(&core.pool.ledger, ACCOUNT_RINGS, ring_cost(ring))
    ledger_remove(&core.pool.ledger, LIMIT_THREADS, 1)


cdef class Ring:
    cdef RingCore *core
    cdef readonly uint64_t id
    cdef uint32_t number            # how many there had been before, and one
    cdef object thread
    cdef Rings owner

    @property
    def head(self):
        return self.core.published if self.core != NULL else 0

    def _serve(self):
        """Body of the ring's thread."""
        cdef int result
        cdef int slot = crash_enter(self.number, &self.core.stream.stage, &self.core.stream.number)
        with nogil:
            result = ring_serve(self.core)
            crash_leave(slot)
        if result and not hesper_load_acquire(&self.owner.ref.core.fatal):
            self.owner.failed(describe(&self.core.stream))


cdef class Rings:
    cdef CoreRef ref
    cdef readonly dict by_id
    cdef uint32_t made              # that there ever were
    cdef object failed              # called with the reason when a ring's stream is wrong
    cdef object watch               # the thread that shows signs of life

    def __init__(self, CoreRef ref not None, failed):
        self.ref = ref
        self.by_id = {}
        self.failed = failed

    def create(self, uint64_t ring_id, View info, *, uint64_t alive_interval_us=0, int nice=0):
        cdef RingCore *core
        if info.struct_ != "VkRingCreateInfoMESA":
            raise TypeError(f"{info.struct_} describes no ring")
        if ring_id in self.by_id:
            raise ProtocolError(f"ring {ring_id} exists")
        if alive_interval_us and self.watch is None:
            self.start_watch()
        core = ring_new(self.ref.core, ring_id, <const VkRingCreateInfoMESA *>info.at)
        cdef Ring ring = Ring.__new__(Ring)
        core.nice = nice
        ring.core = core
        ring.id = ring_id
        self.made += 1
        ring.number = self.made
        ring.owner = self
        self.by_id[ring_id] = ring
        if alive_interval_us:
            # Earlier than promised, so that a late wake-up is not a missed one.
            self.ref.core.watch_ns = min(self.ref.core.watch_ns,
                                         max(alive_interval_us * 750, 1000000))
            core.monitored = True
            hesper_set_bits(core.status, STATUS_ALIVE)
        pthread_mutex_lock(&self.ref.core.monitor.mutex)
        core.chain = self.ref.core.rings
        self.ref.core.rings = core
        if alive_interval_us:
            hesper_timer_set(&self.ref.core.watch_timer, self.ref.core.watch_ns)
        pthread_cond_broadcast(&self.ref.core.monitor.condition)
        pthread_mutex_unlock(&self.ref.core.monitor.mutex)
        ring.thread = threading.Thread(target=ring._serve, name=f"ring-{ring.number}",
                                       daemon=True)
        try:
            ring.thread.start()
        except RuntimeError as error:
            # The process or its user has as many threads as may be.
            self.end(ring)
            raise ProtocolError(f"no thread for the ring: {error}") from None
        return ring

    cdef object start_watch(self):
        if hesper_timer_init(&self.ref.core.watch_timer):
            raise ProtocolError("no timer for a ring's signs of life")
        self.watch = threading.Thread(target=self._watch, name="ring-watch", daemon=True)
        try:
            self.watch.start()
        except RuntimeError as error:
            self.watch = None
            hesper_timer_destroy(&self.ref.core.watch_timer)
            raise ProtocolError(f"no thread for the ring: {error}") from None

    def _watch(self):
        """Body of the thread that shows signs of life to the guest."""
        with nogil:
            alive_serve(self.ref.core)

    def destroy(self, uint64_t ring_id):
        cdef Ring ring = self.by_id.get(ring_id)
        if ring is None:
            raise ProtocolError(f"there is no ring {ring_id}")
        if ring.thread is threading.current_thread():
            raise ProtocolError(f"ring {ring_id} is destroyed from inside itself")
        self.end(ring)

    cdef object end(self, Ring ring):
        """Stop the thread, take the ring off the list, free it."""
        cdef RingCore **link
        hesper_store_release(&ring.core.stopping, 1)
        with nogil:
            ring_wake(ring.core)
        if ring.thread.ident is not None:
            ring.thread.join()
        pthread_mutex_lock(&self.ref.core.monitor.mutex)
        link = &self.ref.core.rings
        while link[0] != NULL and link[0] != ring.core:
            link = &link[0].chain
        if link[0] != NULL:
            link[0] = ring.core.chain
        pthread_mutex_unlock(&self.ref.core.monitor.mutex)
        if self.ref.core.ahead_of == ring.core:
            self.ref.core.ahead_of = NULL
        with nogil:
            ring_drop_deferred(ring.core)
        self.by_id.pop(ring.id, None)
        hesper_count(&self.ref.stream.commands, ring.core.stream.commands)
        hesper_count(&self.ref.stream.bytes, ring.core.stream.bytes)
        ring_give(self.ref.core, ring.core)
        ring_free(ring.core)
        ring.core = NULL

    def __iter__(self):
        return iter(list(self.by_id.values()))

    def __len__(self):
        return len(self.by_id)

    def stop(self):
        hesper_store_release(&self.ref.core.stopping, 1)
        hesper_store_release(&self.ref.core.pool.ledger.ending, 1)
        for ring in self:
            if (<Ring>ring).thread is not threading.current_thread():
                self.end(ring)
        if self.watch is not None:
            with nogil:
                watch_stop(self.ref.core)
            self.watch.join()
            self.watch = None
            hesper_timer_destroy(&self.ref.core.watch_timer)
