"""Something in the place of nothing, for drivers that have no nullDescriptor.

Null is read as zeros: that is a buffer, or a texel of an image, full of them which nobody writes
to.  What is written to null is to be gone: descriptors that can be written to have another buffer
and another texel, so that at least nothing else changes.  The device has robustBufferAccess, which
makes what lies beyond read as zeros, too.
"""

from libc.stdint cimport uint32_t, uint64_t

from hesper_commands cimport (
    COMMAND_vkCmdBindIndexBuffer, COMMAND_vkCmdBindIndexBuffer2, COMMAND_vkCmdBindVertexBuffers,
    COMMAND_vkCmdBindVertexBuffers2, COMMAND_vkCmdPushDescriptorSet,
    COMMAND_vkCmdPushDescriptorSet2, COMMAND_vkUpdateDescriptorSets,
    VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, VK_DESCRIPTOR_TYPE_STORAGE_BUFFER_DYNAMIC,
    VK_DESCRIPTOR_TYPE_STORAGE_IMAGE, VK_DESCRIPTOR_TYPE_STORAGE_TEXEL_BUFFER,
    VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER, VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER_DYNAMIC,
    VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER, VK_IMAGE_LAYOUT_GENERAL, VkDescriptorBufferInfo,
    VkDescriptorImageInfo, VkWriteDescriptorSet, vkCmdBindIndexBuffer2_parameters,
    vkCmdBindIndexBuffer_parameters, vkCmdBindVertexBuffers2_parameters,
    vkCmdBindVertexBuffers_parameters, vkCmdPushDescriptorSet2_parameters,
    vkCmdPushDescriptorSet_parameters, vkUpdateDescriptorSets_parameters)

from hesper.kernel.core.dispatch cimport put_override
from hesper.kernel.core.driver cimport serve
from hesper.kernel.core.nulls cimport sees_image, supplied
from hesper.kernel.core.state cimport Core, StandIns, Stream


cdef enum:
    # Bytes of the sink that descriptors name.  Drivers that look at a descriptor's range drop what
    # is written beyond.  It is more than most blocks have before an array without a length:
    # SPIRV-Cross subtracts that from the range, below 0 if it must.
    SINK_RANGE = 256


cdef inline bint in_buffer(uint32_t type) noexcept nogil:
    return (type == VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER
            or type == VK_DESCRIPTOR_TYPE_STORAGE_BUFFER
            or type == VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER_DYNAMIC
            or type == VK_DESCRIPTOR_TYPE_STORAGE_BUFFER_DYNAMIC)


cdef inline bint in_texels(uint32_t type) noexcept nogil:
    return (type == VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER
            or type == VK_DESCRIPTOR_TYPE_STORAGE_TEXEL_BUFFER)


cdef inline void fill_images(const StandIns *ins, const VkWriteDescriptorSet *write) noexcept nogil:
    cdef VkDescriptorImageInfo *info = <VkDescriptorImageInfo *>write.pImageInfo
    cdef uint64_t view = ins.zero_image
    cdef uint32_t i
    if write.descriptorType == VK_DESCRIPTOR_TYPE_STORAGE_IMAGE:
        view = ins.sink_image
    for i in range(write.descriptorCount if info != NULL else 0):
        if info[i].imageView == 0:
            info[i].imageView = view
            info[i].imageLayout = VK_IMAGE_LAYOUT_GENERAL


cdef inline void fill_buffers(const StandIns *ins,
                              const VkWriteDescriptorSet *write) noexcept nogil:
    cdef VkDescriptorBufferInfo *info = <VkDescriptorBufferInfo *>write.pBufferInfo
    cdef uint64_t buffer = ins.zeros
    cdef uint64_t range_ = ins.uniform_range
    cdef uint32_t i
    if (write.descriptorType == VK_DESCRIPTOR_TYPE_STORAGE_BUFFER
            or write.descriptorType == VK_DESCRIPTOR_TYPE_STORAGE_BUFFER_DYNAMIC):
        buffer = ins.sink
        range_ = SINK_RANGE
    for i in range(write.descriptorCount if info != NULL else 0):
        if info[i].buffer == 0:
            info[i].buffer = buffer
            info[i].offset = 0
            info[i].range = range_


cdef inline void fill_texels(const StandIns *ins, const VkWriteDescriptorSet *write) noexcept nogil:
    cdef uint64_t *views = <uint64_t *>write.pTexelBufferView
    cdef uint64_t view = ins.zero_texels
    cdef uint32_t i
    if write.descriptorType == VK_DESCRIPTOR_TYPE_STORAGE_TEXEL_BUFFER:
        view = ins.sink_texels
    for i in range(write.descriptorCount if views != NULL else 0):
        if views[i] == 0:
            views[i] = view


