"""A context's devices and their memory as Python sees them; `devices.pyi`."""

from libc.stdint cimport uint32_t, uint64_t

from hesper_commands cimport HANDLE_VkDevice, HANDLE_VkQueue

from hesper.kernel.core.lost cimport device_lose, is_lost, settle_if_lost
from hesper.kernel.core.memory cimport memory_share
from hesper.kernel.core.nulls cimport NULL_DESCRIPTORS, NULL_INDICES
from hesper.kernel.core.objects cimport Entry, object_find
from hesper.kernel.core.shm_pool cimport ShmRegion
from hesper.kernel.core.state cimport DeviceState, StandIns, device_state, queue_state
from hesper.kernel.core.tables cimport hesper_commands
from hesper.kernel.objects cimport ObjectTable
from hesper.kernel.runtime cimport CoreRef, stand_ins_begin
from hesper.kernel.shm cimport heap_of, region_of
from hesper.kernel.vulkan cimport ProcTable

from hesper.kernel.views import command_indices


cdef class Devices:
    cdef CoreRef ref
    cdef ObjectTable table

    def __init__(self, CoreRef ref not None, ObjectTable objects not None):
        self.ref = ref
        self.table = objects

    cdef DeviceState *state(self, uint64_t device) except NULL:
        cdef Entry *entry = object_find(&self.ref.core.objects, device)
        if entry == NULL or entry.type != HANDLE_VkDevice:
            raise KeyError(f"there is no device {device}")
        return device_state(self.ref.core, entry)

    def describe_memory(self, uint64_t device, types, *, uint32_t shared, uint32_t native,
                        uint32_t sparse, uint32_t handle_types, bint states_buffers):
        cdef DeviceState *state = self.state(device)
        cdef uint32_t i
        if len(types) > 32:
            raise ValueError(f"{len(types)} memory types; Vulkan has 32 at most")
        for i, (host, heap) in enumerate(types):
            state.type_host[i] = host
            state.type_heap[i] = heap_of(heap)
        state.shared_types = shared
        state.native_types = native
        state.sparse_types = sparse
        state.buffer_always = states_buffers
        state.buffer_handle_types = handle_types
        state.type_count = <uint32_t>len(types)

    def import_host_memory(self, uint64_t device, *, uint32_t handle_type, uint64_t alignment,
                           uint64_t granule):
        cdef DeviceState *state = self.state(device)
        state.host_alignment = alignment
        state.host_granule = granule
        state.host_handle_type = handle_type

    def describe_nulls(self, uint64_t device, *, bint descriptors, bint indices, stand_ins=None):
        cdef DeviceState *state = self.state(device)
        cdef StandIns *ins = &state.stand_ins
        state.nulls = (NULL_DESCRIPTORS if descriptors else 0) | (NULL_INDICES if indices else 0)
        if stand_ins is None:
            return
        ins.zeros_size = stand_ins["zeros_size"]
        ins.uniform_range = stand_ins["uniform_range"]
        ins.sink = stand_ins["sink"]
        ins.zero_texels = stand_ins["zero_texels"]
        ins.sink_texels = stand_ins["sink_texels"]
        ins.zero_image = stand_ins["zero_image"]
        ins.sink_image = stand_ins["sink_image"]
        ins.zeros = stand_ins["zeros"]
        stand_ins_begin(self.ref.core)

    def share_memory(self, uint64_t id, *, bint apart=False):
        cdef ShmRegion *region = memory_share(self.ref.core, id, apart)
        if region == NULL:
            raise KeyError(id)
        return region_of(self.ref.core.pool, region)

    def queue_call(self, uint64_t queue, str name, /, *args):
        cdef Entry *entry = object_find(&self.ref.core.objects, queue)
        if entry == NULL or entry.type != HANDLE_VkQueue:
            raise KeyError(f"there is no queue {queue}")
        cdef ProcTable table = self.table.table_of(entry.table)
        return table.call_with(name, (entry.handle, *args), queue_state(self.ref.core, entry))

    def is_lost(self, uint64_t device):
        return bool(is_lost(self.state(device)))

    def lose(self, uint64_t device, str command):
        device_lose(self.ref.core, self.state(device),
                    &hesper_commands[<uint32_t>command_indices[command]])
        with nogil:
            settle_if_lost(self.ref.core)
