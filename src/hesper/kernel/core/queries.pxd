"""Query pools, and what commands put into them.

A driver takes what it finds in a pool for a result of the pool's kind, and tells a guest what lies
behind one that is shorter.  Source: the valid usage of vkCmdBeginQuery, vkCmdWriteTimestamp2 and
vkCmdWriteAccelerationStructuresPropertiesKHR.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from hesper_commands cimport (
    COMMAND_vkCmdBeginQuery, COMMAND_vkCmdBeginQueryIndexedEXT, COMMAND_vkCmdEndQuery,
    COMMAND_vkCmdEndQueryIndexedEXT, COMMAND_vkCmdWriteAccelerationStructuresPropertiesKHR,
    COMMAND_vkCmdWriteTimestamp, COMMAND_vkCmdWriteTimestamp2,
    VK_QUERY_RESULT_64_BIT, VK_QUERY_RESULT_WITH_AVAILABILITY_BIT,
    VK_QUERY_RESULT_WITH_STATUS_BIT_KHR, VK_QUERY_TYPE_MESH_PRIMITIVES_GENERATED_EXT,
    VK_QUERY_TYPE_OCCLUSION, VK_QUERY_TYPE_PIPELINE_STATISTICS,
    VK_QUERY_TYPE_PRIMITIVES_GENERATED_EXT, VK_QUERY_TYPE_TIMESTAMP,
    VK_QUERY_TYPE_TRANSFORM_FEEDBACK_STREAM_EXT, VkQueryPoolCreateInfo,
    vkCmdCopyQueryPoolResults_parameters,
    vkCmdWriteAccelerationStructuresPropertiesKHR_parameters)

from hesper.kernel.core.objects cimport Extent


cdef extern from "bounds.h" nogil:
    uint64_t hesper_plus(uint64_t a, uint64_t b)
    uint64_t hesper_times(uint64_t a, uint64_t b)


cdef inline void pool_extent(const VkQueryPoolCreateInfo *info, Extent *extent) noexcept nogil:
    """Queries, and in the upper half the numbers that each results in; and the kind of the pool."""
    cdef uint64_t values = 1
    cdef uint32_t statistics = info.pipelineStatistics
    if info.queryType == VK_QUERY_TYPE_TRANSFORM_FEEDBACK_STREAM_EXT:
        values = 2
    elif info.queryType == VK_QUERY_TYPE_PIPELINE_STATISTICS:
        values = 0
        while statistics:
            values += statistics & 1
            statistics >>= 1
    extent.size = values << 32 | info.queryCount
    extent.texels = <uint32_t>info.queryType


cdef inline bint is_begun(uint64_t type) noexcept nogil:
    """Whether queries of a VkQueryType have a beginning and an end."""
    return (type == VK_QUERY_TYPE_OCCLUSION or type == VK_QUERY_TYPE_PIPELINE_STATISTICS
            or type == VK_QUERY_TYPE_TRANSFORM_FEEDBACK_STREAM_EXT
            or type == VK_QUERY_TYPE_PRIMITIVES_GENERATED_EXT
            or type == VK_QUERY_TYPE_MESH_PRIMITIVES_GENERATED_EXT)


cdef inline bint pool_suits(const Extent *pool, uint64_t command,
                            const uint8_t *parameters) noexcept nogil:
    """Whether a command, by its index, puts into a pool what that has results of."""
    cdef uint64_t type = pool.texels
    if command == COMMAND_vkCmdWriteTimestamp or command == COMMAND_vkCmdWriteTimestamp2:
        return type == VK_QUERY_TYPE_TIMESTAMP
    if (command == COMMAND_vkCmdBeginQuery or command == COMMAND_vkCmdEndQuery
            or command == COMMAND_vkCmdBeginQueryIndexedEXT
            or command == COMMAND_vkCmdEndQueryIndexedEXT):
        return is_begun(type)
    if command == COMMAND_vkCmdWriteAccelerationStructuresPropertiesKHR:
        return type == <uint32_t>(
            <const vkCmdWriteAccelerationStructuresPropertiesKHR_parameters *>parameters).queryType
    return True


cdef inline uint64_t query_results(const Extent *pool,
                                   vkCmdCopyQueryPoolResults_parameters *p) noexcept nogil:
    """Bytes of the results that a vkCmdCopyQueryPoolResults writes.

    Of a single query, the stride becomes that size: lavapipe clears as much where it has none.
    """
    cdef uint64_t values = pool.size >> 32 if pool.size != <uint64_t>-1 else 1
    cdef uint64_t each
    if p.flags & VK_QUERY_RESULT_WITH_AVAILABILITY_BIT:
        values += 1
    # Not beside the other one, says Vulkan: a driver writes what it is asked for.
    if p.flags & VK_QUERY_RESULT_WITH_STATUS_BIT_KHR:
        values += 1
    each = values * (8 if p.flags & VK_QUERY_RESULT_64_BIT else 4)
    if p.queryCount == 1:
        p.stride = each
    return strided(p.queryCount, p.stride, each)


cdef inline uint64_t strided(uint64_t count, uint64_t stride, uint64_t last) noexcept nogil:
    """From the first of `count` elements to the end of the last."""
    return hesper_plus(hesper_times(count - 1, stride), last) if count else 0
