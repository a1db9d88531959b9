"""What is rendered to: views, framebuffers, and the areas of both that are asked for.

Source: the valid usage of VkFramebufferCreateInfo, VkRenderPassBeginInfo and VkRenderingInfo.
Of a view, an extent has width, height and layers; of a framebuffer the same, and which attachments
are smaller than that; of a render pass which attachments it renders to, and to how many views.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t

from hesper_commands cimport (
    COMMAND_vkCreateFramebuffer, COMMAND_vkCreateImageView, COMMAND_vkCreateRenderPass,
    COMMAND_vkCreateRenderPass2, VK_ATTACHMENT_UNUSED, VK_FRAMEBUFFER_CREATE_IMAGELESS_BIT,
    VK_STRUCTURE_TYPE_DEVICE_GROUP_RENDER_PASS_BEGIN_INFO,
    VK_STRUCTURE_TYPE_RENDER_PASS_ATTACHMENT_BEGIN_INFO,
    VK_STRUCTURE_TYPE_RENDER_PASS_MULTIVIEW_CREATE_INFO,
    VK_STRUCTURE_TYPE_SUBPASS_DESCRIPTION_DEPTH_STENCIL_RESOLVE, VkAttachmentReference,
    VkAttachmentReference2, VkDeviceGroupRenderPassBeginInfo, VkFramebufferCreateInfo,
    VkPhysicalDeviceLimits, VkRect2D,
    VkRenderingAttachmentInfo, VkRenderingInfo, VkRenderPassAttachmentBeginInfo,
    VkRenderPassBeginInfo, VkRenderPassCreateInfo, VkRenderPassCreateInfo2,
    VkRenderPassMultiviewCreateInfo, VkSubpassDescription, VkSubpassDescription2,
    VkSubpassDescriptionDepthStencilResolve, vkCreateFramebuffer_parameters,
    vkCreateImageView_parameters, vkCreateRenderPass2_parameters, vkCreateRenderPass_parameters)

from hesper.kernel.core.cleared cimport begin_area
from hesper.kernel.core.colors cimport add_colors
from hesper.kernel.core.extents cimport least as lesser
from hesper.kernel.core.objects cimport Extent
from hesper.kernel.core.pass_colors cimport has_colors_elsewhere
from hesper.kernel.core.regions cimport Place, flat_axis, flat_extent, view_extent, within
from hesper.kernel.core.relations cimport limits_of
from hesper.kernel.core.state cimport Stream
from hesper.kernel.core.structs cimport chain_find
from hesper.kernel.core.subpasses cimport begin_subpasses, begin_without_pass
from hesper.kernel.core.tables cimport hesper_commands


cdef enum:
    # Of 64 bits: one for each of the first attachments, one for all others.
    LAST = 47
    VIEWS = 48                  # where the number of views stands


cdef inline void attachment_extent(Stream *s, Extent *extent) noexcept nogil:
    """What the current command, which has been run, makes to render to; others keep theirs."""
    cdef uint32_t index = <uint32_t>(s.command - &hesper_commands[0])
    if index == COMMAND_vkCreateImageView:
        view_extent((<vkCreateImageView_parameters *>s.parameters).pCreateInfo, &s.extents[0],
                    extent)
    elif index == COMMAND_vkCreateFramebuffer:
        framebuffer_extent(s, (<vkCreateFramebuffer_parameters *>s.parameters).pCreateInfo, extent)
    elif index == COMMAND_vkCreateRenderPass:
        pass_extent((<vkCreateRenderPass_parameters *>s.parameters).pCreateInfo, False, extent)
    elif index == COMMAND_vkCreateRenderPass2:
        pass_extent((<vkCreateRenderPass2_parameters *>s.parameters).pCreateInfo, True, extent)


cdef inline uint64_t attachment_bit(uint32_t index) noexcept nogil:
    return <uint64_t>1 << (index if index < LAST else LAST)


cdef inline uint64_t referred(const void *references, uint32_t count,
                              bint again) noexcept nogil:
    """The attachments of VkAttachmentReference, or (again) VkAttachmentReference2."""
    cdef uint64_t found = 0
    cdef uint32_t attachment
    cdef uint32_t i
    for i in range(count if references != NULL else 0):
        if again:
            attachment = (<const VkAttachmentReference2 *>references)[i].attachment
        else:
            attachment = (<const VkAttachmentReference *>references)[i].attachment
        if attachment != VK_ATTACHMENT_UNUSED:
            found |= attachment_bit(attachment)
    return found


cdef inline uint64_t views_in(uint32_t mask) noexcept nogil:
    """One more than the last view."""
    cdef uint64_t found = 0
    while mask:
        mask >>= 1
        found += 1
    return found


cdef inline void widen(const VkSubpassDescription *subpass,
                       VkSubpassDescription2 *wide) noexcept nogil:
    """What of a subpass counts here, in the newer struct; its references stay the older ones."""
    wide.pNext = NULL
    wide.viewMask = 0
    wide.inputAttachmentCount = subpass.inputAttachmentCount
    wide.pInputAttachments = <VkAttachmentReference2 *>subpass.pInputAttachments
    wide.colorAttachmentCount = subpass.colorAttachmentCount
    wide.pColorAttachments = <VkAttachmentReference2 *>subpass.pColorAttachments
    wide.pResolveAttachments = <VkAttachmentReference2 *>subpass.pResolveAttachments
    wide.pDepthStencilAttachment = <VkAttachmentReference2 *>subpass.pDepthStencilAttachment


cdef inline uint64_t subpass_uses(const VkSubpassDescription2 *subpass, bint again) noexcept nogil:
    """The attachments of a subpass."""
    cdef const VkSubpassDescriptionDepthStencilResolve *resolve = NULL
    if again:
        resolve = <const VkSubpassDescriptionDepthStencilResolve *>chain_find(
            subpass, VK_STRUCTURE_TYPE_SUBPASS_DESCRIPTION_DEPTH_STENCIL_RESOLVE)
    return (referred(subpass.pInputAttachments, subpass.inputAttachmentCount, again)
            | referred(subpass.pColorAttachments, subpass.colorAttachmentCount, again)
            | referred(subpass.pResolveAttachments, subpass.colorAttachmentCount, again)
            | referred(subpass.pDepthStencilAttachment, 1, again)
            | (referred(resolve.pDepthStencilResolveAttachment, 1, again)
               if resolve != NULL else 0))


cdef inline void pass_extent(const void *info, bint again, Extent *extent) noexcept nogil:
    """Of a VkRenderPassCreateInfo, or (again) a VkRenderPassCreateInfo2: the attachments.

    And the views, in the upper bits of the size, so that it is not all ones.  The lower ones are
    `colors.pxd`'s, or `pass_colors.pxd`'s.
    """
    cdef const VkRenderPassCreateInfo *old = <const VkRenderPassCreateInfo *>info
    cdef const VkRenderPassCreateInfo2 *new = <const VkRenderPassCreateInfo2 *>info
    cdef const VkRenderPassMultiviewCreateInfo *views = <const VkRenderPassMultiviewCreateInfo *>(
        chain_find(info, VK_STRUCTURE_TYPE_RENDER_PASS_MULTIVIEW_CREATE_INFO))
    cdef VkSubpassDescription2 subpass
    cdef uint64_t most = 0
    cdef uint32_t count = new.subpassCount if again else old.subpassCount
    cdef uint32_t i
    extent.texels = 0
    extent.size = 0
    for i in range(count):
        if again:
            subpass = new.pSubpasses[i]
        else:
            widen(&old.pSubpasses[i], &subpass)
            if views != NULL and views.pViewMasks != NULL and i < views.subpassCount:
                subpass.viewMask = views.pViewMasks[i]
        extent.texels |= subpass_uses(&subpass, again)
        if not has_colors_elsewhere(count):
            extent.size = add_colors(extent.size, i, subpass.colorAttachmentCount)
        if views_in(subpass.viewMask) > most:
            most = views_in(subpass.viewMask)
    extent.size |= most << VIEWS


cdef inline bint is_smaller(const Extent *view, uint64_t least, Place *place) noexcept nogil:
    """Whether a view lacks something of what is to be rendered to."""
    cdef uint32_t axis
    if view.size == <uint64_t>-1:
        return False
    for axis in range(3):
        if not within(0, flat_axis(least, axis), flat_axis(view.texels, axis), place):
            return True
    return False


cdef inline uint64_t smaller_ones(const Extent *views, const uint64_t *handles, uint32_t count,
                                  uint64_t least, Place *place) noexcept nogil:
    """The attachments that are too small for a framebuffer."""
    cdef uint64_t found = 0
    cdef uint32_t i
    for i in range(count if handles != NULL else 0):
        if handles[i] and is_smaller(&views[i], least, place):
            found |= attachment_bit(i)
    return found


cdef inline uint64_t views_of(const Extent *render_pass) noexcept nogil:
    return render_pass.size >> VIEWS if render_pass.size != <uint64_t>-1 else 0


cdef inline uint64_t least_attachment(uint64_t framebuffer, uint64_t views) noexcept nogil:
    """What attachments must have: of a framebuffer with views, a layer each."""
    if views <= flat_axis(framebuffer, 2):
        return framebuffer
    return flat_extent(flat_axis(framebuffer, 0), flat_axis(framebuffer, 1), views)


cdef inline void framebuffer_extent(Stream *s, const VkFramebufferCreateInfo *info,
                                    Extent *extent) noexcept nogil:
    """Of a framebuffer that is being made, whose attachments have been measured."""
    cdef uint64_t views = views_of(&s.extents[0])
    cdef Place place
    extent.texels = flat_extent(info.width, info.height, info.layers)
    extent.size = views << VIEWS
    if not info.flags & VK_FRAMEBUFFER_CREATE_IMAGELESS_BIT:
        extent.size |= smaller_ones(s.extent_list, <const uint64_t *>info.pAttachments,
                                    info.attachmentCount,
                                    least_attachment(extent.texels, views), &place)


cdef inline bint framebuffer_holds(Stream *s, const VkFramebufferCreateInfo *info,
                                   Place *place) noexcept nogil:
    """Whether all attachments that are rendered to are large enough."""
    cdef Extent extent
    framebuffer_extent(s, info, &extent)
    if s.extents[0].size == <uint64_t>-1 or not extent.size & s.extents[0].texels:
        return True
    return not smaller_used(s, <const uint64_t *>info.pAttachments, info.attachmentCount,
                            &extent, place)


cdef inline bint smaller_used(Stream *s, const uint64_t *handles, uint32_t count,
                              const Extent *framebuffer, Place *place) noexcept nogil:
    """Whether one that the render pass uses is too small: `place` tells of it."""
    cdef uint64_t least = least_attachment(framebuffer.texels, framebuffer.size >> VIEWS)
    cdef uint32_t i
    for i in range(count if handles != NULL else 0):
        if (handles[i] and s.extents[0].texels & attachment_bit(i)
                and is_smaller(&s.extent_list[i], least, place)):
            return True
    return False


cdef inline bint area_holds(const VkRect2D *area, uint64_t extent, Place *place) noexcept nogil:
    return (within(<uint32_t>area.offset.x, area.extent.width, flat_axis(extent, 0), place)
            and within(<uint32_t>area.offset.y, area.extent.height, flat_axis(extent, 1), place))


cdef inline bint areas_hold(Stream *s, const void *info, const VkRect2D *area, uint64_t extent,
                            uint64_t layers, Place *place) noexcept nogil:
    """The area, or those that the physical devices of a group have in its place; note where it is.

    extent: all ones: nobody knows.  layers: that can be cleared there.
    """
    cdef const VkDeviceGroupRenderPassBeginInfo *group = <const VkDeviceGroupRenderPassBeginInfo *>(
        chain_find(info, VK_STRUCTURE_TYPE_DEVICE_GROUP_RENDER_PASS_BEGIN_INFO))
    cdef uint32_t count = 1
    cdef uint32_t i
    if group != NULL and group.deviceRenderAreaCount and group.pDeviceRenderAreas != NULL:
        area = <const VkRect2D *>group.pDeviceRenderAreas
        count = group.deviceRenderAreaCount
    for i in range(count):
        if extent != <uint64_t>-1 and not area_holds(&area[i], extent, place):
            return False
    begin_area(s, area, count, layers)
    return True


cdef inline bint begin_holds(Stream *s, const VkRenderPassBeginInfo *info,
                             Place *place) noexcept nogil:
    """A render pass's area, and whether it renders to what the framebuffer has."""
    cdef const Extent *render_pass = &s.extents[0]
    cdef const Extent *framebuffer = &s.extents[1]
    cdef const VkRenderPassAttachmentBeginInfo *views
    begin_subpasses(s, render_pass)
    if info.framebuffer == 0 or framebuffer.size == <uint64_t>-1:
        return areas_hold(s, info, &info.renderArea, <uint64_t>-1, 0xffff, place)
    if not areas_hold(s, info, &info.renderArea, framebuffer.texels,
                      1 if framebuffer.size >> VIEWS else flat_axis(framebuffer.texels, 2), place):
        return False
    if info.renderPass == 0 or render_pass.size == <uint64_t>-1:
        return True
    if not within(0, views_of(render_pass), framebuffer.size >> VIEWS, place):
        return False
    if framebuffer.size & render_pass.texels:
        return within(0, flat_axis(framebuffer.texels, 0), 0, place)
    views = <const VkRenderPassAttachmentBeginInfo *>chain_find(
        info, VK_STRUCTURE_TYPE_RENDER_PASS_ATTACHMENT_BEGIN_INFO)
    if views == NULL or views.attachmentCount == 0:
        return True
    return not smaller_used(s, <const uint64_t *>views.pAttachments, views.attachmentCount,
                            framebuffer, place)


