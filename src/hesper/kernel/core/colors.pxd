"""How many colours are rendered to, which clears of attachments are held against.

Drivers look an attachment up in an array of the current subpass.  Of a render pass, the lower bits
of `Extent.size` have four for each subpass; of a command buffer, a list of the same form begins
with the current one.  Render passes with more subpasses have theirs in `pass_colors.pxd`, and the
list of a command buffer has the current one alone.  Source: the valid usage of
vkCmdClearAttachments.
"""

from libc.stdint cimport uint32_t, uint64_t

from hesper_commands cimport (
    VK_COMMAND_BUFFER_LEVEL_SECONDARY, VK_IMAGE_ASPECT_COLOR_BIT,
    vkCmdClearAttachments_parameters)

from hesper.kernel.core.objects cimport Extent
from hesper.kernel.core.regions cimport Place, within


cdef enum:
    COLOR_BITS = 4              # one more than there are; 0: not known
    COLOR_PLACES = 11
    MOST_COLORS = 14            # more are not known
    # Places among the facts of a command buffer, behind its level and the subpasses that are left:
    LOWER = 2                   # of the list
    UPPER = 3                   # 16 bits of the list, and above them what is `cleared_colors`
    UPPER_BITS = 16


cdef inline uint64_t color_place(uint32_t count) noexcept nogil:
    return count + <uint64_t>1 if count <= MOST_COLORS else 0


cdef inline uint64_t add_colors(uint64_t colors, uint32_t subpass, uint32_t count) noexcept nogil:
    """The list of a render pass, with those of one more subpass, for which there is a place."""
    return colors | color_place(count) << COLOR_BITS * subpass


cdef inline uint64_t colors_elsewhere() noexcept nogil:
    """The bit of a command buffer's list that says it has the current subpass alone."""
    return <uint64_t>1 << COLOR_BITS * COLOR_PLACES


cdef inline void put_colors(Extent *recorded, uint64_t colors) noexcept nogil:
    recorded.facts[LOWER] = <uint32_t>colors
    recorded.facts[UPPER] = (recorded.facts[UPPER] >> UPPER_BITS << UPPER_BITS
                             | <uint32_t>(colors >> 32) & 0xffff)


cdef inline uint64_t list_of(const Extent *recorded) noexcept nogil:
    return recorded.facts[LOWER] | <uint64_t>(recorded.facts[UPPER] & 0xffff) << 32


cdef inline void next_colors(Extent *recorded) noexcept nogil:
    """The next subpass is begun, of those that are in the list."""
    put_colors(recorded, list_of(recorded) >> COLOR_BITS)


cdef inline uint32_t cleared_colors(const Extent *recorded) noexcept nogil:
    """One more than the last colour that a secondary command buffer clears of who executes it."""
    return recorded.facts[UPPER] >> UPPER_BITS


cdef inline void note_cleared(Extent *recorded, uint32_t end) noexcept nogil:
    if end > cleared_colors(recorded):
        recorded.facts[UPPER] = recorded.facts[UPPER] & 0xffff | end << UPPER_BITS


cdef inline void begin_colors(Extent *recorded) noexcept nogil:
    """A command buffer is begun, which renders to nothing yet."""
    recorded.facts[UPPER] = 0
    # Of a secondary one, who executes it knows what is rendered to.
    put_colors(recorded, 0 if recorded.facts[0] == VK_COMMAND_BUFFER_LEVEL_SECONDARY + <uint32_t>1
               else color_place(0))


cdef inline bint colors_hold(const Extent *recorded, uint32_t end, Place *place) noexcept nogil:
    """Whether as many colours as `end` says are rendered to."""
    cdef uint32_t known = recorded.facts[LOWER] & 0xf
    return known == 0 or within(0, end, known - 1, place)


cdef inline uint32_t colors_end(
        const vkCmdClearAttachments_parameters *clears) noexcept nogil:
    """One more than the last colour that is cleared; as much as fits into 16 bits."""
    cdef uint64_t end = 0
    cdef uint32_t i
    for i in range(clears.attachmentCount if clears.pAttachments != NULL else 0):
        if (clears.pAttachments[i].aspectMask & VK_IMAGE_ASPECT_COLOR_BIT
                and clears.pAttachments[i].colorAttachment >= end):
            end = clears.pAttachments[i].colorAttachment + <uint64_t>1
    return <uint32_t>(end if end < 0xffff else 0xffff)
