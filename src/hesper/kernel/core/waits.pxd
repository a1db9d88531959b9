"""Commands that wait for the driver, and those that give it work to wait for."""

from hesper_commands cimport (
    COMMAND_vkGetQueryPoolResults, COMMAND_vkQueueBindSparse, COMMAND_vkQueueSubmit,
    COMMAND_vkQueueSubmit2, COMMAND_vkWaitForFences, COMMAND_vkWaitSemaphores,
    vkQueueSubmit2_parameters, vkQueueSubmit_parameters, vkWaitForFences_parameters,
    vkWaitSemaphores_parameters)

from hesper.kernel.core.dispatch cimport put_override
from hesper.kernel.core.driver cimport bind_sparse, serve, submit_to_queue, wait_in_slices
from hesper.kernel.core.fences cimport signals_timeline, signals_timeline_2
from hesper.kernel.core.progress cimport ring_settle
from hesper.kernel.core.state cimport Core, Stream


cdef inline int wait_for_fences(Stream *s) noexcept nogil:
    """vkWaitForFences."""
    if s.ring != NULL:
        ring_settle(s.ring)
    return wait_in_slices(s, &(<vkWaitForFences_parameters *>s.parameters).timeout)


cdef inline int wait_semaphores(Stream *s) noexcept nogil:
    """vkWaitSemaphores."""
    if s.ring != NULL:
        ring_settle(s.ring)
    return wait_in_slices(s, &(<vkWaitSemaphores_parameters *>s.parameters).timeout)


cdef inline int query_results(Stream *s) noexcept nogil:
    """vkGetQueryPoolResults, which can be told to wait."""
    if s.ring != NULL:
        ring_settle(s.ring)
    return serve(s)


cdef inline bint submits_timeline(Stream *s) noexcept nogil:
    cdef vkQueueSubmit_parameters *block = <vkQueueSubmit_parameters *>s.parameters
    return signals_timeline(block.submitCount, block.pSubmits)


cdef inline int queue_submit(Stream *s) noexcept nogil:
    """vkQueueSubmit."""
    return submit_to_queue(
        s, &(<vkQueueSubmit_parameters *>s.parameters).fence, submits_timeline)


cdef inline bint submits_timeline_2(Stream *s) noexcept nogil:
    cdef vkQueueSubmit2_parameters *block = <vkQueueSubmit2_parameters *>s.parameters
    return signals_timeline_2(block.submitCount, block.pSubmits)


cdef inline int queue_submit_2(Stream *s) noexcept nogil:
    """vkQueueSubmit2."""
    return submit_to_queue(
        s, &(<vkQueueSubmit2_parameters *>s.parameters).fence, submits_timeline_2)


cdef inline void wait_overrides(Core *core) noexcept nogil:
    put_override(core, COMMAND_vkWaitForFences, wait_for_fences)
    put_override(core, COMMAND_vkWaitSemaphores, wait_semaphores)
    put_override(core, COMMAND_vkGetQueryPoolResults, query_results)
    put_override(core, COMMAND_vkQueueBindSparse, bind_sparse)
    put_override(core, COMMAND_vkQueueSubmit, queue_submit)
    put_override(core, COMMAND_vkQueueSubmit2, queue_submit_2)
