"""How large objects are, as far as commands name places in them, and whether those lie within.

An object has its extent before any thread can find it, and never another one: what a guest may do
to a buffer or a memory is known without asking anybody.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from hesper_commands cimport (
    COMMAND_vkCreateComputePipelines, COMMAND_vkCreateGraphicsPipelines,
    COMMAND_vkCreateRayTracingPipelinesKHR, HANDLE_VkBuffer, HANDLE_VkCommandBuffer,
    HANDLE_VkDeviceMemory, HANDLE_VkImage, HANDLE_VkPipeline, HANDLE_VkQueryPool,
    VK_IMAGE_CREATE_BLOCK_TEXEL_VIEW_COMPATIBLE_BIT, VK_PIPELINE_BIND_POINT_COMPUTE,
    VK_PIPELINE_BIND_POINT_GRAPHICS, VK_PIPELINE_BIND_POINT_RAY_TRACING_KHR,
    VK_PIPELINE_CREATE_LIBRARY_BIT_KHR,
    VK_STRUCTURE_TYPE_PIPELINE_CREATE_FLAGS_2_CREATE_INFO, VkGraphicsPipelineCreateInfo,
    VkImageCreateInfo, VkPipelineCreateFlags2CreateInfo,
    VkRayTracingPipelineCreateInfoKHR, vkAllocateMemory_parameters, vkCreateBuffer_parameters,
    vkCreateGraphicsPipelines_parameters, vkCreateImage_parameters,
    vkCreateQueryPool_parameters, vkCreateRayTracingPipelinesKHR_parameters)

from hesper.kernel.core.objects cimport Entry, Extent, object_extent, object_with
from hesper.kernel.core.queries cimport pool_extent
from hesper.kernel.core.state cimport Stream
from hesper.kernel.core.structs cimport chain_find
from hesper.kernel.core.tables cimport (
    BOUND_NOWHERE, BOUND_WHOLE, OP_BOUND, OP_BOUND_COPIES, OP_BOUND_PUSHED, OP_BOUND_SAME,
    hesper_bound, hesper_bounds, hesper_commands, hesper_op)


cdef inline void extent_of_new(Stream *s, Extent *extent) noexcept nogil:
    """What the current command, which has been run, makes objects of.

    Memory has what the driver was asked for in the end, which may be more than the guest has asked.
    """
    cdef uint32_t type = s.command.new_type
    extent.size = <uint64_t>-1
    extent.texels = 0
    if type == HANDLE_VkBuffer:
        extent.size = (<vkCreateBuffer_parameters *>s.parameters).pCreateInfo.size
    elif type == HANDLE_VkDeviceMemory:
        extent.size = (<vkAllocateMemory_parameters *>s.parameters).pAllocateInfo.allocationSize
    elif type == HANDLE_VkQueryPool:
        pool_extent((<vkCreateQueryPool_parameters *>s.parameters).pCreateInfo, extent)
    elif type == HANDLE_VkCommandBuffer:
        extent.size = 0
    elif type == HANDLE_VkImage:
        image_extent((<vkCreateImage_parameters *>s.parameters).pCreateInfo, extent)


cdef inline void extent_of_each(Stream *s, uint64_t index, Extent *extent) noexcept nogil:
    """What differs between the objects that one command makes: pipelines' groups of shaders.

    Of a pipeline, the size is what it is bound as, and whether it is a library, which is not.
    """
    cdef const VkRayTracingPipelineCreateInfoKHR *info
    cdef const VkGraphicsPipelineCreateInfo *graphics
    cdef Entry *part
    cdef uint32_t i
    extent.texels = 0
    if s.command - &hesper_commands[0] == COMMAND_vkCreateGraphicsPipelines:
        graphics = &(<vkCreateGraphicsPipelines_parameters *>s.parameters).pCreateInfos[index]
        extent.size = VK_PIPELINE_BIND_POINT_GRAPHICS
        if is_library(graphics, graphics.flags):
            extent.size |= library()
    elif s.command - &hesper_commands[0] == COMMAND_vkCreateComputePipelines:
        extent.size = VK_PIPELINE_BIND_POINT_COMPUTE
    elif s.command - &hesper_commands[0] == COMMAND_vkCreateRayTracingPipelinesKHR:
        extent.size = VK_PIPELINE_BIND_POINT_RAY_TRACING_KHR
        info = &(<vkCreateRayTracingPipelinesKHR_parameters *>s.parameters).pCreateInfos[index]
        extent.texels = info.groupCount
        if is_library(info, info.flags):
            extent.size |= library()
        if info.pLibraryInfo == NULL or info.pLibraryInfo.pLibraries == NULL:
            return
        for i in range(info.pLibraryInfo.libraryCount):
            part = object_with(&s.core.objects, HANDLE_VkPipeline,
                               info.pLibraryInfo.pLibraries[i], s.device)
            extent.texels += object_extent(part).texels if part != NULL else 0


cdef inline uint64_t library() noexcept nogil:
    """The bit of a pipeline's size that says it is for other pipelines to be made of."""
    return <uint64_t>1 << 32


