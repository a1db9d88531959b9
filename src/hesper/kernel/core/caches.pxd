"""How large a pipeline cache's data are, which programs ask before they ask for the data.

A Python handler would take three times as long as the whole way there and back.
"""

from hesper_commands cimport (
    COMMAND_vkGetPipelineCacheData, vkGetPipelineCacheData_parameters)

from hesper.kernel.core.driver cimport LEFT_TO_HANDLER, serve
from hesper.kernel.core.state cimport Core, Stream


cdef enum:
    CACHE_TAG = 32              # bytes behind the driver's data (`guest/pipeline_cache.py`)


cdef inline int cache_data(Stream *s) noexcept nogil:
    """vkGetPipelineCacheData, where only the size is asked for."""
    cdef vkGetPipelineCacheData_parameters *block = (
        <vkGetPipelineCacheData_parameters *>s.parameters)
    if block.pData != NULL:
        return LEFT_TO_HANDLER
    if serve(s):
        return -1
    if block.pDataSize != NULL and block.pDataSize[0]:
        block.pDataSize[0] += CACHE_TAG
    return 0


cdef inline void cache_overrides(Core *core) noexcept nogil:
    # Before its handler.
    core.rows[COMMAND_vkGetPipelineCacheData].override = cache_data