cdef inline void fill_writes(Stream *s, const VkWriteDescriptorSet *writes,
                             uint32_t count) noexcept nogil:
    """Put stand-ins into writes, which are the command's own copy."""
    cdef const StandIns *ins = supplied(s)
    cdef const VkWriteDescriptorSet *write
    cdef uint32_t i
    if not s.nulls:
        return
    s.nulls = False
    for i in range(count if ins != NULL and writes != NULL else 0):
        write = &writes[i]
        if sees_image(write.descriptorType):
            fill_images(ins, write)
        elif in_buffer(write.descriptorType):
            fill_buffers(ins, write)
        elif in_texels(write.descriptorType):
            fill_texels(ins, write)


cdef inline int update_sets(Stream *s) noexcept nogil:
    """vkUpdateDescriptorSets."""
    cdef vkUpdateDescriptorSets_parameters *block = (
        <vkUpdateDescriptorSets_parameters *>s.parameters)
    fill_writes(s, block.pDescriptorWrites, block.descriptorWriteCount)
    return serve(s)


cdef inline int push_set(Stream *s) noexcept nogil:
    """vkCmdPushDescriptorSet."""
    cdef vkCmdPushDescriptorSet_parameters *block = (
        <vkCmdPushDescriptorSet_parameters *>s.parameters)
    fill_writes(s, block.pDescriptorWrites, block.descriptorWriteCount)
    return serve(s)


cdef inline int push_set_2(Stream *s) noexcept nogil:
    """vkCmdPushDescriptorSet2."""
    cdef vkCmdPushDescriptorSet2_parameters *block = (
        <vkCmdPushDescriptorSet2_parameters *>s.parameters)
    fill_writes(s, block.pPushDescriptorSetInfo.pDescriptorWrites,
                block.pPushDescriptorSetInfo.descriptorWriteCount)
    return serve(s)


cdef inline void fill_vertices(Stream *s, uint32_t count, uint64_t *buffers, uint64_t *offsets,
                               uint64_t *sizes) noexcept nogil:
    """Put stand-ins into vertex buffers; sizes: null where there are none."""
    cdef const StandIns *ins = supplied(s)
    cdef uint32_t i
    if not s.nulls:
        return
    s.nulls = False
    for i in range(count if ins != NULL and buffers != NULL and offsets != NULL else 0):
        if buffers[i] == 0:
            buffers[i] = ins.zeros
            offsets[i] = 0
            if sizes != NULL:
                sizes[i] = ins.zeros_size


cdef inline int bind_vertices(Stream *s) noexcept nogil:
    """vkCmdBindVertexBuffers."""
    cdef vkCmdBindVertexBuffers_parameters *block = (
        <vkCmdBindVertexBuffers_parameters *>s.parameters)
    fill_vertices(s, block.bindingCount, <uint64_t *>block.pBuffers, <uint64_t *>block.pOffsets,
                  NULL)
    return serve(s)


cdef inline int bind_vertices_2(Stream *s) noexcept nogil:
    """vkCmdBindVertexBuffers2."""
    cdef vkCmdBindVertexBuffers2_parameters *block = (
        <vkCmdBindVertexBuffers2_parameters *>s.parameters)
    fill_vertices(s, block.bindingCount, <uint64_t *>block.pBuffers, <uint64_t *>block.pOffsets,
                  <uint64_t *>block.pSizes)
    return serve(s)


cdef inline int bind_indices(Stream *s) noexcept nogil:
    """vkCmdBindIndexBuffer."""
    cdef vkCmdBindIndexBuffer_parameters *block = <vkCmdBindIndexBuffer_parameters *>s.parameters
    cdef const StandIns *ins = supplied(s)
    if block.buffer == 0 and ins != NULL:
        block.buffer = ins.zeros
        block.offset = 0
    s.nulls = False
    return serve(s)


cdef inline int bind_indices_2(Stream *s) noexcept nogil:
    """vkCmdBindIndexBuffer2."""
    cdef vkCmdBindIndexBuffer2_parameters *block = (
        <vkCmdBindIndexBuffer2_parameters *>s.parameters)
    cdef const StandIns *ins = supplied(s)
    if block.buffer == 0 and ins != NULL:
        block.buffer = ins.zeros
        block.offset = 0
        block.size = ins.zeros_size
    s.nulls = False
    return serve(s)


cdef inline void stand_in_overrides(Core *core) noexcept nogil:
    """Look for null from now on: it costs, so nobody does before there is such a device."""
    put_override(core, COMMAND_vkUpdateDescriptorSets, update_sets)
    put_override(core, COMMAND_vkCmdPushDescriptorSet, push_set)
    put_override(core, COMMAND_vkCmdPushDescriptorSet2, push_set_2)
    put_override(core, COMMAND_vkCmdBindVertexBuffers, bind_vertices)
    put_override(core, COMMAND_vkCmdBindVertexBuffers2, bind_vertices_2)
    put_override(core, COMMAND_vkCmdBindIndexBuffer, bind_indices)
    put_override(core, COMMAND_vkCmdBindIndexBuffer2, bind_indices_2)