cdef inline bint is_library(const void *info, uint32_t flags) noexcept nogil:
    """Whether a pipeline's create info, whose older flags are given, asks for a library."""
    cdef const VkPipelineCreateFlags2CreateInfo *newer = <const VkPipelineCreateFlags2CreateInfo *>(
        chain_find(info, VK_STRUCTURE_TYPE_PIPELINE_CREATE_FLAGS_2_CREATE_INFO))
    cdef uint64_t all = newer.flags if newer != NULL else flags
    return all & VK_PIPELINE_CREATE_LIBRARY_BIT_KHR != 0


cdef inline uint64_t own_description(const Extent *extent) noexcept nogil:
    """The reference to a descriptor set's own description, where its facts would stand; 0: none."""
    return extent.facts[0] | <uint64_t>extent.facts[1] << 32


cdef inline void put_own_description(Extent *extent, uint64_t reference) noexcept nogil:
    extent.facts[0] = <uint32_t>reference
    extent.facts[1] = <uint32_t>(reference >> 32)


cdef inline void image_extent(const VkImageCreateInfo *info, Extent *extent) noexcept nogil:
    """The format, 16 bits of layers, 8 of levels, 2 of the type, 1 of more samples than one, 1 of
    views that have a texel for each block; and 24 bits of width and height, 16 of depth.
    """
    extent.size = (<uint64_t><uint32_t>info.format | least(info.arrayLayers, 0xffff) << 32
                   | least(info.mipLevels, 0xff) << 48
                   | (<uint64_t>info.imageType & 3) << 56
                   | <uint64_t>(info.samples > 1) << 58
                   | <uint64_t>(
                       info.flags & VK_IMAGE_CREATE_BLOCK_TEXEL_VIEW_COMPATIBLE_BIT != 0) << 59)
    extent.texels = (least(info.extent.width, 0xffffff) | least(info.extent.height, 0xffffff) << 24
                     | least(info.extent.depth, 0xffff) << 48)


cdef inline uint64_t image_layers(const Extent *image) noexcept nogil:
    return image.size >> 32 & 0xffff


cdef inline uint64_t image_levels(const Extent *image) noexcept nogil:
    return image.size >> 48 & 0xff


cdef inline uint32_t image_type(const Extent *image) noexcept nogil:
    """VK_IMAGE_TYPE_..."""
    return image.size >> 56 & 3


cdef inline bint image_is_multisampled(const Extent *image) noexcept nogil:
    return image.size >> 58 & 1


cdef inline bint image_is_seen_in_blocks(const Extent *image) noexcept nogil:
    return image.size >> 59 & 1


