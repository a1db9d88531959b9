"""Whether parts of images lie within their levels: in texels, blocks of them, layers and slices.

A slice of a three-dimensional image and a layer of another one are the same here: of each kind
drivers take as many as there are of the other.  Source: the valid usage of VkImageCopy,
VkImageBlit, VkBufferImageCopy, VkSparseImageMemoryBind and VkImageViewCreateInfo.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from hesper_commands cimport (
    VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT, VK_IMAGE_ASPECT_PLANE_0_BIT,
    VK_IMAGE_ASPECT_PLANE_1_BIT, VK_IMAGE_ASPECT_PLANE_2_BIT, VK_IMAGE_TYPE_2D, VK_IMAGE_TYPE_3D,
    VK_IMAGE_VIEW_TYPE_2D, VK_IMAGE_VIEW_TYPE_2D_ARRAY, VK_IMAGE_VIEW_TYPE_3D,
    VK_IMAGE_VIEW_TYPE_CUBE, VK_IMAGE_VIEW_TYPE_CUBE_ARRAY, VK_REMAINING_ARRAY_LAYERS,
    VK_REMAINING_3D_SLICES_EXT, VK_REMAINING_MIP_LEVELS,
    VK_STRUCTURE_TYPE_IMAGE_VIEW_SLICED_CREATE_INFO_EXT, VkExtent3D, VkImageSubresourceLayers,
    VkImageViewCreateInfo, VkImageViewSlicedCreateInfoEXT, VkOffset3D, VkSparseImageMemoryBind)

from hesper.kernel.core.extents cimport (
    image_axis, image_is_multisampled, image_is_seen_in_blocks, image_layers, image_levels,
    image_type)
from hesper.kernel.core.objects cimport Extent
from hesper.kernel.core.structs cimport chain_find
from hesper.kernel.core.tables cimport (
    BOUND_NOWHERE, BOUND_ONE_LAYER, BOUND_SCALED, hesper_block, hesper_bound, hesper_format)
from hesper.kernel.core.texels cimport aspects_end, block_of, blocks, format_of, is_deep


cdef extern from "bounds.h" nogil:
    uint64_t hesper_times(uint64_t a, uint64_t b)


cdef enum:
    FACES = 6                   # of a cube


cdef struct Place:
    # What lies beyond: so many from the first one on, where there are so many.
    uint64_t first
    uint64_t span
    uint64_t most


cdef struct Part:
    # A level of an image, and layers of it.
    const Extent *image
    hesper_block block
    uint32_t level
    uint64_t base
    uint64_t layers


cdef inline bint within(uint64_t first, uint64_t span, uint64_t most, Place *place) noexcept nogil:
    if first <= most and span <= most - first:
        return True
    place.first = first
    place.span = span
    place.most = most
    return False


cdef inline uint64_t flat_extent(uint64_t width, uint64_t height, uint64_t layers) noexcept nogil:
    """What is rendered to, or from; as much as fits."""
    return ((width if width < 0xffffff else 0xffffff)
            | (height if height < 0xffffff else 0xffffff) << 24
            | (layers if layers < 0xffff else 0xffff) << 48)


cdef inline uint64_t flat_axis(uint64_t extent, uint32_t axis) noexcept nogil:
    return extent >> 48 if axis == 2 else extent >> 24 * axis & 0xffffff


cdef inline void block_at(const Extent *image, uint32_t aspect, hesper_block *block) noexcept nogil:
    """The texel blocks of an aspect; single texels where the format is not known."""
    cdef const hesper_format *format = format_of(<uint32_t>image.size)
    if format != NULL:
        block[0] = block_of(format, aspect)[0]
        return
    block.size = 1
    block.width = 1
    block.height = 1
    block.across = 1
    block.down = 1


cdef inline uint64_t layers_of(const VkImageSubresourceLayers *layers,
                               const Extent *image) noexcept nogil:
    """How many, where all that remain are none if they begin beyond the image."""
    cdef uint64_t all = image_layers(image)
    if layers.layerCount != VK_REMAINING_ARRAY_LAYERS:
        return layers.layerCount
    return all - layers.baseArrayLayer if layers.baseArrayLayer < all else 0


cdef inline bint part_holds(const hesper_bound *b, const uint8_t *at, const Extent *image,
                            const Extent *other, Part *part, Place *place) noexcept nogil:
    """Look at the level; how large what lies there is comes later."""
    cdef const VkImageSubresourceLayers *layers = <const VkImageSubresourceLayers *>(at + b.part)
    cdef uint64_t others
    part.image = image
    part.level = layers.mipLevel
    part.base = layers.baseArrayLayer
    part.layers = 1 if b.flags & BOUND_ONE_LAYER else layers_of(layers, image)
    if other != NULL and other.size != <uint64_t>-1 and image_type(image) != VK_IMAGE_TYPE_3D:
        others = layers_of(<const VkImageSubresourceLayers *>(at + b.like), other)
        part.layers = others if others > part.layers else part.layers
    block_at(image, layers.aspectMask, &part.block)
    return (within(part.level, 1, image_levels(image), place)
            and aspects_hold(layers.aspectMask, <uint32_t>image.size, place))


cdef inline bint aspects_hold(uint32_t aspects, uint32_t format, Place *place) noexcept nogil:
    """Whether an image of a format has those, as far as they name planes."""
    return (aspects == VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT
            or within(aspects, 1, aspects_end(format), place))


cdef inline uint64_t level_axis(const Part *part, uint32_t axis) noexcept nogil:
    """Texels of the level, or of its plane; slices and layers together."""
    cdef uint64_t texels = image_axis(part.image, axis, part.level)
    if axis == 2:
        return texels * image_layers(part.image)
    texels //= part.block.down if axis else part.block.across
    return texels if texels else 1


cdef inline bint slices_hold(const Part *part, uint64_t first, uint64_t span,
                             Place *place) noexcept nogil:
    """Whether slices, and the layers that they stand for, are there."""
    return within(first + part.base, part.layers if part.layers > span else span,
                  level_axis(part, 2), place)


cdef inline bint texels_fit(const hesper_bound *b, const uint8_t *at, const Extent *image,
                            const Extent *other, bint apart, Place *place) noexcept nogil:
    """Whether what is copied to another image has as many bytes there: drivers go by one of both.

    apart: depth and colours are not copied to each other.
    """
    cdef const hesper_format *own = format_of(<uint32_t>image.size)
    cdef const hesper_format *others = format_of(<uint32_t>other.size)
    cdef uint32_t aspect = (<const VkImageSubresourceLayers *>(at + b.part)).aspectMask
    cdef uint32_t others_aspect = (<const VkImageSubresourceLayers *>(at + b.like)).aspectMask
    if own == NULL or others == NULL:
        return True
    place.first = 0
    place.span = block_of(own, aspect).size
    place.most = block_of(others, others_aspect).size
    if (not names_plane(own, aspect) or not names_plane(others, others_aspect)
            or apart and own != others and (is_deep(own) or is_deep(others))):
        place.most = 0
    return place.span == place.most


cdef inline bint names_plane(const hesper_format *format, uint32_t aspect) noexcept nogil:
    """Whether one plane is named of a format that has several."""
    return (format.planes[0].size == 0 or aspect == VK_IMAGE_ASPECT_PLANE_0_BIT
            or aspect == VK_IMAGE_ASPECT_PLANE_1_BIT or aspect == VK_IMAGE_ASPECT_PLANE_2_BIT)


cdef inline bint box_holds(const hesper_bound *b, const uint8_t *at, const Extent *image,
                           const Extent *other, bint apart, Place *place) noexcept nogil:
    """An offset and an extent.  Of blocks that the level has in part, all of it is there.

    apart: as of `texels_fit`.
    """
    cdef const VkOffset3D *offset = <const VkOffset3D *>(at + b.first)
    cdef const VkExtent3D *extent = <const VkExtent3D *>(at + b.span_at)
    cdef hesper_block counted
    cdef Part part
    if not part_holds(b, at, image, other, &part, place):
        return False
    counted = part.block
    if (other != NULL and other.size != <uint64_t>-1
            and not texels_fit(b, at, image, other, apart, place)):
        return False
    if b.flags & BOUND_SCALED and other.size != <uint64_t>-1:
        block_at(other, (<const VkImageSubresourceLayers *>(at + b.like)).aspectMask, &counted)
    return (within(blocks(<uint32_t>offset.x, part.block.width),
                   blocks(extent.width, counted.width),
                   blocks(level_axis(&part, 0), part.block.width), place)
            and within(blocks(<uint32_t>offset.y, part.block.height),
                       blocks(extent.height, counted.height),
                       blocks(level_axis(&part, 1), part.block.height), place)
            and slices_hold(&part, <uint32_t>offset.z, extent.depth, place))


cdef inline uint64_t tile_bytes(const VkSparseImageMemoryBind *bind,
                                const Extent *image) noexcept nogil:
    """What is bound of an image at least: whole tiles, where they have Vulkan's standard shape."""
    cdef hesper_block block
    cdef uint64_t across
    cdef uint64_t down
    cdef uint64_t bits = 16
    if image.size == <uint64_t>-1:
        return 1
    block_at(image, bind.subresource.aspectMask, &block)
    across = blocks(bind.extent.width, block.width)
    down = blocks(bind.extent.height, block.height)
    if (image_type(image) != VK_IMAGE_TYPE_2D or image_is_multisampled(image)
            or block.size > 16 or block.size & (block.size - 1)):
        return hesper_times(hesper_times(across, down),
                            hesper_times(bind.extent.depth, block.size))
    # 64 KiB, as wide as high or twice as wide.
    while block.size > 1:
        block.size >>= 1
        bits -= 1
    return hesper_times(blocks(across, <uint64_t>1 << ((bits + 1) >> 1)),
                        blocks(down, <uint64_t>1 << (bits >> 1)) << 16)


