"""What is cleared of attachments, against what is being rendered to.

Drivers clear rectangles without asking how large the attachments are.  Of a command buffer, an
extent has in `size` where the area ends that was rendered to last (0: none), and in `texels` where
the clears end of a secondary one that belong to a render pass of who executes it.
Source: the valid usage of vkCmdClearAttachments.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from hesper_commands cimport (
    COMMAND_vkCmdSetRenderingAttachmentLocations, HANDLE_VkCommandBuffer,
    VK_COMMAND_BUFFER_LEVEL_SECONDARY, VkRect2D, vkCmdClearAttachments_parameters,
    vkCmdExecuteCommands_parameters, vkCmdSetRenderingAttachmentLocations_parameters,
    vkCmdSetRenderingInputAttachmentIndices_parameters)

from hesper.kernel.core.colors cimport (
    begin_colors, cleared_colors, colors_end, colors_hold, note_cleared)
from hesper.kernel.core.objects cimport DEAD, Extent, object_extent
from hesper.kernel.core.regions cimport Place, flat_axis, flat_extent, within
from hesper.kernel.core.state cimport Stream
from hesper.kernel.core.tables cimport hesper_commands


cdef inline Extent *recorded_extent(Stream *s) noexcept nogil:
    """That of the command buffer which the current command is called on, or null.

    Null, too, for one of which nothing is known.
    """
    cdef Extent *extent
    if s.first == NULL or s.first.type & ~<uint32_t>DEAD != HANDLE_VkCommandBuffer:
        return NULL
    extent = object_extent(s.first)
    return extent if extent.size != <uint64_t>-1 else NULL


cdef inline bint leaves_open(const Extent *recorded) noexcept nogil:
    """Whether who executes it says what is rendered to."""
    return (recorded.size == 0
            and recorded.facts[0] == VK_COMMAND_BUFFER_LEVEL_SECONDARY + <uint32_t>1)


cdef inline void begin_areas(Stream *s) noexcept nogil:
    """A command buffer is begun."""
    cdef Extent *recorded = recorded_extent(s)
    if recorded != NULL:
        recorded.size = 0
        recorded.texels = 0
        begin_colors(recorded)


cdef inline uint64_t wider(uint64_t a, uint64_t b) noexcept nogil:
    """The least extent that holds both."""
    cdef uint32_t axis
    cdef uint64_t axes[3]
    for axis in range(3):
        axes[axis] = flat_axis(a, axis)
        if flat_axis(b, axis) > axes[axis]:
            axes[axis] = flat_axis(b, axis)
    return flat_extent(axes[0], axes[1], axes[2])


cdef inline uint64_t rect_end(const VkRect2D *rect, uint64_t layers) noexcept nogil:
    """Where a rectangle ends; one that begins at a negative place, beyond everything."""
    return flat_extent(<uint64_t><uint32_t>rect.offset.x + rect.extent.width,
                       <uint64_t><uint32_t>rect.offset.y + rect.extent.height, layers)


cdef inline void begin_area(Stream *s, const VkRect2D *areas, uint32_t count,
                            uint64_t layers) noexcept nogil:
    """Areas are rendered to from now on, of a physical device each."""
    cdef Extent *recorded = recorded_extent(s)
    cdef uint64_t end = 0
    cdef uint32_t i
    if recorded == NULL:
        return
    for i in range(count):
        end = wider(end, rect_end(&areas[i], layers))
    recorded.size = end if end != <uint64_t>-1 else end - 1


cdef inline bint ends_within(uint64_t end, uint64_t area, Place *place) noexcept nogil:
    cdef uint32_t axis
    for axis in range(3):
        if not within(0, flat_axis(end, axis), flat_axis(area, axis), place):
            return False
    return True


cdef inline bint clears_hold(Stream *s, const vkCmdClearAttachments_parameters *clears,
                             Place *place) noexcept nogil:
    """Whether rectangles, and colours, are those of what is rendered to; or note where they end."""
    cdef Extent *recorded = recorded_extent(s)
    cdef uint64_t end
    cdef uint32_t i
    if recorded == NULL:
        return True
    if leaves_open(recorded):
        note_cleared(recorded, colors_end(clears))
    elif not colors_hold(recorded, colors_end(clears), place):
        return False
    if clears.pRects == NULL:
        return True
    for i in range(clears.rectCount):
        end = rect_end(&clears.pRects[i].rect, <uint64_t>clears.pRects[i].baseArrayLayer
                       + clears.pRects[i].layerCount)
        if leaves_open(recorded):
            recorded.texels = wider(recorded.texels, end)
        elif not ends_within(end, recorded.size, place):
            return False
    return True


cdef inline bint locations_hold(Stream *s, const uint8_t *parameters, Place *place) noexcept nogil:
    """Whether as many colours are rendered to as are given other places, or are read from."""
    cdef Extent *recorded = recorded_extent(s)
    cdef uint32_t count
    if recorded == NULL or leaves_open(recorded):
        return True
    if s.command - &hesper_commands[0] == COMMAND_vkCmdSetRenderingAttachmentLocations:
        count = (<const vkCmdSetRenderingAttachmentLocations_parameters *>
                 parameters).pLocationInfo.colorAttachmentCount
    else:
        count = (<const vkCmdSetRenderingInputAttachmentIndices_parameters *>
                 parameters).pInputAttachmentIndexInfo.colorAttachmentCount
    return colors_hold(recorded, count, place)


cdef inline bint executed_holds(Stream *s, const vkCmdExecuteCommands_parameters *executed,
                                Place *place) noexcept nogil:
    """The same of what secondary command buffers clear."""
    cdef Extent *recorded = recorded_extent(s)
    cdef uint32_t i
    if recorded == NULL or executed.pCommandBuffers == NULL:
        return True
    for i in range(executed.commandBufferCount):
        if s.extent_list[i].size == <uint64_t>-1:
            continue
        if leaves_open(recorded):
            recorded.texels = wider(recorded.texels, s.extent_list[i].texels)
            note_cleared(recorded, cleared_colors(&s.extent_list[i]))
        elif (not ends_within(s.extent_list[i].texels, recorded.size, place)
              or not colors_hold(recorded, cleared_colors(&s.extent_list[i]), place)):
            return False
    return True