cdef inline void note_attached(Stream *s, const VkRenderingAttachmentInfo *info) noexcept nogil:
    """Keep the least of the views of a VkRenderingInfo, which is looked at when it is decoded."""
    if info.imageView:
        note_least(s, &s.extents[0])
    if info.imageView and info.resolveImageView and info.resolveMode:
        note_least(s, &s.extents[1])


cdef inline void note_least(Stream *s, const Extent *view) noexcept nogil:
    cdef uint64_t least = ~s.attached
    if view.size == <uint64_t>-1:
        return
    s.attached = ~flat_extent(
        lesser(flat_axis(view.texels, 0), flat_axis(least, 0)),
        lesser(flat_axis(view.texels, 1), flat_axis(least, 1)),
        lesser(flat_axis(view.texels, 2), flat_axis(least, 2)))


cdef inline bint rendering_holds(Stream *s, const VkRenderingInfo *info,
                                 Place *place) noexcept nogil:
    """An area without a render pass, within all that is rendered to."""
    cdef const VkPhysicalDeviceLimits *limits = <const VkPhysicalDeviceLimits *>limits_of(s)
    cdef uint64_t least = ~s.attached
    cdef uint64_t layers = views_in(info.viewMask) if info.viewMask else info.layerCount
    s.attached = 0
    begin_without_pass(s, info.colorAttachmentCount)
    if least == <uint64_t>-1 and limits != NULL:
        # Without attachments, drivers make something of that size all the same.
        least = flat_extent(limits.maxFramebufferWidth, limits.maxFramebufferHeight,
                            limits.maxFramebufferLayers)
    return (areas_hold(s, info, &info.renderArea, least,
                       1 if info.viewMask else info.layerCount, place)
            and within(0, layers, flat_axis(least, 2), place))
