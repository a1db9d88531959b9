"""How long a thread looks out for what may come soon before it gives up its processor.

To wake a thread takes 5 to 50 us, and some hundreds on a virtual machine whose processor has gone
to sleep.  Where there are processors enough, it is cheaper to stay awake for a while.
"""

from libc.stdint cimport uint64_t

from hesper.kernel.core.platform cimport hesper_load_u64, hesper_store_u64
from hesper.kernel.core.state cimport Core


cdef enum:
    HELD_UP_NS = 100000         # between two looks: somebody else had the processor
    CROWDED_NS = 50000000       # for how long nobody looks out after that


cdef inline uint64_t core_patience(Core *core, uint64_t now) noexcept nogil:
    """How long to look out, in ns; 0 where processors are few or wanted by others."""
    if core.patience_ns and now < hesper_load_u64(&core.crowded_until):
        return 0
    return core.patience_ns


cdef inline bint is_held_up(Core *core, uint64_t last, uint64_t now) noexcept nogil:
    """Whether a thread that looked `last` was kept from looking; nobody looks out then for now."""
    if now - last < HELD_UP_NS:
        return False
    hesper_store_u64(&core.crowded_until, now + CROWDED_NS)
    return True