cdef inline bint corners_hold(const hesper_bound *b, const uint8_t *at, const Extent *image,
                              const Extent *other, Place *place) noexcept nogil:
    """Two corners, in any order."""
    cdef const VkOffset3D *corners = <const VkOffset3D *>(at + b.first)
    cdef Part part
    if not part_holds(b, at, image, other, &part, place):
        return False
    return (between(corners[0].x, corners[1].x, level_axis(&part, 0), place)
            and between(corners[0].y, corners[1].y, level_axis(&part, 1), place)
            and between(corners[0].z, corners[1].z, image_axis(image, 2, part.level), place)
            and slices_hold(&part, lower(corners[0].z, corners[1].z),
                            higher(corners[0].z, corners[1].z) - lower(corners[0].z, corners[1].z),
                            place))


cdef inline uint64_t lower(int32_t a, int32_t b) noexcept nogil:
    return <uint32_t>a if <uint32_t>a < <uint32_t>b else <uint32_t>b


cdef inline uint64_t higher(int32_t a, int32_t b) noexcept nogil:
    return <uint32_t>a if <uint32_t>a > <uint32_t>b else <uint32_t>b


cdef inline bint between(int32_t a, int32_t b, uint64_t most, Place *place) noexcept nogil:
    """Whether both numbers, of which negative ones are large, lie between 0 and `most`."""
    return within(lower(a, b), higher(a, b) - lower(a, b), most, place)


