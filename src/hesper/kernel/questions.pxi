# Questions about images in which there is nothing to translate: the driver answers them at once.
#
# Programs ask thousands of them, and the Python handler (`guest/external.py`) takes three times as
# long as the whole way there and back.

cdef enum:
    EXTERNAL_QUESTION = 1000071000      # VkPhysicalDeviceExternalImageFormatInfo
    MODIFIER_QUESTION = 1000158002      # VkPhysicalDeviceImageDrmFormatModifierInfoEXT
    MODIFIER_TILING = 1000158000        # VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT
    SPARSE_IMAGE = 0x7                  # VkImageCreateFlagBits: sparse binding, residency, aliased

cdef uint32_t IMAGE_QUESTION = command_named(b"vkGetPhysicalDeviceImageFormatProperties2")


cdef bint is_plain_question(Stream *s) noexcept nogil:
    """Whether a VkPhysicalDeviceImageFormatInfo2 means the same to the host as to the guest."""
    cdef uint8_t *info = (<uint8_t **>(s.parameters + 8))[0]
    cdef uint8_t *node
    if info == NULL:
        return False
    if (<uint32_t *>(info + 24))[0] == MODIFIER_TILING:
        return False
    if (<uint32_t *>(info + 32))[0] & SPARSE_IMAGE:
        return False
    node = (<uint8_t **>(info + 8))[0]
    while node != NULL:
        if (<uint32_t *>node)[0] in (EXTERNAL_QUESTION, MODIFIER_QUESTION):
            return False
        node = (<uint8_t **>(node + 8))[0]
    return True


cdef int serve_without_handler(Stream *s, uint32_t index) noexcept nogil:
    """Run a command that has a Python handler and does not need it now.

    0, or -1 on an error, or LEFT_TO_HANDLER.
    """
    if index == ALLOCATE_MEMORY:
        return allocate_memory(s)
    if index == IMAGE_QUESTION and is_plain_question(s):
        return serve(s)
    return LEFT_TO_HANDLER
