"""Whether what a command names lies within what there is: the rows of `protocol/facts/bounds.toml`.

A row is an operation of a wire program: it comes after the fields that it is about, reads nothing,
and looks at what is decoded.  The extents of the handles among them were noted on the way.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from hesper_commands cimport (
    COMMAND_vkBindImageMemory2, COMMAND_vkGetBufferMemoryRequirements,
    COMMAND_vkGetImageMemoryRequirements, COMMAND_vkGetImageMemoryRequirements2,
    VK_QUEUE_FAMILY_FOREIGN_EXT, VK_REMAINING_ARRAY_LAYERS,
    VK_STRUCTURE_TYPE_BIND_IMAGE_PLANE_MEMORY_INFO,
    VK_STRUCTURE_TYPE_IMAGE_MEMORY_REQUIREMENTS_INFO_2,
    VK_STRUCTURE_TYPE_IMAGE_PLANE_MEMORY_REQUIREMENTS_INFO,
    VK_STRUCTURE_TYPE_MEMORY_REQUIREMENTS_2, VkBindImagePlaneMemoryInfo, VkBufferImageCopy,
    VkFramebufferCreateInfo, VkImageMemoryRequirementsInfo2, VkImagePlaneMemoryRequirementsInfo,
    VkImageViewCreateInfo, VkMemoryRequirements, VkMemoryRequirements2,
    VkPipelineLibraryCreateInfoKHR, VkRenderPassBeginInfo,
    VkRenderingAttachmentInfo, VkRenderingInfo, VkShaderModuleCreateInfo,
    VkSparseImageMemoryBind, vkCmdClearAttachments_parameters,
    vkCmdCopyQueryPoolResults_parameters, vkCmdExecuteCommands_parameters,
    vkGetImageMemoryRequirements2_parameters, vkGetImageMemoryRequirements_parameters)

from hesper.kernel.core.attachments cimport (
    begin_holds, framebuffer_holds, note_attached, rendering_holds)
from hesper.kernel.core.cleared cimport (
    begin_areas, clears_hold, executed_holds, locations_hold)
from hesper.kernel.core.code cimport check_code
from hesper.kernel.core.extents cimport image_layers, number_at, staged_image
from hesper.kernel.core.libraries cimport libraries_hold
from hesper.kernel.core.objects cimport Entry, Extent, object_find, object_kin
from hesper.kernel.core.queries cimport pool_suits, query_results, strided
from hesper.kernel.core.regions cimport Place, box_holds, corners_hold, range_holds, tile_bytes
from hesper.kernel.core.relations cimport NUMBER_COPIES_DEPTH, NUMBER_FAMILIES, device_number
from hesper.kernel.core.state cimport ERROR_ALIGNMENT, ERROR_BOUND, ERROR_NULL, Stream, fail
from hesper.kernel.core.structs cimport chain_find
from hesper.kernel.core.subpasses cimport leave_subpasses, next_holds
from hesper.kernel.core.tables cimport *
from hesper.kernel.core.texels cimport block_of, blocks, format_of


cdef extern from "bounds.h" nogil:
    uint64_t hesper_plus(uint64_t a, uint64_t b)
    uint64_t hesper_times(uint64_t a, uint64_t b)


cdef inline int fail_bound(Stream *s, const hesper_op *op, uint64_t first, uint64_t span,
                           uint64_t most) noexcept nogil:
    s.error_start = first
    s.error_most = most
    return fail(s, ERROR_BOUND, op, span)


cdef inline int check_bound(Stream *s, const hesper_op *op, const uint8_t *base) noexcept nogil:
    """OP_BOUND and its kin: look at the struct or parameters at `base`; -1 with the error noted."""
    if op.code == OP_BOUND_SAME:
        return fail_bound(s, op, (<const uint32_t *>(base + op.offset))[0], 1,
                          s.extents[op.inner].size)
    if op.code == OP_BOUND:
        return check_row(s, op, &hesper_bounds[op.ref], base)
    if op.code == OP_BOUND_PUSHED:
        return check_pushed(s, op, base)
    if op.code == OP_BOUND_OWNERS:
        return check_owners(s, op, <const uint32_t *>(base + op.offset))
    if check_row(s, op, &hesper_bounds[op.length], base):
        return -1
    if op.code == OP_BOUND_COPIES:
        return check_row(s, op, &hesper_bounds[op.length + 1], base)
    return 0


cdef inline int check_pushed(Stream *s, const hesper_op *op, const uint8_t *base) noexcept nogil:
    """OP_BOUND_PUSHED, which does not hold."""
    if (<const uint64_t *>(base + op.inner_from))[0] == 0:
        return 0 if s.dead_argument or op.flags & FLAG_NULLABLE else fail(s, ERROR_NULL, op, 0)
    return fail_bound(s, op, (<const uint32_t *>(base + op.offset))[0],
                      (<const uint32_t *>(base + op.size))[0], ~s.extents[op.inner].texels)


cdef inline int check_owners(Stream *s, const hesper_op *op,
                             const uint32_t *families) noexcept nogil:
    """OP_BOUND_OWNERS of two that are not the same."""
    cdef uint32_t most = device_number(s, NUMBER_FAMILIES)
    cdef uint32_t i
    for i in range(2):
        # VK_QUEUE_FAMILY_IGNORED, ..._EXTERNAL and ..._FOREIGN_EXT are the last numbers.
        if most <= families[i] < VK_QUEUE_FAMILY_FOREIGN_EXT and most:
            return fail_bound(s, op, families[i], 1, most)
    return 0


cdef inline int check_row(Stream *s, const hesper_op *op, const hesper_bound *b,
                          const uint8_t *base) noexcept nogil:
    cdef VkMemoryRequirements needs
    cdef const uint8_t *element
    cdef uint64_t most = s.extents[b.slot].size
    cdef uint32_t count
    if b.span >= SPAN_VIEW:
        return check_drawn(s, op, b, base)
    if b.of == BOUND_HANDLES:
        return check_each(s, op, b, base)
    if (<const uint64_t *>(base + b.handle))[0] == 0 or most == <uint64_t>-1:
        return 0
    if b.flags & BOUND_QUERY:
        if not pool_suits(&s.extents[b.slot], s.command - &hesper_commands[0], base):
            return fail_bound(s, op, 0, 1, 0)
        most = <uint32_t>most
    elif b.flags & BOUND_GROUPS:
        most = s.extents[b.slot].texels
    elif b.flags & BOUND_NEEDED:
        if not ask_needs(s, b, (<const uint64_t *>(base + b.handle))[0], base, &needs):
            return 0
        most = needs.size
    if b.list == BOUND_NOWHERE:
        return check_span(s, op, b, base, base, most)
    element = (<const uint8_t *const *>(base + b.list))[0]
    count = (<const uint32_t *>(base + b.count))[0] if element != NULL else 0
    while count:
        if check_span(s, op, b, base, element, most):
            return -1
        element += b.step
        count -= 1
    return 0


cdef inline int check_each(Stream *s, const hesper_op *op, const hesper_bound *b,
                           const uint8_t *base) noexcept nogil:
    """Handles, and as many first bytes and sizes in arrays beside them."""
    cdef const uint64_t *handles = (<const uint64_t *const *>(base + b.handle))[0]
    cdef const uint64_t *firsts = (<const uint64_t *const *>(base + b.first))[0]
    cdef const uint64_t *sizes = NULL
    cdef uint32_t count = (<const uint32_t *>(base + b.count))[0]
    cdef uint64_t first
    cdef uint64_t span = b.bytes
    cdef uint64_t most
    cdef uint32_t i
    if handles == NULL or firsts == NULL:
        return 0
    if b.span == SPAN_FIELD:
        sizes = (<const uint64_t *const *>(base + b.span_at))[0]
    for i in range(count):
        if handles[i] == 0:
            continue
        first = firsts[i]
        most = s.extent_list[i].size
        if sizes != NULL:
            span = sizes[i] if sizes[i] != <uint64_t>-1 else 0
        if first > most or span > most - first:
            return fail_bound(s, op, first, span, most)
    return 0


cdef inline int check_span(Stream *s, const hesper_op *op, const hesper_bound *b,
                           const uint8_t *base, const uint8_t *at, uint64_t most) noexcept nogil:
    """One place, whose fields lie at `at`."""
    cdef uint64_t first = 0
    cdef uint64_t span = b.bytes
    if b.span == SPAN_BOX or b.span == SPAN_CORNERS:
        return check_region(s, op, b, at)
    if b.first != BOUND_NOWHERE:
        first = number_at(at + b.first, b.first_width)
    if b.span == SPAN_FIELD:
        span = number_at(at + b.span_at, b.span_width)
        if b.flags & BOUND_WHOLE and span == <uint64_t>-1:
            span = 0
    elif b.span == SPAN_STRIDE:
        span = strided((<const uint32_t *>(at + b.span_at))[0],
                       (<const uint32_t *>(at + b.stride))[0], b.bytes)
    elif b.span == SPAN_QUERIES:
        # The pool was measured first.
        span = query_results(&s.extents[0], <vkCmdCopyQueryPoolResults_parameters *>base)
    elif b.span == SPAN_NEEDS:
        return check_binding(s, op, b, base, first, most)
    elif b.span == SPAN_TEXELS:
        span = image_region(<const VkBufferImageCopy *>(at + b.first), &s.extents[b.slot ^ 1])
    elif b.span == SPAN_TILE:
        span = tile_bytes(<const VkSparseImageMemoryBind *>at, &s.extents[b.slot ^ 2])
    if first > most or span > most - first:
        return fail_bound(s, op, first, span, most)
    return 0


cdef inline int check_region(Stream *s, const hesper_op *op, const hesper_bound *b,
                             const uint8_t *at) noexcept nogil:
    """A part of an image, whose fields lie at `at`."""
    cdef const Extent *image = &s.extents[b.slot]
    cdef const Extent *other = &s.extents[b.slot ^ 1] if b.like != BOUND_NOWHERE else NULL
    cdef Place place
    cdef bint good
    if b.span == SPAN_BOX:
        good = box_holds(b, at, image, other, device_number(s, NUMBER_COPIES_DEPTH) == 1, &place)
    else:
        good = corners_hold(b, at, image, other, &place)
    return 0 if good else fail_bound(s, op, place.first, place.span, place.most)


cdef inline int check_drawn(Stream *s, const hesper_op *op, const hesper_bound *b,
                            const uint8_t *base) noexcept nogil:
    """What is seen of an image, or rendered to: the whole struct at `base`."""
    cdef Place place
    cdef bint good = True
    if b.span == SPAN_CODE:
        return check_code(s, op, <const VkShaderModuleCreateInfo *>base)
    if b.span == SPAN_BEGUN:
        begin_areas(s)
        leave_subpasses(s, 0)
    elif b.span == SPAN_NEXT:
        good = next_holds(s, &place)
    elif b.span == SPAN_LOCATED:
        good = locations_hold(s, base, &place)
    elif b.span == SPAN_LIBRARIES:
        good = libraries_hold(s, <const VkPipelineLibraryCreateInfoKHR *>base, &place)
    elif b.span == SPAN_CLEARED:
        good = clears_hold(s, <const vkCmdClearAttachments_parameters *>base, &place)
    elif b.span == SPAN_EXECUTED:
        good = executed_holds(s, <const vkCmdExecuteCommands_parameters *>base, &place)
    elif b.span == SPAN_ATTACHED:
        note_attached(s, <const VkRenderingAttachmentInfo *>base)
    elif b.span == SPAN_RENDERING:
        good = rendering_holds(s, <const VkRenderingInfo *>base, &place)
    elif b.span == SPAN_PASS:
        good = begin_holds(s, <const VkRenderPassBeginInfo *>base, &place)
    elif (<const uint64_t *>(base + b.handle))[0] == 0 or s.extents[b.slot].size == <uint64_t>-1:
        return 0
    elif b.span == SPAN_VIEW:
        good = range_holds(<const VkImageViewCreateInfo *>base, &s.extents[b.slot], &place)
    else:
        good = framebuffer_holds(s, <const VkFramebufferCreateInfo *>base, &place)
    return 0 if good else fail_bound(s, op, place.first, place.span, place.most)


cdef inline int check_binding(Stream *s, const hesper_op *op, const hesper_bound *b,
                              const uint8_t *base, uint64_t first, uint64_t most) noexcept nogil:
    """A buffer or image that is to be bound to memory of `most` bytes, from `first` on."""
    cdef uint64_t handle = (<const uint64_t *>(base + b.span_at))[0]
    cdef const Extent *extent = &s.extents[b.slot ^ 1]
    cdef VkMemoryRequirements needs
    cdef uint64_t least
    if handle == 0 or (b.flags & BOUND_IMAGE and extent.size & staged_image()):
        return 0
    ask_needs(s, b, handle, base, &needs)
    if not b.flags & BOUND_IMAGE:
        # Guests' drivers derive what a buffer needs from what others of the kind need.
        least = hesper_plus(extent.size, needs.alignment - 1) & ~(needs.alignment - 1)
        needs.size = least if least < needs.size else needs.size
    if first > most or needs.size > most - first:
        return fail_bound(s, op, first, needs.size, most)
    if first & (needs.alignment - 1):
        s.error_start = first
        return fail(s, ERROR_ALIGNMENT, op, needs.alignment)
    return 0


cdef inline bint ask_needs(Stream *s, const hesper_bound *b, uint64_t handle, const uint8_t *base,
                           VkMemoryRequirements *needs) noexcept nogil:
    """Ask the driver what memory a buffer or image needs; False where it cannot be asked."""
    cdef vkGetImageMemoryRequirements_parameters block
    cdef vkGetImageMemoryRequirements2_parameters block_2
    cdef VkImageMemoryRequirementsInfo2 info
    cdef VkImagePlaneMemoryRequirementsInfo plane
    cdef VkMemoryRequirements2 answer
    cdef const VkBindImagePlaneMemoryInfo *bound = NULL
    cdef uint32_t index = COMMAND_vkGetBufferMemoryRequirements
    if b.flags & BOUND_IMAGE:
        index = COMMAND_vkGetImageMemoryRequirements
        if s.command - &hesper_commands[0] == COMMAND_vkBindImageMemory2:
            bound = <const VkBindImagePlaneMemoryInfo *>chain_find(
                base, VK_STRUCTURE_TYPE_BIND_IMAGE_PLANE_MEMORY_INFO)
            if bound != NULL:
                index = COMMAND_vkGetImageMemoryRequirements2
    needs.size = 0
    needs.alignment = 1
    if s.first == NULL or s.first.table == NULL or s.first.table[index] == NULL:
        return False
    # Buffers are asked about in the same form.
    block.device = device_handle(s)
    block.image = handle
    block.pMemoryRequirements = needs
    if bound == NULL:
        hesper_commands[index].call(s.first.table[index], &block)
    else:
        plane.sType = VK_STRUCTURE_TYPE_IMAGE_PLANE_MEMORY_REQUIREMENTS_INFO
        plane.pNext = NULL
        plane.planeAspect = bound.planeAspect
        info.sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_REQUIREMENTS_INFO_2
        info.pNext = &plane
        info.image = handle
        answer.sType = VK_STRUCTURE_TYPE_MEMORY_REQUIREMENTS_2
        answer.pNext = NULL
        answer.memoryRequirements = needs[0]
        block_2.device = block.device
        block_2.pInfo = &info
        block_2.pMemoryRequirements = &answer
        hesper_commands[index].call(s.first.table[index], &block_2)
        needs[0] = answer.memoryRequirements
    if needs.alignment == 0 or needs.alignment & (needs.alignment - 1):
        needs.alignment = 1
    return True


cdef inline uint64_t device_handle(Stream *s) noexcept nogil:
    """The driver's VkDevice that the current command is for, or 0."""
    cdef Entry *entry = object_find(&s.core.objects, object_kin(s.first).device_id)
    return entry.handle if entry != NULL else 0