cdef inline uint64_t range_layers(const VkImageViewCreateInfo *info,
                                  const Extent *image) noexcept nogil:
    """Layers that a view may have; of flat ones of three-dimensional images, slices."""
    if is_flat_of_deep(info, image):
        return image_axis(image, 2, info.subresourceRange.baseMipLevel)
    if info.viewType == VK_IMAGE_VIEW_TYPE_3D and image_type(image) != VK_IMAGE_TYPE_3D:
        return 0
    return image_layers(image)


cdef inline bint is_flat_of_deep(const VkImageViewCreateInfo *info,
                                 const Extent *image) noexcept nogil:
    """Whether it is a flat view of a three-dimensional image."""
    return image_type(image) == VK_IMAGE_TYPE_3D and (
        info.viewType == VK_IMAGE_VIEW_TYPE_2D or info.viewType == VK_IMAGE_VIEW_TYPE_2D_ARRAY)


cdef inline bint format_holds(const VkImageViewCreateInfo *info, const Extent *image,
                              Place *place) noexcept nogil:
    """Whether a view's texels lie where the image has its own."""
    cdef const hesper_format *own = format_of(<uint32_t>image.size)
    cdef const hesper_format *seen = format_of(<uint32_t>info.format)
    cdef const hesper_block *block
    if own == NULL or seen == NULL or own == seen:
        return True
    block = block_of(own, info.subresourceRange.aspectMask)
    place.first = 0
    place.span = seen.flat.size
    place.most = block.size
    if seen.flat.size != block.size or own.depth.size or own.stencil.size:
        return False
    return (seen.flat.width == block.width and seen.flat.height == block.height
            or seen.flat.width == 1 and seen.flat.height == 1 and image_is_seen_in_blocks(image))


