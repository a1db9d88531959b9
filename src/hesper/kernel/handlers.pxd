"""Commands that Python decides about, for the kernel's other modules."""

from hesper.kernel.ledger cimport Ledger
from hesper.kernel.objects cimport ObjectTable
from hesper.kernel.runtime cimport CoreRef
from hesper.kernel.vulkan cimport Vulkan


cdef class Handlers:
    cdef CoreRef ref
    cdef Vulkan vulkan
    cdef ObjectTable objects
    cdef dict rings                 # by id
    cdef list by_index              # of the command
    cdef object on_notice
    cdef Ledger ledger

    cdef int tell_limits(self) except -1
    cdef int notice(self, str event, dict facts) except -1
