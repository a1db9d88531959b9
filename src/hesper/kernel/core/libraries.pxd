"""Whether what a pipeline is put together of are libraries, and of its kind.

Drivers take the pipelines that a VkPipelineLibraryCreateInfoKHR names for the struct of theirs that
a library of that kind has.  Source: the valid usage of VkPipelineLibraryCreateInfoKHR,
VkGraphicsPipelineCreateInfo, VkRayTracingPipelineCreateInfoKHR and vkCmdBindPipeline.
"""

from libc.stdint cimport uint32_t, uint64_t

from hesper_commands cimport (
    COMMAND_vkCreateGraphicsPipelines, VK_PIPELINE_BIND_POINT_GRAPHICS,
    VK_PIPELINE_BIND_POINT_RAY_TRACING_KHR, VkPipelineLibraryCreateInfoKHR)

from hesper.kernel.core.extents cimport library
from hesper.kernel.core.regions cimport Place
from hesper.kernel.core.state cimport Stream
from hesper.kernel.core.tables cimport hesper_commands


cdef inline bint libraries_hold(Stream *s, const VkPipelineLibraryCreateInfoKHR *info,
                                Place *place) noexcept nogil:
    """Whether all are libraries of the kind that is made; `place` tells which is not."""
    cdef uint64_t wanted = VK_PIPELINE_BIND_POINT_RAY_TRACING_KHR
    cdef uint32_t i
    if s.command - &hesper_commands[0] == COMMAND_vkCreateGraphicsPipelines:
        wanted = VK_PIPELINE_BIND_POINT_GRAPHICS
    wanted |= library()
    for i in range(info.libraryCount if info.pLibraries != NULL else 0):
        if s.extent_list[i].size != wanted and s.extent_list[i].size != <uint64_t>-1:
            place.first = i
            place.span = 1
            place.most = i
            return False
    return True
