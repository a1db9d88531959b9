"""Null handles that a feature of the device allows: nullDescriptor, and maintenance6 for indices.

Without it a driver takes them for objects.
"""

from libc.stdint cimport uint32_t

from hesper_commands cimport (
    COMMAND_vkCmdBindIndexBuffer, COMMAND_vkCmdBindIndexBuffer2,
    HANDLE_VkAccelerationStructureKHR, HANDLE_VkImageView,
    VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER, VK_DESCRIPTOR_TYPE_INPUT_ATTACHMENT,
    VK_DESCRIPTOR_TYPE_SAMPLED_IMAGE, VK_DESCRIPTOR_TYPE_STORAGE_IMAGE, VkWriteDescriptorSet)

from hesper.kernel.core.state cimport ERROR_NULL, DeviceState, StandIns, Stream, fail
from hesper.kernel.core.tables cimport hesper_commands, hesper_op


cdef enum:
    # In DeviceState.nulls.
    NULL_DESCRIPTORS = 1        # and vertex buffers: nullDescriptor
    NULL_INDICES = 2            # index buffers: maintenance6


cdef inline StandIns *supplied(Stream *s) noexcept nogil:
    """What the device of the current command has in the place of nothing; null: nothing."""
    cdef DeviceState *device = s.core.device_by_serial[s.device]
    if device == NULL or device.stand_ins.zeros == 0:
        return NULL
    return &device.stand_ins


cdef inline int note_null(Stream *s, const hesper_op *op) noexcept nogil:
    """A null handle with FLAG_FEATURE: -1, with the error noted, where there must be none."""
    cdef DeviceState *device = s.core.device_by_serial[s.device]
    cdef uint32_t wanted = NULL_DESCRIPTORS
    if op.ref + 1 == HANDLE_VkImageView:
        # Samplers have none.  What the descriptor is, is known later.
        s.nulls = True
        return 0
    if (s.command == &hesper_commands[COMMAND_vkCmdBindIndexBuffer]
            or s.command == &hesper_commands[COMMAND_vkCmdBindIndexBuffer2]):
        wanted = NULL_INDICES
    if device == NULL or not device.nulls & wanted:
        return fail(s, ERROR_NULL, op, 0)
    if device.stand_ins.zeros:
        if op.ref + 1 == HANDLE_VkAccelerationStructureKHR:
            return fail(s, ERROR_NULL, op, 0)
        s.nulls = True
    return 0


cdef inline bint sees_image(uint32_t type) noexcept nogil:
    """Whether descriptors of a VkDescriptorType have a view of an image."""
    return (type == VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER
            or type == VK_DESCRIPTOR_TYPE_SAMPLED_IMAGE
            or type == VK_DESCRIPTOR_TYPE_STORAGE_IMAGE
            or type == VK_DESCRIPTOR_TYPE_INPUT_ATTACHMENT)


cdef inline int views_hold(Stream *s, const hesper_op *op, const VkWriteDescriptorSet *writes,
                           uint32_t count) noexcept nogil:
    """Look at the views of writes of which some handles are null; -1 with the error noted.

    A dead object looks like null here, too; what names one reaches no driver.
    """
    cdef DeviceState *device = s.core.device_by_serial[s.device]
    cdef const VkWriteDescriptorSet *write
    cdef bint allowed = device != NULL and device.nulls & NULL_DESCRIPTORS
    cdef uint32_t i
    cdef uint32_t j
    s.nulls = supplied(s) != NULL
    if s.dead_argument or writes == NULL:
        return 0
    for i in range(count):
        write = &writes[i]
        if allowed or write.pImageInfo == NULL or not sees_image(write.descriptorType):
            continue
        for j in range(write.descriptorCount):
            if write.pImageInfo[j].imageView == 0:
                return fail(s, ERROR_NULL, op, 0)
    return 0
