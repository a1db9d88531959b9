"""Objects of several planes are noted as they are made: `planes.pxd`."""

from libc.stdint cimport uint32_t, uint64_t

from hesper_commands cimport (
    COMMAND_vkCreateImageView, COMMAND_vkCreateSampler, COMMAND_vkCreateSamplerYcbcrConversion,
    VK_IMAGE_ASPECT_PLANE_0_BIT, VK_IMAGE_ASPECT_PLANE_1_BIT, VK_IMAGE_ASPECT_PLANE_2_BIT,
    VK_STRUCTURE_TYPE_SAMPLER_YCBCR_CONVERSION_INFO, VkSamplerYcbcrConversionInfo,
    vkCreateImageView_parameters, vkCreateSampler_parameters,
    vkCreateSamplerYcbcrConversion_parameters)

from hesper.kernel.core.dispatch cimport put_override
from hesper.kernel.core.driver cimport serve
from hesper.kernel.core.planes cimport (
    PLANAR_CONVERSION, PLANAR_SAMPLER, PLANAR_VIEW, note_new, planes_in, planes_of)
from hesper.kernel.core.state cimport Core, Stream
from hesper.kernel.core.structs cimport chain_find


cdef inline int create_conversion(Stream *s) noexcept nogil:
    """vkCreateSamplerYcbcrConversion."""
    cdef vkCreateSamplerYcbcrConversion_parameters *block = (
        <vkCreateSamplerYcbcrConversion_parameters *>s.parameters)
    if serve(s):
        return -1
    note_new(s, PLANAR_CONVERSION, block.pYcbcrConversion[0],
             planes_in(<uint32_t>block.pCreateInfo.format))
    return 0


cdef inline int create_sampler(Stream *s) noexcept nogil:
    """vkCreateSampler."""
    cdef vkCreateSampler_parameters *block = <vkCreateSampler_parameters *>s.parameters
    cdef const VkSamplerYcbcrConversionInfo *used = <const VkSamplerYcbcrConversionInfo *>(
        chain_find(block.pCreateInfo, VK_STRUCTURE_TYPE_SAMPLER_YCBCR_CONVERSION_INFO))
    if serve(s):
        return -1
    note_new(s, PLANAR_SAMPLER, block.pSampler[0],
             planes_of(s.core, PLANAR_CONVERSION, used.conversion) if used != NULL else 1)
    return 0


cdef inline int create_view(Stream *s) noexcept nogil:
    """vkCreateImageView."""
    cdef vkCreateImageView_parameters *block = <vkCreateImageView_parameters *>s.parameters
    cdef uint32_t aspects = block.pCreateInfo.subresourceRange.aspectMask
    cdef uint32_t planes = 1
    if serve(s):
        return -1
    if not aspects & (VK_IMAGE_ASPECT_PLANE_0_BIT | VK_IMAGE_ASPECT_PLANE_1_BIT
                      | VK_IMAGE_ASPECT_PLANE_2_BIT):
        planes = planes_in(<uint32_t>block.pCreateInfo.format)
        if s.extents[0].size != <uint64_t>-1 and planes_in(<uint32_t>s.extents[0].size) > planes:
            planes = planes_in(<uint32_t>s.extents[0].size)
    note_new(s, PLANAR_VIEW, block.pView[0], planes)
    return 0


cdef inline void plane_overrides(Core *core) noexcept nogil:
    put_override(core, COMMAND_vkCreateSamplerYcbcrConversion, create_conversion)
    put_override(core, COMMAND_vkCreateSampler, create_sampler)
    put_override(core, COMMAND_vkCreateImageView, create_view)
