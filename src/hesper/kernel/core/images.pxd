"""Questions about images that need no handler, or hardly any help.

Programs ask thousands of them, and a Python handler takes three times as long as the whole way
there and back.
"""

from libc.stdint cimport uint32_t

from hesper_commands cimport (
    COMMAND_vkGetImageSubresourceLayout, COMMAND_vkGetImageSubresourceLayout2,
    COMMAND_vkGetPhysicalDeviceImageFormatProperties2, VK_IMAGE_ASPECT_COLOR_BIT,
    VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT, VK_IMAGE_CREATE_SPARSE_ALIASED_BIT,
    VK_IMAGE_CREATE_SPARSE_BINDING_BIT, VK_IMAGE_CREATE_SPARSE_RESIDENCY_BIT,
    VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT, VK_IMAGE_TILING_LINEAR,
    VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT, VK_IMAGE_USAGE_DEPTH_STENCIL_ATTACHMENT_BIT,
    VK_IMAGE_USAGE_INPUT_ATTACHMENT_BIT,
    VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_IMAGE_FORMAT_INFO,
    VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_DRM_FORMAT_MODIFIER_INFO_EXT, VkImageSubresource,
    VkPhysicalDeviceImageFormatInfo2, vkGetImageSubresourceLayout2_parameters,
    vkGetImageSubresourceLayout_parameters, vkGetPhysicalDeviceImageFormatProperties2_parameters)

from hesper.kernel.core.dispatch cimport put_override
from hesper.kernel.core.driver cimport LEFT_TO_HANDLER, serve
from hesper.kernel.core.state cimport Core, Stream
from hesper.kernel.core.structs cimport chain_find


cdef enum:
    SPARSE_IMAGE = (VK_IMAGE_CREATE_SPARSE_BINDING_BIT | VK_IMAGE_CREATE_SPARSE_RESIDENCY_BIT
                    | VK_IMAGE_CREATE_SPARSE_ALIASED_BIT)
    ATTACHMENT = (VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT | VK_IMAGE_USAGE_INPUT_ATTACHMENT_BIT
                  | VK_IMAGE_USAGE_DEPTH_STENCIL_ATTACHMENT_BIT)


cdef inline int image_formats(Stream *s) noexcept nogil:
    """vkGetPhysicalDeviceImageFormatProperties2, unless there is something to translate."""
    cdef const VkPhysicalDeviceImageFormatInfo2 *info = (
        <vkGetPhysicalDeviceImageFormatProperties2_parameters *>s.parameters).pImageFormatInfo
    if (info == NULL or info.tiling == VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT
            or info.flags & SPARSE_IMAGE
            or (info.tiling == VK_IMAGE_TILING_LINEAR and info.usage & ATTACHMENT)):
        return LEFT_TO_HANDLER
    if (chain_find(info, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_IMAGE_FORMAT_INFO) != NULL
            or chain_find(
                info,
                VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_DRM_FORMAT_MODIFIER_INFO_EXT) != NULL):
        return LEFT_TO_HANDLER
    return serve(s)


cdef inline void name_colour(VkImageSubresource *subresource) noexcept nogil:
    """The one memory plane of an image with a DRM format modifier is its colour.

    On the host such images are linear ones without a modifier (`guest/modifiers.py`).
    """
    if subresource.aspectMask == VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT:
        subresource.aspectMask = VK_IMAGE_ASPECT_COLOR_BIT


cdef inline int subresource_layout(Stream *s) noexcept nogil:
    """vkGetImageSubresourceLayout."""
    cdef VkImageSubresource *subresource = (
        <vkGetImageSubresourceLayout_parameters *>s.parameters).pSubresource
    if subresource != NULL:
        name_colour(subresource)
    return serve(s)


cdef inline int subresource_layout_2(Stream *s) noexcept nogil:
    """vkGetImageSubresourceLayout2."""
    cdef vkGetImageSubresourceLayout2_parameters *block = (
        <vkGetImageSubresourceLayout2_parameters *>s.parameters)
    if block.pSubresource != NULL:
        name_colour(&block.pSubresource.imageSubresource)
    return serve(s)


cdef inline void image_overrides(Core *core) noexcept nogil:
    put_override(core, COMMAND_vkGetImageSubresourceLayout, subresource_layout)
    put_override(core, COMMAND_vkGetImageSubresourceLayout2, subresource_layout_2)
    # Before its handler.
    core.rows[COMMAND_vkGetPhysicalDeviceImageFormatProperties2].override = image_formats
