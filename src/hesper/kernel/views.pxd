"""C memory as Python sees it, for the kernel's other modules."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from hesper.kernel.core.arena cimport Arena
from hesper.kernel.core.tables cimport hesper_base, hesper_field


cdef class Memory:
    cdef Arena *arena
    cdef bint alive

    cdef void *take(self, size_t size) except NULL


cdef class Scratch(Memory):
    cdef Arena own


cdef class View:
    cdef Memory memory
    cdef uint8_t *at
    cdef int32_t struct_index       # -1: a command's parameters
    cdef uint32_t first_field
    cdef uint32_t field_count
    cdef const char *name

    cdef const hesper_field *field(self, str name) except NULL
    cdef int set_pointer(self, const hesper_field *f, uint8_t *at, object value) except -1
    cdef int set_count(self, const hesper_field *f, size_t count) except -1
    cdef hesper_base **next_link(self) except NULL


cdef class Array:
    cdef Memory memory
    cdef uint8_t *at
    cdef size_t count
    cdef uint8_t kind               # KIND_CHAR: strings
    cdef uint8_t flags
    cdef uint32_t ref
    cdef uint32_t size

    cdef uint8_t *element(self, Py_ssize_t index) except NULL


cdef int write_scalar(uint8_t *at, uint32_t size, uint8_t flags, object value) except -1
cdef uint64_t address_of(object value) except? 0xffffffffffffffff
