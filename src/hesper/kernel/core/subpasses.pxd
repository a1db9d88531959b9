"""How many subpasses are left of the render pass that is being recorded.

Drivers keep them in an array, and go on to the next without asking whether there is one.  Of a
command buffer, the number stands among what relations know of it (`Extent.facts`).
Source: the valid usage of vkCmdNextSubpass2.
"""

from libc.stdint cimport uint32_t, uint64_t

from hesper.kernel.core.cleared cimport recorded_extent
from hesper.kernel.core.colors cimport color_place, next_colors, put_colors
from hesper.kernel.core.objects cimport Extent
from hesper.kernel.core.pass_colors cimport (
    begin_named, has_colors_elsewhere, has_named, next_named)
from hesper.kernel.core.regions cimport Place, within
from hesper.kernel.core.state cimport Stream


cdef enum:
    # Places among the facts of protocol/facts/relations.toml.
    OF_PASS = 1                 # a render pass's `subpasses`
    LEFT = 1                    # behind a command buffer's level: how many are left


cdef inline void leave_subpasses(Stream *s, uint32_t count) noexcept nogil:
    """So many come behind the first one, which is begun; none outside of a render pass."""
    cdef Extent *recorded = recorded_extent(s)
    if recorded != NULL:
        recorded.facts[LEFT] = count


cdef inline void begin_subpasses(Stream *s, const Extent *render_pass) noexcept nogil:
    """The first subpass of a render pass is begun; of one that nobody knows, all may come."""
    cdef uint32_t known = render_pass.facts[OF_PASS]
    cdef Extent *recorded = recorded_extent(s)
    # One more than there are.
    leave_subpasses(s, known - 2 if known > 1 else <uint32_t>-1 if known == 0 else 0)
    if recorded == NULL:
        return
    if render_pass.size == <uint64_t>-1:
        put_colors(recorded, 0)
    elif known and has_colors_elsewhere(known - 1):
        begin_named(s, recorded, render_pass)
    else:
        put_colors(recorded, render_pass.size)


cdef inline void begin_without_pass(Stream *s, uint32_t colors) noexcept nogil:
    """Something is rendered without a render pass."""
    cdef Extent *recorded = recorded_extent(s)
    leave_subpasses(s, 0)
    if recorded != NULL:
        put_colors(recorded, color_place(colors))


cdef inline bint next_holds(Stream *s, Place *place) noexcept nogil:
    """Whether there is another subpass, which is begun."""
    cdef Extent *recorded = recorded_extent(s)
    cdef uint32_t left
    if recorded == NULL:
        return True
    left = recorded.facts[LEFT]
    if left:
        recorded.facts[LEFT] = left - 1
        if has_named(recorded):
            next_named(s, recorded, left - 1)
        else:
            next_colors(recorded)
    return within(0, 1, left, place)