cdef inline void view_extent(const VkImageViewCreateInfo *info, const Extent *image,
                             Extent *extent) noexcept nogil:
    """Width, height and layers of the first level, in the view's texels."""
    cdef uint32_t level = info.subresourceRange.baseMipLevel
    cdef uint64_t layers = info.subresourceRange.layerCount
    cdef const hesper_format *seen = format_of(<uint32_t>info.format)
    cdef Part part
    if info.image == 0 or image.size == <uint64_t>-1:
        return
    part.image = image
    part.level = level
    block_at(image, info.subresourceRange.aspectMask, &part.block)
    if layers == VK_REMAINING_ARRAY_LAYERS:
        layers = range_layers(info, image) - info.subresourceRange.baseArrayLayer
    if seen != NULL and seen.flat.width == part.block.width:
        part.block.width = 1
        part.block.height = 1
    extent.size = 0
    extent.texels = flat_extent(blocks(level_axis(&part, 0), part.block.width),
                                blocks(level_axis(&part, 1), part.block.height), layers)


cdef inline bint range_holds(const VkImageViewCreateInfo *info, const Extent *image,
                             Place *place) noexcept nogil:
    """Levels, layers and format of a view."""
    cdef uint32_t level = info.subresourceRange.baseMipLevel
    cdef uint64_t levels = image_levels(image)
    cdef uint64_t base = info.subresourceRange.baseArrayLayer
    cdef uint64_t layers = info.subresourceRange.layerCount
    cdef uint64_t most
    if not within(level, (1 if info.subresourceRange.levelCount == VK_REMAINING_MIP_LEVELS
                          else info.subresourceRange.levelCount), levels, place):
        return False
    most = range_layers(info, image)
    if is_flat_of_deep(info, image):
        # Each level has half as many slices as the one before it.
        most = image_axis(image, 2, last_level(info, image))
    if layers == VK_REMAINING_ARRAY_LAYERS:
        layers = most - base if base < most else 1
    if (info.viewType == VK_IMAGE_VIEW_TYPE_CUBE
            or info.viewType == VK_IMAGE_VIEW_TYPE_CUBE_ARRAY):
        # Drivers go by whole cubes.
        layers = blocks(layers, FACES) * FACES
    return (within(base, layers, most, place) and format_holds(info, image, place)
            and slice_range_holds(info, image, place))


cdef inline uint32_t last_level(const VkImageViewCreateInfo *info,
                                const Extent *image) noexcept nogil:
    """The last level of a view, which the image has."""
    if info.subresourceRange.levelCount == VK_REMAINING_MIP_LEVELS:
        return <uint32_t>image_levels(image) - 1
    if info.subresourceRange.levelCount == 0:
        return info.subresourceRange.baseMipLevel
    return info.subresourceRange.baseMipLevel + info.subresourceRange.levelCount - 1


cdef inline bint slice_range_holds(const VkImageViewCreateInfo *info, const Extent *image,
                                   Place *place) noexcept nogil:
    """Slices of a three-dimensional view, where it has not all."""
    cdef const VkImageViewSlicedCreateInfoEXT *sliced = <const VkImageViewSlicedCreateInfoEXT *>(
        chain_find(info, VK_STRUCTURE_TYPE_IMAGE_VIEW_SLICED_CREATE_INFO_EXT))
    if sliced == NULL:
        return True
    return within(sliced.sliceOffset, (1 if sliced.sliceCount == VK_REMAINING_3D_SLICES_EXT
                                       else sliced.sliceCount),
                  image_axis(image, 2, info.subresourceRange.baseMipLevel), place)
