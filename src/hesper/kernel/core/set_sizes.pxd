"""Numbers that are kept of some objects by their host handles: what a set of a layout costs."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from hesper.kernel.core.platform cimport hesper_spin_lock, hesper_spin_unlock
from hesper.kernel.core.state cimport SET_SLOTS, Core, SetSize


cdef inline SetSize **set_size_link(Core *core, uint64_t layout) noexcept nogil:
    """The link to what is known of a layout, or to null; the lock is held."""
    cdef SetSize **link = &core.set_sizes[
        (layout * <uint64_t>0x9E3779B97F4A7C15u) >> 48 & (SET_SLOTS - 1)]
    while link[0] != NULL and link[0].layout != layout:
        link = &link[0].chain
    return link


cdef inline void set_size_note(Core *core, uint64_t layout, uint64_t size) noexcept nogil:
    """Note what a set of a layout, a host handle, costs; 0: no more."""
    cdef SetSize *known
    cdef SetSize **link
    if layout == 0:
        return
    hesper_spin_lock(&core.set_sizes_lock)
    link = set_size_link(core, layout)
    known = link[0]
    if size and known == NULL:
        known = <SetSize *>calloc(1, sizeof(SetSize))
        link[0] = known
    if known != NULL and size:
        known.layout = layout
        known.size = size
    elif known != NULL:
        link[0] = known.chain
        free(known)
    hesper_spin_unlock(&core.set_sizes_lock)


cdef inline void set_sizes_free(Core *core) noexcept nogil:
    cdef SetSize *known
    cdef uint32_t i
    for i in range(SET_SLOTS):
        while core.set_sizes[i] != NULL:
            known = core.set_sizes[i]
            core.set_sizes[i] = known.chain
            free(known)
