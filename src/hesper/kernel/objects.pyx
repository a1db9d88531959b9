"""The object table as Python sees it; `objects.pyi`."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from hesper_commands cimport HANDLE_VkImage

from hesper.kernel.core.costs cimport ENTRY_COST, type_cost
from hesper.kernel.core.dead cimport dead_result
from hesper.kernel.core.extents cimport staged_image
from hesper.kernel.core.ledger cimport ACCOUNT_OBJECTS, ledger_give
from hesper.kernel.core.memory cimport memory_take
from hesper.kernel.core.objects cimport (
    COMING, DEAD, NO_TYPE, Entry, Extent, Kin, Objects, Walk, object_add, object_extent,
    object_find, object_kin, object_next, object_remove, object_with)
from hesper.kernel.core.platform cimport (
    hesper_add_u64, hesper_load_acquire, hesper_monitor_init, hesper_store_pointer)
from hesper.kernel.core.shm_pool cimport (
    ShmPool, ShmRegion, pool_drop, pool_hold, pool_room, region_release)
from hesper.kernel.core.state cimport DEVICES, QUEUES, Core, DeviceState, QueueState
from hesper.kernel.core.tables cimport FACTS, hesper_function, hesper_handle_names
from hesper.kernel.runtime cimport CoreRef
from hesper.kernel.shm cimport Region
from hesper.kernel.vulkan cimport ProcTable

from hesper.kernel.errors import ProtocolError
from hesper.kernel.views import handle_indices


cdef class Object:
    cdef readonly uint64_t id
    cdef readonly str type
    cdef readonly uint64_t handle
    cdef readonly uint64_t device
    cdef readonly uint64_t parent

    def __repr__(self):
        return f"<{self.type} {self.id}>"


cdef Object object_snapshot(Entry *entry):
    """What an object is; None when another thread has removed it, or has yet to make it."""
    cdef uint32_t type = hesper_load_acquire(&entry.type) & ~<uint32_t>(DEAD | COMING)
    cdef Kin *kin = object_kin(entry)
    cdef Object found
    if type == NO_TYPE:
        return None
    found = Object.__new__(Object)
    found.id = kin.id
    found.type = hesper_handle_names[type - 1].decode()
    found.handle = entry.handle
    found.device = kin.device_id
    found.parent = kin.parent_id
    return found


cdef class Taken:
    # No Python object: the garbage collector takes those away before this ends.
    cdef ShmPool *pool
    cdef ShmRegion *region          # null: none

    def __dealloc__(self):
        if self.region != NULL:
            region_release(self.pool, self.region)
        pool_drop(self.pool)


cdef class ObjectTable:
    def __init__(self, CoreRef ref not None):
        self.ref = ref
        self.tables = {}

    cdef object table_of(self, hesper_function *functions):
        return self.tables[<uint64_t>functions]

    cdef uint64_t id_of(self, uint32_t type, uint64_t handle, uint32_t device) except? 0:
        """Guest id of a host handle; a search, for commands that are rare."""
        cdef Entry *entry
        if handle == 0:
            return 0
        entry = object_with(&self.ref.core.objects, type + 1, handle, device)
        if entry != NULL:
            return object_kin(entry).id
        raise ProtocolError(f"no guest id stands for handle {handle:#x}")

    def add(self, uint64_t id, str type, uint64_t handle, *, uint64_t device=0,
            uint64_t parent=0, ProcTable table=None, Region region=None,
            uint64_t extent=<uint64_t>-1, facts=()):
        cdef Objects *objects = &self.ref.core.objects
        cdef ShmRegion *memory = region.owned() if region is not None else NULL
        cdef uint64_t extra = 0
        cdef uint32_t index = handle_indices[type]
        cdef Entry *owner = NULL
        cdef Entry *entry
        cdef hesper_function *functions = NULL
        cdef uint32_t serial = 0
        cdef uint64_t cost = 0
        cdef bint fits
        cdef Extent size
        cdef uint32_t i
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
        if type == "VkQueue":
            extra = self.queue_index(serial, handle)
        elif type == "VkDevice":
            # Functions and state of a device are kept for as long as a thread might use them.
            if self.device_serial == DEVICES:
                raise ProtocolError(f"more than {DEVICES} devices made in one context")
            self.device_serial += 1
            serial = self.device_serial
            device = id
            self.add_device_state(id, serial)
        # Of what a command makes by `Call.invoke` that is charged there.
        if type != "VkDevice" and type != "VkInstance":
            cost = ENTRY_COST + type_cost(index + 1)
        with nogil:
            fits = pool_room(self.ref.core.pool, ACCOUNT_OBJECTS, cost)
        if not fits:
            raise ProtocolError(f"{type} {id}: the memory limit is reached")
        size.size = extent
        size.texels = 0
        for i in range(FACTS):
            size.facts[i] = <uint32_t>(facts[i] + 1) if i < len(facts) else 0
        entry = object_add(objects, id, index + 1, handle, functions, serial, device, parent,
                           memory, &size, 0)
        if entry == NULL:
            ledger_give(objects.ledger, ACCOUNT_OBJECTS, cost)
            raise ProtocolError(f"more than {objects.limit} objects, or two with id {id}")
        hesper_add_u64(&object_kin(entry).charged, cost)
        if type == "VkQueue":
            entry.extra = extra
        if region is not None:
            region.take()

    cdef uint64_t queue_index(self, uint32_t serial, uint64_t handle) except? 0xffffffff:
        """Where the state of a queue stands: one for all its ids, until a timeline is bound to it.

        A layer may give one queue for several of the guest's, each with a timeline of its own.
        """
        cdef DeviceState *device = self.ref.core.device_by_serial[serial]
        cdef QueueState *state
        cdef uint32_t i
        if device == NULL:
            raise ProtocolError("a VkQueue without its VkDevice")
        for i in range(QUEUES):
            if device.queues[i] == NULL:
                break
            if device.queues[i].handle == handle and device.queues[i].fences == NULL:
                return i
        else:
            raise ProtocolError(f"device {device.id} has more than {QUEUES} queues")
        state = <QueueState *>calloc(1, sizeof(QueueState))
        if state == NULL or hesper_monitor_init(&state.monitor):
            free(state)
            raise MemoryError
        state.device = device
        state.handle = handle
        hesper_store_pointer(<void **>&device.queues[i], state)
        return i

    cdef int add_device_state(self, uint64_t id, uint32_t serial) except -1:
        cdef Core *core = self.ref.core
        cdef DeviceState *state = <DeviceState *>calloc(1, sizeof(DeviceState))
        if state == NULL:
            raise MemoryError
        state.id = id
        state.serial = serial
        state.next = core.devices
        core.device_by_serial[serial] = state
        hesper_store_pointer(<void **>&core.devices, state)
        return 0

    def take(self, Object object not None):
        cdef Entry *entry = object_find(&self.ref.core.objects, object.id)
        cdef ShmRegion *region
        cdef Taken taken
        if entry == NULL or entry.handle != object.handle:
            return None
        region = memory_take(self.ref.core, object.id)
        if not object_remove(&self.ref.core.objects, entry):
            if region != NULL:
                region_release(self.ref.core.pool, region)
            return None
        taken = Taken.__new__(Taken)
        taken.pool = pool_hold(self.ref.core.pool)
        taken.region = region
        return taken

    def mark_staged(self, uint64_t id):
        cdef Entry *entry = object_find(&self.ref.core.objects, id)
        if entry != NULL and entry.type == HANDLE_VkImage:
            object_extent(entry).size |= staged_image()

    def size_of(self, str type, uint64_t handle, uint64_t device):
        cdef Entry *owner = object_find(&self.ref.core.objects, device)
        cdef Entry *entry = object_with(&self.ref.core.objects, handle_indices[type] + 1, handle,
                                        owner.device if owner != NULL else 0)
        return object_extent(entry).size if entry != NULL else 0

    def remove(self, uint64_t id):
        cdef Entry *entry = object_find(&self.ref.core.objects, id)
        cdef ShmRegion *region = memory_take(self.ref.core, id)
        if entry != NULL:
            object_remove(&self.ref.core.objects, entry)
        if region != NULL:
            region_release(self.ref.core.pool, region)

    def lookup(self, uint64_t id, type=None):
        cdef Entry *entry = object_find(&self.ref.core.objects, id)
        if entry == NULL or entry.type & DEAD:
            return None
        found = object_snapshot(entry)
        return found if found is not None and (type is None or found.type == type) else None

    def failure(self, uint64_t id):
        cdef Entry *entry = object_find(&self.ref.core.objects, id)
        return dead_result(entry) if entry != NULL and entry.type & DEAD else None

    def all(self, *, device=None, type=None):
        cdef Walk walk
        cdef Entry *entry
        cdef Object item
        memset(&walk, 0, sizeof(walk))
        found = []
        entry = object_next(&self.ref.core.objects, &walk)
        while entry != NULL:
            item = object_snapshot(entry)
            if item is not None:
                found.append(item)
            entry = object_next(&self.ref.core.objects, &walk)
        return [
            item for item in found
            if (device is None or item.device == device) and (type is None or item.type == type)
        ]
