# Images with contents from before they were first used (VK_IMAGE_LAYOUT_PREINITIALIZED).
#
# A linear image that the guest fills through a map lies in imported memory, and has to be made for
# it; such an image must begin in VK_IMAGE_LAYOUT_UNDEFINED (VUID-VkImageCreateInfo-pNext-01443).
# So it does, and barriers from the one layout become barriers from the other.  That a driver may
# drop the contents then is theory for linear images: there is nothing to be decompressed.  (Of
# others the contents are undefined anyway.)

cdef enum:
    PREINITIALIZED = 8
    BARRIER_SIZE = 72           # VkImageMemoryBarrier
    BARRIER_OLD_LAYOUT = 24
    BARRIER_2_SIZE = 96         # VkImageMemoryBarrier2
    BARRIER_2_OLD_LAYOUT = 48
    DEPENDENCY_SIZE = 64        # VkDependencyInfo
    DEPENDENCY_COUNT = 48       # of image barriers, their address behind it

cdef uint32_t PIPELINE_BARRIER = command_named(b"vkCmdPipelineBarrier")
cdef uint32_t PIPELINE_BARRIER_2 = command_named(b"vkCmdPipelineBarrier2")
cdef uint32_t WAIT_EVENTS = command_named(b"vkCmdWaitEvents")
cdef uint32_t WAIT_EVENTS_2 = command_named(b"vkCmdWaitEvents2")


cdef void forget_contents(const uint8_t *count, uint32_t size, uint32_t offset) noexcept nogil:
    """Change old layouts in an array of barriers; its address stands 8 bytes behind its count."""
    cdef uint8_t *barrier = (<uint8_t *const *>(count + 8))[0]
    cdef uint32_t i
    for i in range((<const uint32_t *>count)[0] if barrier != NULL else 0):
        if (<uint32_t *>(barrier + offset))[0] == PREINITIALIZED:
            (<uint32_t *>(barrier + offset))[0] = 0
        barrier += size


cdef void change_layouts(Stream *s, uint32_t index) noexcept nogil:
    """Change them in the current command, if it has any."""
    cdef const uint8_t *info
    cdef uint32_t i
    if index == PIPELINE_BARRIER:
        forget_contents(s.parameters + 48, BARRIER_SIZE, BARRIER_OLD_LAYOUT)
    elif index == WAIT_EVENTS:
        forget_contents(s.parameters + 64, BARRIER_SIZE, BARRIER_OLD_LAYOUT)
    elif index == PIPELINE_BARRIER_2:
        info = (<const uint8_t *const *>(s.parameters + 8))[0]
        forget_contents(info + DEPENDENCY_COUNT, BARRIER_2_SIZE, BARRIER_2_OLD_LAYOUT)
    elif index == WAIT_EVENTS_2:
        info = (<const uint8_t *const *>(s.parameters + 24))[0]
        for i in range((<uint32_t *>(s.parameters + 8))[0] if info != NULL else 0):
            forget_contents(info + DEPENDENCY_COUNT, BARRIER_2_SIZE, BARRIER_2_OLD_LAYOUT)
            info += DEPENDENCY_SIZE
