"""How the texels of formats lie in memory: blocks, planes, aspects."""

from libc.stdint cimport uint32_t, uint64_t

from hesper_commands cimport (
    VK_IMAGE_ASPECT_DEPTH_BIT, VK_IMAGE_ASPECT_PLANE_0_BIT, VK_IMAGE_ASPECT_PLANE_2_BIT,
    VK_IMAGE_ASPECT_STENCIL_BIT)

from hesper.kernel.core.tables cimport (
    hesper_block, hesper_format, hesper_format_count, hesper_formats)


cdef inline const hesper_format *format_of(uint32_t format) noexcept nogil:
    """What is known of a VkFormat, or null."""
    cdef uint32_t low = 0
    cdef uint32_t high = hesper_format_count
    cdef uint32_t middle
    while low < high:
        middle = (low + high) >> 1
        if hesper_formats[middle].format < format:
            low = middle + 1
        else:
            high = middle
    if low < hesper_format_count and hesper_formats[low].format == format:
        return &hesper_formats[low]
    return NULL


cdef inline const hesper_block *block_of(const hesper_format *format,
                                         uint32_t aspect) noexcept nogil:
    """The texel blocks in which an aspect lies in a buffer; the largest, where it is none."""
    if aspect == VK_IMAGE_ASPECT_DEPTH_BIT and format.depth.size:
        return &format.depth
    if aspect == VK_IMAGE_ASPECT_STENCIL_BIT and format.stencil.size:
        return &format.stencil
    if VK_IMAGE_ASPECT_PLANE_0_BIT <= aspect <= VK_IMAGE_ASPECT_PLANE_2_BIT:
        aspect = 0 if aspect == VK_IMAGE_ASPECT_PLANE_0_BIT else (
            2 if aspect == VK_IMAGE_ASPECT_PLANE_2_BIT else 1)
        if format.planes[aspect].size:
            return &format.planes[aspect]
    return &format.flat


cdef inline uint32_t aspects_end(uint32_t format) noexcept nogil:
    """What is above all aspects that an image of a VkFormat has: drivers keep an array of planes.

    Of one with a single plane, that is taken for the image.
    """
    cdef const hesper_format *known = format_of(format)
    cdef uint32_t end = VK_IMAGE_ASPECT_PLANE_0_BIT << 1
    cdef uint32_t i
    for i in range(1, 3):
        if known != NULL and known.planes[i].size:
            end = VK_IMAGE_ASPECT_PLANE_0_BIT << (i + 1)
    return end


cdef inline bint is_deep(const hesper_format *format) noexcept nogil:
    """Whether it has depth, or stencil."""
    return format.depth.size != 0 or format.stencil.size != 0


cdef inline uint64_t blocks(uint64_t texels, uint64_t block) noexcept nogil:
    return (texels + block - 1) // block
