# The host fences of a queue's timeline; the queue's monitor is held for all of this.

cdef enum:
    STALE_FENCES = 8            # in flight that nobody wants any more
    VK_NOT_READY = 1

    # VkSubmitInfo, VkTimelineSemaphoreSubmitInfo, VkSubmitInfo2, VkSemaphoreSubmitInfo.
    SUBMIT_SIZE = 72
    TIMELINE_SUBMIT_STYPE = 1000207003
    TIMELINE_SIGNAL_COUNT = 32
    SUBMIT_2_SIZE = 64
    SUBMIT_2_SIGNAL_COUNT = 48
    SUBMIT_2_SIGNALS = 56
    SEMAPHORE_SUBMIT_SIZE = 48
    SEMAPHORE_SUBMIT_VALUE = 24

ctypedef int32_t (*submit_fn)(void *queue, uint32_t count, void *batches,
                              uint64_t fence) noexcept nogil
ctypedef int32_t (*create_fence_fn)(void *device, void *info, void *allocator,
                                    uint64_t *fence) noexcept nogil
ctypedef void (*destroy_fence_fn)(void *device, uint64_t fence, void *allocator) noexcept nogil
ctypedef int32_t (*reset_fences_fn)(void *device, uint32_t count,
                                    const uint64_t *fences) noexcept nogil
ctypedef int32_t (*fence_status_fn)(void *device, uint64_t fence) noexcept nogil
ctypedef int32_t (*wait_fences_fn)(void *device, uint32_t count, const uint64_t *fences,
                                   uint32_t all, uint64_t timeout) noexcept nogil


cdef struct FenceInfo:          # VkFenceCreateInfo
    uint32_t type
    void *next
    uint32_t flags


cdef struct Fences:
    void *queue
    void *device
    submit_fn submit
    create_fence_fn create
    destroy_fence_fn destroy
    reset_fences_fn reset
    fence_status_fn status
    wait_fences_fn wait
    uint64_t *spare             # signalled, to be used again
    uint32_t spare_count
    uint32_t capacity
    uint64_t stale[STALE_FENCES]
    uint32_t stale_count
    # A fence for the timeline costs a submission of its own, unless the guest's submission, which
    # mostly has no fence, takes it along.  That is done as long as the timeline is asked for it.
    bint wanted
    uint64_t ahead              # the fence that the last submission took along, 0: none
    uint64_t ahead_calls        # which call of the queue that was
    int32_t result              # of the driver, the last time there was no fence


cdef bint fences_init(Fences *f, void *queue, void *device, hesper_function *table) except False:
    f.queue = queue
    f.device = device
    f.submit = <submit_fn>table[command_named(b"vkQueueSubmit")]
    f.create = <create_fence_fn>table[command_named(b"vkCreateFence")]
    f.destroy = <destroy_fence_fn>table[command_named(b"vkDestroyFence")]
    f.reset = <reset_fences_fn>table[command_named(b"vkResetFences")]
    f.status = <fence_status_fn>table[command_named(b"vkGetFenceStatus")]
    f.wait = <wait_fences_fn>table[command_named(b"vkWaitForFences")]
    return True


cdef uint64_t fence_take(Fences *f) noexcept nogil:
    """An unsignalled fence; 0 when the driver gives none."""
    cdef FenceInfo info
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
    info.type = 8               # VK_STRUCTURE_TYPE_FENCE_CREATE_INFO
    f.result = f.create(f.device, &info, NULL, &fence)
    return fence if f.result == 0 else 0


cdef void fence_spare(Fences *f, uint64_t fence) noexcept nogil:
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


cdef bint signals_timeline(const uint8_t *parameters, bint is_second) noexcept nogil:
    """Whether a vkQueueSubmit, or vkQueueSubmit2, may signal a timeline semaphore.

    In such a submission the driver may signal a fence before its own book-keeping knows of the
    semaphore's new value (Mesa's emulated timelines): who hears of the fence by then and signals
    the semaphore in turn would have that undone.
    """
    cdef uint32_t count = (<const uint32_t *>(parameters + 8))[0]
    cdef const uint8_t *batch = (<const uint8_t *const *>(parameters + 16))[0]
    cdef const uint8_t *at
    cdef uint32_t i
    cdef uint32_t j
    if batch == NULL:
        return False
    for i in range(count):
        if is_second:
            at = (<const uint8_t *const *>(batch + SUBMIT_2_SIGNALS))[0]
            for j in range((<const uint32_t *>(batch + SUBMIT_2_SIGNAL_COUNT))[0] if at else 0):
                # Ignored for binary semaphores, and no timeline is signalled with 0.
                if (<const uint64_t *>(at + SEMAPHORE_SUBMIT_VALUE))[0]:
                    return True
                at += SEMAPHORE_SUBMIT_SIZE
            batch += SUBMIT_2_SIZE
            continue
        at = (<const uint8_t *const *>(batch + 8))[0]
        while at != NULL:
            if ((<const uint32_t *>at)[0] == TIMELINE_SUBMIT_STYPE
                    and (<const uint32_t *>(at + TIMELINE_SIGNAL_COUNT))[0]):
                return True
            at = (<const uint8_t *const *>(at + 8))[0]
        batch += SUBMIT_SIZE
    return False


cdef uint64_t fence_ahead(Fences *f, const uint8_t *parameters, bint is_second) noexcept nogil:
    """Let a vkQueueSubmit, or vkQueueSubmit2, take a fence along; that fence, or 0."""
    cdef uint64_t *fence = <uint64_t *>(parameters + 24)
    if f.ahead:
        # Nobody has asked for it.
        f.wanted = False
        f.stale[f.stale_count] = f.ahead
        f.stale_count += 1
        f.ahead = 0
    if (fence[0] or not f.wanted or f.stale_count == STALE_FENCES
            or signals_timeline(parameters, is_second)):
        return 0
    fence[0] = fence_take(f)
    return fence[0]


cdef void fence_is_ahead(QueueState *queue, uint64_t fence, int32_t result) noexcept nogil:
    """A submission has taken `fence` along, if its result is 0."""
    cdef Fences *f = queue.fences
    if result:
        fence_spare(f, fence)
        return
    f.ahead = fence
    f.ahead_calls = queue.calls


cdef uint64_t fence_submit(QueueState *queue) noexcept nogil:
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


cdef void fences_destroy(Fences *f) noexcept nogil:
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
