"""The host's Vulkan library and its functions; `vulkan.pyi`."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from hesper_commands cimport COMMAND_vkGetDeviceProcAddr

from hesper.kernel.core.driver cimport queue_leave
from hesper.kernel.core.platform cimport hesper_count, pthread_mutex_lock
from hesper.kernel.core.state cimport QueueState
from hesper.kernel.core.tables cimport *
from hesper.kernel.views cimport View, address_of, write_scalar

from hesper.kernel.errors import ProtocolError, VulkanLoadError
from hesper.kernel.views import command_indices
from hesper.protocol.relations import DEVICE_NUMBERS as _DEVICE_NUMBERS


cdef extern from "dlfcn.h" nogil:
    void *dlopen(const char *path, int flags)
    void *dlsym(void *library, const char *name)
    char *dlerror()
    enum:
        RTLD_NOW
        RTLD_LOCAL

cdef class ProcTable:
    def __cinit__(self):
        # The last entry is no function: it points to the device's limits.
        self.functions = <hesper_function *>calloc(
            hesper_command_count + 1, sizeof(hesper_function))
        if self.functions == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.functions)

    def know_limits(self, View limits not None, numbers):
        memcpy(&self.limits.limits, limits.at, sizeof(self.limits.limits))
        for i, name in enumerate(_DEVICE_NUMBERS):
            self.limits.numbers[i] = numbers[name]
        (<void **>self.functions)[hesper_command_count] = &self.limits

    cdef void fill(self, get_proc_addr get, void *owner, int level) noexcept:
        """Look up every command of that level, under its own name and its aliases."""
        cdef uint32_t i
        cdef const hesper_command *c
        cdef const char *const *alias
        for i in range(hesper_command_count):
            c = &hesper_commands[i]
            if c.level != level or c.call == NULL:
                continue
            self.functions[i] = get(owner, c.name)
            alias = c.aliases
            while self.functions[i] == NULL and alias != NULL and alias[0] != NULL:
                self.functions[i] = get(owner, alias[0])
                alias += 1

    def without(self, names):
        cdef ProcTable table = ProcTable()
        memcpy(table.functions, self.functions, hesper_command_count * sizeof(hesper_function))
        for name in names:
            table.functions[<uint32_t>command_indices[name]] = NULL
        return table

    def __contains__(self, name):
        index = command_indices.get(name)
        return index is not None and self.functions[<uint32_t>index] != NULL

    def call(self, name, /, *args):
        return self.call_with(name, args, NULL)

    cdef object call_with(self, str name, tuple args, QueueState *queue):
        cdef uint32_t index = command_indices[name]
        cdef const hesper_command *c = &hesper_commands[index]
        cdef const hesper_field *f
        cdef uint8_t block[256]
        cdef uint32_t i
        if self.functions[index] == NULL:
            raise ProtocolError(f"the device has no {name}: its extension is not enabled")
        if len(args) != c.field_count:
            raise TypeError(f"{name} takes {c.field_count} parameters, {len(args)} given")
        if c.size > sizeof(block):
            raise TypeError(f"{name} has too many parameters for a direct call")
        memset(block, 0, c.size)
        for i in range(c.field_count):
            f = &hesper_fields[c.fields + i]
            if f.shape == SHAPE_VALUE and f.kind == KIND_SCALAR:
                write_scalar(block + f.offset, f.size, f.flags, args[i])
            else:
                (<uint64_t *>(block + f.offset))[0] = address_of(args[i])
        with nogil:
            if queue != NULL:
                pthread_mutex_lock(&queue.monitor.mutex)
                hesper_count(&queue.calls, 1)
            c.call(self.functions[index], block)
            if queue != NULL:
                queue_leave(queue)
        return result_of(c, block)


cdef object result_of(const hesper_command *c, const uint8_t *block):
    cdef const uint8_t *at = block + c.result_offset
    if c.result == RESULT_VOID:
        return 0
    if c.result == RESULT_I32:
        return (<const int32_t *>at)[0]
    if c.result == RESULT_U32:
        return (<const uint32_t *>at)[0]
    return (<const uint64_t *>at)[0]


cdef class Vulkan:
    def __init__(self, str path):
        cdef bytes name = path.encode()
        cdef const char *text = name
        cdef void *library
        with nogil:
            # Never closed: drivers leave threads and exit handlers behind.
            library = dlopen(text, RTLD_NOW | RTLD_LOCAL)
        if library == NULL:
            raise VulkanLoadError(f"cannot open {path}: {dlerror().decode()}")
        self.get = <get_proc_addr>dlsym(library, b"vkGetInstanceProcAddr")
        if self.get == NULL:
            # Drivers export the loader's entry point only under this name.
            self.get = <get_proc_addr>dlsym(library, b"vk_icdGetInstanceProcAddr")
        if self.get == NULL:
            raise VulkanLoadError(f"{path} is no Vulkan library: it has no vkGetInstanceProcAddr")
        self.globals = ProcTable()
        self.globals.fill(self.get, NULL, LEVEL_GLOBAL)

    def instance_table(self, instance):
        cdef ProcTable table = ProcTable()
        table.fill(self.get, <void *><uint64_t>instance, LEVEL_INSTANCE)
        # vkGetDeviceProcAddr is a device command that only the instance can look up.
        table.functions[COMMAND_vkGetDeviceProcAddr] = self.get(
            <void *><uint64_t>instance, b"vkGetDeviceProcAddr")
        return table

    def device_table(self, ProcTable instance_table, device):
        cdef get_proc_addr get = <get_proc_addr>(
            instance_table.functions[COMMAND_vkGetDeviceProcAddr])
        if get == NULL:
            raise VulkanLoadError("the driver has no vkGetDeviceProcAddr")
        cdef ProcTable table = ProcTable()
        table.fill(get, <void *><uint64_t>device, LEVEL_DEVICE)
        return table
