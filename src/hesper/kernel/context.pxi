# One guest context: the engine, and its rings.

cdef class Ring:
    cdef RingCore *core
    cdef readonly uint64_t id
    cdef uint32_t number            # how many there had been before, and one
    cdef object thread
    cdef Engine engine

    @property
    def head(self):
        return self.core.published if self.core != NULL else 0

    def _serve(self):
        """Body of the ring's thread."""
        cdef int result
        cdef int slot = hesper_crash_enter(self.number, &self.core.stream.stage,
                                           &self.core.stream.number)
        with nogil:
            result = ring_loop(self.core)
            hesper_crash_leave(slot)
        if result and not self.engine.core.fatal:
            self.engine.break_off(describe(&self.core.stream))


cdef class Engine:
    cdef Core *core
    cdef Stream *stream
    cdef readonly Vulkan vulkan
    cdef list handlers
    cdef dict tables                # address of the functions: ProcTable
    cdef dict ring_objects
    cdef readonly Store store
    cdef object on_fatal
    cdef object on_notice
    cdef object watch
    cdef QueueState *queues
    cdef TimelineCore *timelines    # all there ever were: a thread may still look at one
    cdef uint32_t device_serial
    cdef uint32_t ring_number
    cdef int crash_slot

    def __cinit__(self):
        self.crash_slot = -1
        self.core = <Core *>calloc(1, sizeof(Core))
        self.stream = <Stream *>calloc(1, sizeof(Stream))
        if self.core == NULL or self.stream == NULL:
            raise MemoryError
        self.core.handled = <uint8_t *>calloc(hesper_command_count, 1)
        self.core.hot = <Hot *>calloc(hesper_number_count, sizeof(Hot))
        self.core.with_lost_device = <uint8_t *>calloc(hesper_command_count, 1)
        self.core.harmless = <uint8_t *>calloc(hesper_command_count, 1)
        self.core.failure_told = <uint8_t *>calloc(hesper_command_count, 1)
        if (self.core.handled == NULL or self.core.hot == NULL
                or self.core.with_lost_device == NULL or self.core.harmless == NULL
                or self.core.failure_told == NULL
                or hesper_monitor_init(&self.core.monitor)):
            raise MemoryError

    def __init__(self, Vulkan vulkan, dict handlers, *, size_t arena_limit, uint32_t object_limit,
                 uint32_t resource_limit, uint64_t memory_limit, on_fatal, on_notice=None,
                 asleep=()):
        self.vulkan = vulkan
        self.tables = {}
        self.ring_objects = {}
        self.on_fatal = on_fatal
        self.on_notice = on_notice
        self.handlers = [None] * hesper_command_count
        for name, handler in handlers.items():
            index = command_indices[name]
            self.handlers[index] = handler
            self.core.handled[index] = name not in asleep
        fill_hot(self.core)
        self.core.engine = <void *>self
        self.core.arena_limit = arena_limit
        self.core.objects.limit = object_limit
        self.core.resource_limit = resource_limit
        self.store = Store(memory_limit)
        # Held apart: when the engine goes, its Python objects may have gone before it.
        self.core.store = store_hold(self.store.core)
        self.core.watch_ns = <uint64_t>-1
        self.core.lookout_ns = LOOKOUT_NS
        self.stream.core = self.core
        if arena_init(&self.stream.arena, arena_limit):
            raise MemoryError
        # The thread that makes the engine is the one that submits to it.
        self.crash_slot = hesper_crash_enter(0, &self.stream.stage, &self.stream.number)

    def __dealloc__(self):
        cdef QueueState *queue
        cdef DeviceState *device
        cdef TimelineCore *timeline
        hesper_crash_leave(self.crash_slot)
        if self.core == NULL:
            return
        while self.queues != NULL:
            queue = self.queues
            self.queues = queue.next
            hesper_monitor_destroy(&queue.monitor)
            free(queue)
        while self.timelines != NULL:
            timeline = self.timelines
            self.timelines = timeline.next
            hesper_monitor_destroy(&timeline.monitor)
            timeline_free(timeline)
        while self.core.devices != NULL:
            device = self.core.devices
            self.core.devices = device.next
            free(device)
        feedback_free(self.core)
        if self.stream != NULL:
            arena_free(&self.stream.arena)
            free(self.stream)
        resources_free(self.core)
        store_drop(self.core.store)
        objects_free(&self.core.objects)
        hesper_monitor_destroy(&self.core.monitor)
        free(self.core.handled)
        free(self.core.hot)
        free(self.core.with_lost_device)
        free(self.core.harmless)
        free(self.core.failure_told)
        free(self.core)

    def change_layouts(self):
        for index in (PIPELINE_BARRIER, PIPELINE_BARRIER_2, WAIT_EVENTS, WAIT_EVENTS_2):
            self.core.hot[hesper_commands[<uint32_t>index].number].kind = <uint8_t>HOT_NO
        hesper_store_release(&self.core.changes_layouts, 1)

    def wake(self, names):
        cdef uint32_t index
        for name in names:
            index = command_indices[name]
            if self.handlers[index] is None:
                raise KeyError(name)
            self.core.handled[index] = 1
            self.core.hot[hesper_commands[index].number].kind = <uint8_t>HOT_NO

    # Failing.

    @property
    def fatal(self):
        return bool(hesper_load_acquire(&self.core.fatal))

    def poison(self, reason):
        self.break_off(reason)

    cdef object break_off(self, str reason):
        cdef bint first = not hesper_load_acquire(&self.core.fatal)
        with nogil:
            core_poison(self.core)
        if first:
            self.on_fatal(reason)

    # Streams.

    def submit(self, data):
        cdef const uint8_t[::1] view = data
        cdef const uint8_t *start
        cdef uint64_t size = view.shape[0]
        cdef int result
        if size == 0:
            return
        start = &view[0]
        with nogil:
            result = run_span(self.stream, start, size)
        if result:
            raise self.refusal()

    cdef object refusal(self):
        """Poison the context, whose own stream has failed; return what to raise."""
        if self.stream.error == ERROR_NONE:
            return ProtocolError("the context is poisoned")
        reason = describe(self.stream)
        self.break_off(reason)
        return ProtocolError(reason)

    def sink(self):
        cdef EngineSink sink = EngineSink.__new__(EngineSink)
        sink.engine = self
        sink.stream = self.stream
        self.core.runs_ahead = True
        return sink

    def set_patience(self, uint64_t nanoseconds):
        hesper_store_u64(&self.core.patience_ns, nanoseconds)

    # Lost devices.

    def is_lost(self, uint64_t device):
        return bool(is_lost(self.device_state(device)))

    def lose_device(self, uint64_t device, str command):
        device_lose(self.core, self.device_state(device),
                    hesper_commands[<uint32_t>command_indices[command]].name)
        with nogil:
            settle_if_lost(self.core)

    def set_lookout(self, uint64_t nanoseconds):
        cdef TimelineCore *timeline = self.timelines
        hesper_store_u64(&self.core.lookout_ns, nanoseconds)
        while timeline != NULL:
            with nogil:
                timeline_wake(timeline)
            timeline = timeline.next

    # Fences.

    def bind_timeline(self, uint32_t ring_idx, uint64_t queue, on_refused):
        cdef Objects *objects = &self.core.objects
        cdef Entry *entry = object_find(objects, queue)
        cdef Timeline timeline = Timeline.__new__(Timeline)
        if entry == NULL or entry.type != QUEUE_TYPE + 1:
            raise KeyError(f"there is no queue {queue}")
        if not 0 < ring_idx < TIMELINES:
            raise ProtocolError(f"timeline {ring_idx} is out of range")
        if self.core.timelines[ring_idx] != NULL:
            raise ProtocolError(f"timeline {ring_idx} is bound already")
        if (<QueueState *>entry.extra).fences != NULL:
            raise ProtocolError(f"queue {queue} has a timeline already")
        timeline.core = timeline_new(
            self.core, entry, object_find(objects, object_kin(entry).device_id))
        timeline.core.next = self.timelines
        self.timelines = timeline.core
        pthread_mutex_lock(&timeline.core.queue.monitor.mutex)
        timeline.core.queue.fences = &timeline.core.fences
        timeline.core.queue.timeline = timeline.core
        pthread_mutex_unlock(&timeline.core.queue.monitor.mutex)
        pthread_mutex_lock(&self.core.monitor.mutex)
        self.core.timelines[ring_idx] = timeline.core
        pthread_mutex_unlock(&self.core.monitor.mutex)
        timeline.engine = self
        timeline.ring_idx = ring_idx
        timeline.on_refused = on_refused
        timeline.thread = threading.Thread(target=timeline._run, name=f"fences-{ring_idx}",
                                           daemon=True)
        timeline.thread.start()
        return timeline

    def fence(self, uint32_t ring_idx, retired):
        cdef int result
        cdef void *data = <void *>retired
        Py_INCREF(retired)
        with nogil:
            result = core_fence(self.core, ring_idx, call_retired, data, NULL)
        if result:
            Py_DECREF(retired)
            raise KeyError(ring_idx)

    # Resources.

    def add_resource(self, uint32_t resource_id, uint64_t address, uint64_t size):
        cdef Resource *resource = self.new_resource(resource_id)
        resource.is_stream = True
        resource.data = <uint8_t *>address
        resource.size = size
        self.link_resource(resource)

    def add_blob(self, uint32_t resource_id, Region region not None, uint64_t size, *,
                 bint is_stream):
        cdef Resource *resource = self.new_resource(resource_id)
        resource.is_stream = is_stream
        resource.region = region.take()
        resource.data = resource.region.data
        resource.size = size
        self.link_resource(resource)

    cdef Resource *new_resource(self, uint32_t resource_id) except NULL:
        cdef Resource *resource = <Resource *>calloc(1, sizeof(Resource))
        if resource == NULL:
            raise MemoryError
        resource.id = resource_id
        return resource

    cdef int link_resource(self, Resource *resource) except -1:
        resource_id = resource.id
        if not resource_add(self.core, resource):
            resource_free(self.core, resource)
            raise ValueError(f"resource {resource_id} exists, or there are too many")
        return 0

    def has_resource(self, uint32_t resource_id):
        cdef Resource *resource
        pthread_mutex_lock(&self.core.monitor.mutex)
        resource = resource_find(self.core, resource_id)
        pthread_mutex_unlock(&self.core.monitor.mutex)
        return resource != NULL

    def share_resource(self, uint32_t resource_id):
        cdef Resource *resource
        cdef RegionCore *region = NULL
        pthread_mutex_lock(&self.core.monitor.mutex)
        resource = resource_find(self.core, resource_id)
        if resource != NULL and resource.region != NULL:
            region = resource.region
            region_share(self.core.store, region)
        pthread_mutex_unlock(&self.core.monitor.mutex)
        if region == NULL:
            raise KeyError(resource_id)
        return region_of(self.core.store, region)

    @property
    def resource_count(self):
        return self.core.resource_count

    @property
    def resource_limit(self):
        return self.core.resource_limit

    def resources(self):
        cdef Resource *resource
        cdef uint32_t i
        found = []
        pthread_mutex_lock(&self.core.monitor.mutex)
        for i in range(ENGINE_RESOURCES):
            resource = self.core.resources[i]
            while resource != NULL:
                found.append(resource.id)
                resource = resource.chain
        pthread_mutex_unlock(&self.core.monitor.mutex)
        return found

    def remove_resource(self, uint32_t resource_id):
        cdef Resource *resource
        pthread_mutex_lock(&self.core.monitor.mutex)
        resource = resource_unlink(self.core, resource_id)
        pthread_mutex_unlock(&self.core.monitor.mutex)
        if resource == NULL:
            raise KeyError(resource_id)
        if resource.is_stream and self.writes_to(resource_id):
            self.break_off(f"resource {resource_id} is destroyed while a ring or replies lie in it")
            self.stop()
        with nogil:
            pthread_mutex_lock(&self.core.monitor.mutex)
            while resource.users:
                pthread_cond_wait(&self.core.monitor.condition, &self.core.monitor.mutex)
            pthread_mutex_unlock(&self.core.monitor.mutex)
        resource_free(self.core, resource)

    def unreferenced(self):
        return resources_last(self.core)

    # Device memory.

    def keep_memory(self, uint64_t id, Region region not None):
        cdef RegionCore *core = region.owned()
        if not memory_keep(self.core, id, core):
            raise KeyError(f"there is no VkDeviceMemory {id}, or it has its memory")
        region.take()

    def share_memory(self, uint64_t id, *, bint apart=False):
        cdef RegionCore *region = memory_share(self.core, id, apart)
        if region == NULL:
            raise KeyError(id)
        return region_of(self.core.store, region)

    def set_memory_types(self, uint64_t device, types, *, uint32_t shared, uint32_t native,
                         uint32_t sparse):
        cdef DeviceState *state = self.device_state(device)
        cdef uint32_t i
        if len(types) > 32:
            raise ValueError(f"{len(types)} memory types; Vulkan has 32 at most")
        for i, (host, heap) in enumerate(types):
            state.type_host[i] = host
            state.type_heap[i] = heap_of(heap)
        state.shared_types = shared
        state.native_types = native
        state.sparse_types = sparse
        state.type_count = <uint32_t>len(types)

    def set_host_memory(self, uint64_t device, *, uint32_t handle_type, uint64_t alignment,
                        uint64_t granule):
        cdef DeviceState *state = self.device_state(device)
        state.host_alignment = alignment
        state.host_granule = granule
        state.host_handle_type = handle_type

    cdef bint writes_to(self, uint32_t resource_id):
        cdef RingCore *ring
        cdef bint found = (self.stream.reply_start != NULL
                           and self.stream.reply_resource == resource_id)
        pthread_mutex_lock(&self.core.monitor.mutex)
        ring = self.core.rings
        while ring != NULL:
            if ring.resource == resource_id or (
                    ring.stream.reply_start != NULL
                    and ring.stream.reply_resource == resource_id):
                found = True
            ring = ring.chain
        pthread_mutex_unlock(&self.core.monitor.mutex)
        return found

    # Objects.

    cdef object table_of(self, hesper_function *functions):
        return self.tables[<uint64_t>functions]

    cdef uint64_t id_of(self, uint32_t type, uint64_t handle, uint32_t device) except? 0:
        """Guest id of a host handle; a search, for commands that are rare."""
        cdef Entry *entry
        if handle == 0:
            return 0
        entry = object_with(&self.core.objects, type, handle, device)
        if entry != NULL:
            return object_kin(entry).id
        raise ProtocolError(f"no guest id stands for handle {handle:#x}")

    def add_object(self, uint64_t id, str type, uint64_t handle, *, uint64_t device=0,
                   uint64_t parent=0, ProcTable table=None):
        cdef Objects *objects = &self.core.objects
        cdef uint32_t index = handle_indices[type]
        cdef Entry *owner = NULL
        cdef Entry *entry
        cdef hesper_function *functions = NULL
        cdef uint32_t serial = 0
        if id == 0 or object_find(objects, id) != NULL:
            raise ProtocolError(f"object id {id} for a new {type} is 0 or taken")
        if table is not None:
            functions = table.functions
            self.tables[<uint64_t>functions] = table
        if device:
            owner = object_find(objects, device)
        elif parent:
            owner = object_find(objects, parent)
        if owner != NULL:
            serial = owner.device
            if functions == NULL:
                functions = owner.table
        if type == "VkDevice":
            # Functions and state of a device are kept for as long as a thread might use them.
            if self.device_serial == DEVICES:
                raise ProtocolError(f"more than {DEVICES} devices made in one context")
            self.device_serial += 1
            serial = self.device_serial
            device = id
        entry = object_add(objects, id, index + 1, handle, functions, serial, device, parent)
        if entry == NULL:
            raise ProtocolError(f"more than {objects.limit} objects")
        if type == "VkQueue":
            entry.extra = self.new_queue_state(
                <DeviceState *>owner.extra if owner != NULL and device else NULL)
        elif type == "VkDevice":
            entry.extra = self.new_device_state(id, serial)

    cdef void *new_queue_state(self, DeviceState *device) except NULL:
        cdef QueueState *state = <QueueState *>calloc(1, sizeof(QueueState))
        if state == NULL or hesper_monitor_init(&state.monitor):
            raise MemoryError
        state.device = device
        state.next = self.queues
        self.queues = state
        return state

    cdef void *new_device_state(self, uint64_t id, uint32_t serial) except NULL:
        cdef DeviceState *state = <DeviceState *>calloc(1, sizeof(DeviceState))
        if state == NULL:
            raise MemoryError
        state.id = id
        state.serial = serial
        state.next = self.core.devices
        hesper_store_pointer(<void **>&self.core.devices, state)
        return state

    def remove_object(self, uint64_t id):
        cdef Entry *entry = object_find(&self.core.objects, id)
        cdef RegionCore *region = memory_take(self.core, id)
        if entry != NULL:
            object_remove(&self.core.objects, entry)
        if region != NULL:
            region_release(self.core.store, region)

    def lookup(self, uint64_t id, type=None):
        cdef Entry *entry = object_find(&self.core.objects, id)
        if entry == NULL or entry.type & DEAD:
            return None
        found = object_snapshot(entry)
        return found if type is None or found.type == type else None

    def failure(self, uint64_t id):
        cdef Entry *entry = object_find(&self.core.objects, id)
        return dead_result(entry) if entry != NULL and entry.type & DEAD else None

    def objects(self, *, device=None, type=None):
        cdef Walk walk
        cdef Entry *entry
        cdef Object item
        memset(&walk, 0, sizeof(walk))
        found = []
        entry = object_next(&self.core.objects, &walk)
        while entry != NULL:
            found.append(object_snapshot(entry))
            entry = object_next(&self.core.objects, &walk)
        return [
            item for item in found
            if (device is None or item.device == device) and (type is None or item.type == type)
        ]

    def queue_call(self, uint64_t queue, str name, /, *args):
        cdef Entry *entry = object_find(&self.core.objects, queue)
        if entry == NULL or entry.type != QUEUE_TYPE + 1:
            raise KeyError(f"there is no queue {queue}")
        cdef ProcTable table = self.table_of(entry.table)
        return table.call_with(name, (entry.handle, *args), <QueueState *>entry.extra)

    def set_external_buffers(self, uint64_t device, uint32_t handle_types, *, bint always):
        cdef DeviceState *state = self.device_state(device)
        state.buffer_always = always
        state.buffer_handle_types = handle_types

    cdef DeviceState *device_state(self, uint64_t device) except NULL:
        cdef Entry *entry = object_find(&self.core.objects, device)
        if entry == NULL or entry.type != handle_indices["VkDevice"] + 1:
            raise KeyError(f"there is no device {device}")
        return <DeviceState *>entry.extra

    # Rings.

    def create_ring(self, uint64_t ring_id, View info, *, uint64_t alive_interval_us=0):
        cdef RingCore *core
        if info.struct_ != "VkRingCreateInfoMESA":
            raise TypeError(f"{info.struct_} describes no ring")
        if ring_id in self.ring_objects:
            raise ProtocolError(f"ring {ring_id} exists")
        if alive_interval_us and self.watch is None:
            self.start_watch()
        core = ring_new(self.core, ring_id, info)
        cdef Ring ring = Ring.__new__(Ring)
        ring.core = core
        ring.id = ring_id
        self.ring_number += 1
        ring.number = self.ring_number
        ring.engine = self
        self.ring_objects[ring_id] = ring
        if alive_interval_us:
            # Earlier than promised, so that a late wake-up is not a missed one.
            self.core.watch_ns = min(self.core.watch_ns, max(alive_interval_us * 750, 1000000))
            core.monitored = True
            hesper_set_bits(core.status, STATUS_ALIVE)
        pthread_mutex_lock(&self.core.monitor.mutex)
        core.chain = self.core.rings
        self.core.rings = core
        if alive_interval_us:
            hesper_timer_set(&self.core.watch_timer, self.core.watch_ns)
        pthread_cond_broadcast(&self.core.monitor.condition)
        pthread_mutex_unlock(&self.core.monitor.mutex)
        ring.thread = threading.Thread(target=ring._serve, name=f"ring-{ring.number}",
                                       daemon=True)
        try:
            ring.thread.start()
        except RuntimeError as error:
            # The process or its user has as many threads as may be.
            self.end_ring(ring)
            raise ProtocolError(f"no thread for the ring: {error}") from None
        return ring

    cdef object start_watch(self):
        if hesper_timer_init(&self.core.watch_timer):
            raise ProtocolError("no descriptor for the timer of a ring's signs of life")
        self.watch = threading.Thread(target=self._watch, name="ring-watch", daemon=True)
        try:
            self.watch.start()
        except RuntimeError as error:
            self.watch = None
            hesper_timer_destroy(&self.core.watch_timer)
            raise ProtocolError(f"no thread for the ring: {error}") from None

    def _watch(self):
        """Body of the thread that shows signs of life to the guest."""
        with nogil:
            watch_loop(self.core)

    def destroy_ring(self, uint64_t ring_id):
        cdef Ring ring = self.ring_objects.get(ring_id)
        if ring is None:
            raise ProtocolError(f"there is no ring {ring_id}")
        if ring.thread is threading.current_thread():
            raise ProtocolError(f"ring {ring_id} is destroyed from inside itself")
        self.end_ring(ring)

    cdef object end_ring(self, Ring ring):
        """Stop the thread, take the ring off the list, free it."""
        cdef RingCore **link
        hesper_store_release(&ring.core.stopping, 1)
        with nogil:
            ring_wake(ring.core)
        if ring.thread.ident is not None:
            ring.thread.join()
        pthread_mutex_lock(&self.core.monitor.mutex)
        link = &self.core.rings
        while link[0] != NULL and link[0] != ring.core:
            link = &link[0].chain
        if link[0] != NULL:
            link[0] = ring.core.chain
        pthread_mutex_unlock(&self.core.monitor.mutex)
        if self.core.ahead_of == ring.core:
            self.core.ahead_of = NULL
        with nogil:
            ring_drop_deferred(ring.core)
        self.ring_objects.pop(ring.id, None)
        self.stream.commands += ring.core.stream.commands
        self.stream.bytes += ring.core.stream.bytes
        ring_free(ring.core)
        ring.core = NULL

    def rings(self):
        return list(self.ring_objects.values())

    def stop(self):
        hesper_store_release(&self.core.stopping, 1)
        for ring in list(self.ring_objects.values()):
            if (<Ring>ring).thread is not threading.current_thread():
                self.end_ring(ring)
        if self.watch is not None:
            with nogil:
                watch_stop(self.core)
            self.watch.join()
            self.watch = None
            hesper_timer_destroy(&self.core.watch_timer)

    def sample(self, uint64_t interval_ns):
        cdef uint64_t *counts = <uint64_t *>calloc(2 * sample_size(), sizeof(uint64_t))
        if counts == NULL:
            raise MemoryError
        try:
            with nogil:
                sample_loop(self.core, self.stream, counts, interval_ns)
            return {"rings": stages_of(counts), "socket": stages_of(counts + sample_size())}
        finally:
            free(counts)

    def statistics(self):
        cdef RingCore *ring
        cdef uint64_t commands = self.stream.commands
        cdef uint64_t bytes_read = self.stream.bytes
        pthread_mutex_lock(&self.core.monitor.mutex)
        ring = self.core.rings
        while ring != NULL:
            commands += ring.stream.commands
            bytes_read += ring.stream.bytes
            ring = ring.chain
        pthread_mutex_unlock(&self.core.monitor.mutex)
        return {
            "commands": commands,
            "bytes": bytes_read,
            "replies": self.core.replies,
            "objects": self.core.objects.live,
            "object_pages": self.core.objects.page_count,
            "rings": len(self.ring_objects),
            "handler_calls": self.core.handler_calls,
        }
