"""Images with contents from before they were first used (VK_IMAGE_LAYOUT_PREINITIALIZED).

A linear image that the guest fills through a map lies in imported memory, and has to be made for
it; such an image must begin in VK_IMAGE_LAYOUT_UNDEFINED (VUID-VkImageCreateInfo-pNext-01443).
So it does, and barriers from the one layout become barriers from the other.  That a driver may
drop the contents then is theory for linear images: there is nothing to be decompressed.  (Of
others the contents are undefined anyway.)
"""

from libc.stdint cimport uint32_t

from hesper_commands cimport (
    COMMAND_vkCmdPipelineBarrier, COMMAND_vkCmdPipelineBarrier2, COMMAND_vkCmdWaitEvents,
    COMMAND_vkCmdWaitEvents2, VK_IMAGE_LAYOUT_PREINITIALIZED, VK_IMAGE_LAYOUT_UNDEFINED,
    VkDependencyInfo, VkImageMemoryBarrier, vkCmdPipelineBarrier2_parameters,
    vkCmdPipelineBarrier_parameters, vkCmdWaitEvents2_parameters, vkCmdWaitEvents_parameters)

from hesper.kernel.core.dispatch cimport put_override
from hesper.kernel.core.driver cimport serve
from hesper.kernel.core.state cimport Core, Stream


cdef inline void forget_contents(VkImageMemoryBarrier *barriers, uint32_t count) noexcept nogil:
    cdef uint32_t i
    for i in range(count if barriers != NULL else 0):
        if barriers[i].oldLayout == VK_IMAGE_LAYOUT_PREINITIALIZED:
            barriers[i].oldLayout = VK_IMAGE_LAYOUT_UNDEFINED


cdef inline void forget_contents_2(VkDependencyInfo *infos, uint32_t count) noexcept nogil:
    cdef uint32_t i
    cdef uint32_t j
    for i in range(count if infos != NULL else 0):
        for j in range(infos[i].imageMemoryBarrierCount
                       if infos[i].pImageMemoryBarriers != NULL else 0):
            if infos[i].pImageMemoryBarriers[j].oldLayout == VK_IMAGE_LAYOUT_PREINITIALIZED:
                infos[i].pImageMemoryBarriers[j].oldLayout = VK_IMAGE_LAYOUT_UNDEFINED


cdef inline int pipeline_barrier(Stream *s) noexcept nogil:
    """vkCmdPipelineBarrier."""
    cdef vkCmdPipelineBarrier_parameters *block = <vkCmdPipelineBarrier_parameters *>s.parameters
    forget_contents(block.pImageMemoryBarriers, block.imageMemoryBarrierCount)
    return serve(s)


cdef inline int pipeline_barrier_2(Stream *s) noexcept nogil:
    """vkCmdPipelineBarrier2."""
    forget_contents_2((<vkCmdPipelineBarrier2_parameters *>s.parameters).pDependencyInfo, 1)
    return serve(s)


cdef inline int wait_events(Stream *s) noexcept nogil:
    """vkCmdWaitEvents."""
    cdef vkCmdWaitEvents_parameters *block = <vkCmdWaitEvents_parameters *>s.parameters
    forget_contents(block.pImageMemoryBarriers, block.imageMemoryBarrierCount)
    return serve(s)


cdef inline int wait_events_2(Stream *s) noexcept nogil:
    """vkCmdWaitEvents2."""
    cdef vkCmdWaitEvents2_parameters *block = <vkCmdWaitEvents2_parameters *>s.parameters
    forget_contents_2(block.pDependencyInfos, block.eventCount)
    return serve(s)


cdef inline void layout_overrides(Core *core) noexcept nogil:
    """Change layouts from now on: it costs, so nobody does before there is such an image."""
    put_override(core, COMMAND_vkCmdPipelineBarrier, pipeline_barrier)
    put_override(core, COMMAND_vkCmdPipelineBarrier2, pipeline_barrier_2)
    put_override(core, COMMAND_vkCmdWaitEvents, wait_events)
    put_override(core, COMMAND_vkCmdWaitEvents2, wait_events_2)
