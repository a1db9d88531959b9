"""The object table as Python sees it, for the kernel's other modules."""

from libc.stdint cimport uint32_t, uint64_t

from hesper.kernel.core.tables cimport hesper_function
from hesper.kernel.runtime cimport CoreRef


cdef class ObjectTable:
    cdef CoreRef ref
    cdef dict tables                # address of the functions: ProcTable
    cdef uint32_t device_serial

    cdef object table_of(self, hesper_function *functions)
    cdef uint64_t id_of(self, uint32_t type, uint64_t handle, uint32_t device) except? 0
    cdef uint64_t queue_index(self, uint32_t serial, uint64_t handle) except? 0xffffffff
    cdef int add_device_state(self, uint64_t id, uint32_t serial) except -1