cdef inline uint64_t image_axis(const Extent *image, uint32_t axis,
                                uint32_t level) noexcept nogil:
    """Width (0), height or depth of a level, which the image has."""
    cdef uint64_t texels = image.texels >> 24 * axis & (0xffff if axis == 2 else 0xffffff)
    texels >>= level
    return texels if texels else 1


cdef inline uint64_t least(uint64_t a, uint64_t b) noexcept nogil:
    return a if a < b else b


cdef inline uint64_t staged_image() noexcept nogil:
    """The bit of an image's size that says it is a staged one: `guest/staging.py` binds those."""
    return <uint64_t>1 << 63


cdef inline uint64_t number_at(const uint8_t *at, uint8_t width) noexcept nogil:
    return (<const uint64_t *>at)[0] if width == 8 else (<const uint32_t *>at)[0]


cdef inline bint span_holds(const hesper_bound *b, const uint8_t *at, uint64_t most) noexcept nogil:
    """Whether one place lies within, whose fields lie at `at`."""
    cdef uint64_t first = 0
    cdef uint64_t span = b.bytes
    if b.first_width:
        first = number_at(at + b.first, b.first_width)
    if b.span_width:
        span = number_at(at + b.span_at, b.span_width)
        if span == <uint64_t>-1 and b.flags & BOUND_WHOLE:
            span = 0
    return first <= most and span <= most - first


cdef inline bint bound_holds(Stream *s, const hesper_op *op, uint8_t code,
                             const uint8_t *base) noexcept nogil:
    """Whether what is decoded lies within the bounds that OP_BOUND and what follows it are about.

    False leaves it to `check_bound`, which knows all kinds and says what is wrong.
    """
    cdef uint64_t most
    if code <= OP_BOUND_COPIES:
        if code == OP_BOUND:
            return plain_holds(s, &hesper_bounds[op.ref], base)
        return copies_hold(s, op, base)
    if code == OP_BOUND_SAME:
        most = s.extents[op.inner].size
        return (<const uint32_t *>(base + op.offset))[0] == most or most == <uint64_t>-1
    if code == OP_BOUND_PUSHED:
        return ((<const uint64_t *>(base + op.inner_from))[0] != 0
                and <uint64_t>(<const uint32_t *>(base + op.offset))[0]
                + (<const uint32_t *>(base + op.size))[0] <= ~s.extents[op.inner].texels)
    return ((<const uint32_t *>(base + op.offset))[0]
            == (<const uint32_t *>(base + op.offset))[1])


cdef inline bint copies_hold(Stream *s, const hesper_op *op, const uint8_t *base) noexcept nogil:
    """Structs with two offsets and a size, from one buffer to the other."""
    cdef const uint8_t *element = (<const uint8_t *const *>(base + op.offset))[0]
    cdef const uint64_t *copy
    cdef uint32_t count = (<const uint32_t *>(base + op.inner_from))[0]
    cdef uint64_t source = s.extents[0].size
    cdef uint64_t target = s.extents[1].size
    if element == NULL:
        return True
    element += op.inner_step
    while count:
        copy = <const uint64_t *>element
        if (copy[0] > source or copy[2] > source - copy[0]
                or copy[1] > target or copy[2] > target - copy[1]):
            return False
        element += op.size
        count -= 1
    return True


cdef inline bint plain_holds(Stream *s, const hesper_bound *b,
                             const uint8_t *base) noexcept nogil:
    """The common kind of OP_BOUND."""
    cdef const uint8_t *element
    cdef uint64_t most = s.extents[b.slot].size
    cdef uint32_t count
    if not b.plain:
        return False
    if (<const uint64_t *>(base + b.handle))[0] == 0:
        return True
    if b.list == BOUND_NOWHERE:
        return span_holds(b, base, most)
    element = (<const uint8_t *const *>(base + b.list))[0]
    count = (<const uint32_t *>(base + b.count))[0] if element != NULL else 0
    while count and span_holds(b, element, most):
        element += b.step
        count -= 1
    return count == 0
