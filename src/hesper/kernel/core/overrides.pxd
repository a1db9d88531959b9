"""Commands that need more than the call and the book-keeping of objects, put into the table."""

from hesper.kernel.core.buffers cimport buffer_overrides
from hesper.kernel.core.caches cimport cache_overrides
from hesper.kernel.core.charges cimport charge_overrides
from hesper.kernel.core.images cimport image_overrides
from hesper.kernel.core.memory cimport memory_overrides
from hesper.kernel.core.planar cimport plane_overrides
from hesper.kernel.core.ring cimport ring_overrides
from hesper.kernel.core.state cimport Core
from hesper.kernel.core.transport cimport transport_overrides
from hesper.kernel.core.waits cimport wait_overrides


cdef inline void fill_overrides(Core *core) noexcept nogil:
    """Put all but those of `layouts.pxd` and `stand_ins.pxd`.

    It is known by now which commands have handlers.
    """
    buffer_overrides(core)
    cache_overrides(core)
    charge_overrides(core)
    image_overrides(core)
    memory_overrides(core)
    plane_overrides(core)
    ring_overrides(core)
    transport_overrides(core)
    wait_overrides(core)