cdef inline uint64_t image_region(const VkBufferImageCopy *region,
                                  const Extent *image) noexcept nogil:
    """Bytes from the first texel to the last of an image's part in a buffer.

    Source: the Vulkan specification, "Copying Data Between Buffers and Images".
    """
    cdef const hesper_format *format = format_of(<uint32_t>image.size)
    cdef const hesper_block *block
    cdef uint64_t layers = region.imageSubresource.layerCount
    cdef uint64_t width = region.imageExtent.width
    cdef uint64_t height = region.imageExtent.height
    cdef uint64_t slices = region.imageExtent.depth
    cdef uint64_t row
    cdef uint64_t slice
    if format == NULL:
        return 0
    if layers == VK_REMAINING_ARRAY_LAYERS:
        layers = image_layers(image)
        layers -= region.imageSubresource.baseArrayLayer
        if layers > 0xffff:
            return <uint64_t>-1
    if not (width and height and slices and layers):
        return 0
    block = block_of(format, region.imageSubresource.aspectMask)
    slices = hesper_times(slices, layers)
    row = blocks(region.bufferRowLength if region.bufferRowLength else width,
                 block.width) * block.size
    slice = hesper_times(row, blocks(
        region.bufferImageHeight if region.bufferImageHeight else height, block.height))
    return hesper_plus(hesper_times(slices - 1, slice), hesper_plus(
        hesper_times(blocks(height, block.height) - 1, row),
        blocks(width, block.width) * block.size))
