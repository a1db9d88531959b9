"""The host's Vulkan library and its functions, for the kernel's other modules."""

from libc.stdint cimport uint8_t, uint32_t

from hesper_commands cimport VkPhysicalDeviceLimits

from hesper.kernel.core.state cimport QueueState
from hesper.kernel.core.tables cimport hesper_command, hesper_function

ctypedef hesper_function (*get_proc_addr)(void *owner, const char *name) noexcept nogil


cdef struct Limits:
    # Of a device, where relations look for them: see `protocol/compiler/relation_rows.py`.
    VkPhysicalDeviceLimits limits
    uint32_t numbers[16]


cdef class ProcTable:
    cdef hesper_function *functions
    cdef Limits limits

    cdef void fill(self, get_proc_addr get, void *owner, int level) noexcept
    cdef object call_with(self, str name, tuple args, QueueState *queue)


cdef class Vulkan:
    cdef get_proc_addr get
    cdef readonly ProcTable globals


cdef object result_of(const hesper_command *c, const uint8_t *block)
