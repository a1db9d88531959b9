"""The descriptors that are mostly written: some of one binding, of a set that was written before.

What is anything else is left to `sets.pxd`, which knows all and says what is wrong.
"""

from libc.stdint cimport uint8_t, uint32_t

from hesper_commands cimport (
    COMMAND_vkUpdateDescriptorSets, VK_DESCRIPTOR_TYPE_INPUT_ATTACHMENT, VkWriteDescriptorSet)

from hesper.kernel.core.set_layouts cimport (
    BINDING_DYNAMIC, BINDING_VARIABLE, Seen, SetBinding, seen_bindings)
from hesper.kernel.core.set_runs cimport WRITTEN
from hesper.kernel.core.state cimport Stream
from hesper.kernel.core.tables cimport LOOK_UPDATE, LOOK_WRITE, hesper_commands, hesper_op


cdef inline bint set_holds(Stream *s, const hesper_op *op, const uint8_t *base) noexcept nogil:
    """Whether OP_SETS has nothing to say or to do; False: it may have."""
    if op.ref == LOOK_WRITE:
        return write_holds(s, <const VkWriteDescriptorSet *>base)
    return op.ref == LOOK_UPDATE and s.first_split == NULL and not s.nulls


cdef inline bint write_holds(Stream *s, const VkWriteDescriptorSet *write) noexcept nogil:
    cdef const Seen *seen = &s.seen_sets[0]
    cdef uint32_t number = write.dstBinding
    cdef uint32_t type = write.descriptorType
    cdef const SetBinding *b
    if (seen.reference != s.extents[WRITTEN].size or write.dstSet == 0 or number >= seen.count
            or type > VK_DESCRIPTOR_TYPE_INPUT_ATTACHMENT or s.core.planar
            or s.command != &hesper_commands[COMMAND_vkUpdateDescriptorSets]):
        return False
    b = &seen_bindings(seen)[number]
    return (b.number == number and b.types >> type & 1
            and not b.flags & (BINDING_VARIABLE | BINDING_DYNAMIC)
            and write.descriptorCount != 0 and write.dstArrayElement < b.count
            and write.descriptorCount <= b.count - write.dstArrayElement)
