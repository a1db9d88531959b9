"""The host fences of a queue's timeline; the queue's monitor is held for all of this."""

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memset

from hesper_commands cimport (
    COMMAND_vkCreateFence, COMMAND_vkDestroyFence, COMMAND_vkGetFenceStatus, COMMAND_vkQueueSubmit,
    COMMAND_vkResetFences, COMMAND_vkWaitForFences, VK_NOT_READY,
    VK_STRUCTURE_TYPE_FENCE_CREATE_INFO, VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
    VkFenceCreateInfo, VkSemaphoreSubmitInfo, VkSubmitInfo, VkSubmitInfo2,
    VkTimelineSemaphoreSubmitInfo)

from hesper.kernel.core.state cimport (
    STALE_FENCES, Fences, QueueState, create_fence_fn, destroy_fence_fn, fence_status_fn,
    reset_fences_fn, submit_fn, wait_fences_fn)
from hesper.kernel.core.structs cimport chain_find
from hesper.kernel.core.tables cimport hesper_function


cdef inline void fences_init(Fences *f, void *queue, void *device,
                             hesper_function *table) noexcept nogil:
    f.queue = queue
    f.device = device
    f.submit = <submit_fn>table[COMMAND_vkQueueSubmit]
    f.create = <create_fence_fn>table[COMMAND_vkCreateFence]
    f.destroy = <destroy_fence_fn>table[COMMAND_vkDestroyFence]
    f.reset = <reset_fences_fn>table[COMMAND_vkResetFences]
    f.status = <fence_status_fn>table[COMMAND_vkGetFenceStatus]
    f.wait = <wait_fences_fn>table[COMMAND_vkWaitForFences]


cdef inline uint64_t fence_take(Fences *f) noexcept nogil:
    """An unsignalled fence; 0 when the driver gives none."""
    cdef VkFenceCreateInfo info
    cdef uint64_t fence = 0
    cdef uint32_t i = 0
    while i < f.stale_count:
        if f.status(f.device, f.stale[i]) == VK_NOT_READY:
            i += 1
            continue
        fence_spare(f, f.stale[i])
        f.stale_count -= 1
        f.stale[i] = f.stale[f.stale_count]
    if f.spare_count:
        f.spare_count -= 1
        fence = f.spare[f.spare_count]
        f.result = f.reset(f.device, 1, &fence)
        if f.result == 0:
            return fence
        f.destroy(f.device, fence, NULL)
        return 0
    memset(&info, 0, sizeof(info))
    info.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO
    f.result = f.create(f.device, &info, NULL, &fence)
    return fence if f.result == 0 else 0


cdef inline void fence_spare(Fences *f, uint64_t fence) noexcept nogil:
    """Keep a fence that is not in flight for later."""
    cdef uint64_t *spare
    if f.spare_count == f.capacity:
        spare = <uint64_t *>realloc(f.spare, (2 * f.capacity + 8) * sizeof(uint64_t))
        if spare == NULL:
            f.destroy(f.device, fence, NULL)
            return
        f.spare = spare
        f.capacity = 2 * f.capacity + 8
    f.spare[f.spare_count] = fence
    f.spare_count += 1


cdef inline bint signals_timeline(uint32_t count, const VkSubmitInfo *batch) noexcept nogil:
    """Whether a vkQueueSubmit may signal a timeline semaphore.

    In such a submission the driver may signal a fence before its own book-keeping knows of the
    semaphore's new value (Mesa's emulated timelines): who hears of the fence by then and signals
    the semaphore in turn would have that undone.
    """
    cdef const VkTimelineSemaphoreSubmitInfo *values
    cdef uint32_t i
    for i in range(count if batch != NULL else 0):
        values = <const VkTimelineSemaphoreSubmitInfo *>chain_find(
            &batch[i], VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO)
        if values != NULL and values.signalSemaphoreValueCount:
            return True
    return False


cdef inline bint signals_timeline_2(uint32_t count, const VkSubmitInfo2 *batch) noexcept nogil:
    """The same of a vkQueueSubmit2."""
    cdef const VkSemaphoreSubmitInfo *signals
    cdef uint32_t i
    cdef uint32_t j
    for i in range(count if batch != NULL else 0):
        signals = batch[i].pSignalSemaphoreInfos
        for j in range(batch[i].signalSemaphoreInfoCount if signals != NULL else 0):
            # Ignored for binary semaphores, and no timeline is signalled with 0.
            if signals[j].value:
                return True
    return False


cdef inline uint64_t fence_ahead(Fences *f, uint64_t *fence, bint timeline) noexcept nogil:
    """Let a submission take a fence along; that fence, or 0.

    fence: that of the submission, which becomes it.  timeline: it may signal a timeline semaphore.
    """
    if f.ahead:
        # Nobody has asked for it.
        f.wanted = False
        f.stale[f.stale_count] = f.ahead
        f.stale_count += 1
        f.ahead = 0
    if fence[0] or not f.wanted or f.stale_count == STALE_FENCES or timeline:
        return 0
    fence[0] = fence_take(f)
    return fence[0]


cdef inline void fence_is_ahead(QueueState *queue, uint64_t fence, int32_t result) noexcept nogil:
    """A submission has taken `fence` along, if its result is 0."""
    cdef Fences *f = queue.fences
    if result:
        fence_spare(f, fence)
        return
    f.ahead = fence
    f.ahead_calls = queue.calls


cdef inline uint64_t fence_submit(QueueState *queue) noexcept nogil:
    """A fence that the queue signals when it has done what it was given; 0 when it takes none."""
    cdef Fences *f = queue.fences
    cdef uint64_t fence = f.ahead
    if fence and f.ahead_calls == queue.calls:
        f.ahead = 0
        return fence
    f.wanted = True
    fence = fence_take(f)
    if fence == 0:
        return 0
    f.result = f.submit(f.queue, 0, NULL, fence)
    if f.result == 0:
        return fence
    fence_spare(f, fence)
    return 0


cdef inline void fences_destroy(Fences *f) noexcept nogil:
    """Destroy all fences; none is in flight."""
    cdef uint32_t i
    for i in range(f.spare_count):
        f.destroy(f.device, f.spare[i], NULL)
    for i in range(f.stale_count):
        f.destroy(f.device, f.stale[i], NULL)
    if f.ahead:
        f.destroy(f.device, f.ahead, NULL)
    f.spare_count = 0
    f.stale_count = 0
    f.ahead = 0
