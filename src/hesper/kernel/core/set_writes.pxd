"""Writes of descriptors against the layouts of their sets: updates, pushes, templates."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from hesper_commands cimport (
    COMMAND_vkUpdateDescriptorSets, VK_DESCRIPTOR_SET_LAYOUT_CREATE_PUSH_DESCRIPTOR_BIT,
    VK_DESCRIPTOR_TYPE_ACCELERATION_STRUCTURE_KHR, VK_DESCRIPTOR_TYPE_INLINE_UNIFORM_BLOCK,
    VK_DESCRIPTOR_UPDATE_TEMPLATE_TYPE_DESCRIPTOR_SET,
    VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET_ACCELERATION_STRUCTURE_KHR,
    VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET_INLINE_UNIFORM_BLOCK,
    VkDescriptorUpdateTemplateCreateInfo, VkDescriptorUpdateTemplateEntry, VkWriteDescriptorSet,
    VkWriteDescriptorSetAccelerationStructureKHR, VkWriteDescriptorSetInlineUniformBlock)

from hesper.kernel.core.arena cimport arena_take, arena_take_array
from hesper.kernel.core.planes cimport written_planes
from hesper.kernel.core.platform cimport hesper_spin_lock, hesper_spin_unlock
from hesper.kernel.core.set_layouts cimport (
    BINDING_VARIABLE, OF_LAYOUT, Description, Descriptions, Seen, SetBinding, description_of,
    find_binding, seen_bindings)
from hesper.kernel.core.set_offsets cimport note_reaches
from hesper.kernel.core.set_runs cimport (
    TARGET, WRITTEN, Run, fail_set, is_dynamic, nobody, note_split, planes_taken, set_of_pipeline,
    take_pieces, type_bit)
from hesper.kernel.core.state cimport (
    ERROR_MEMORY, ERROR_NULL, SET_NO_LAYOUT, SET_PUSHED, Piece, Split, Stream, fail)
from hesper.kernel.core.structs cimport chain_find
from hesper.kernel.core.tables cimport hesper_commands, hesper_op


cdef inline int look_at_run(Stream *s, const hesper_op *op, const Run *run,
                            const void *whole) noexcept nogil:
    """A write's descriptors; whole: the write."""
    cdef Seen *seen = &s.seen_sets[run.which]
    cdef const SetBinding *b
    cdef Piece *pieces
    cdef int64_t found
    cdef uint32_t i
    if seen.reference == run.reference:
        # As it mostly is: some elements of one binding.
        i = find_binding(seen_bindings(seen), seen.count, run.number)
        b = &seen_bindings(seen)[i]
        if (i < seen.count and b.number == run.number and b.types & run.types and run.count
                and not b.flags & BINDING_VARIABLE and run.element < b.count
                and run.planes <= planes_taken(b)
                and run.count <= b.count - run.element):
            return 0
    found = take_pieces(s, op, run, &pieces)
    if found < 0:
        return -1
    if found == 1 and pieces[0].number == run.number:
        return 0
    return note_split(s, op, whole, pieces, found) if whole != NULL else 0


cdef inline int look_at_write(Stream *s, const hesper_op *op,
                              const VkWriteDescriptorSet *write) noexcept nogil:
    """A write of vkUpdateDescriptorSets; those that are pushed are looked at with their layout.

    The buffers of the write are what has been decoded last.
    """
    cdef Run run
    if s.command != &hesper_commands[COMMAND_vkUpdateDescriptorSets]:
        return 0
    if write.dstSet == 0:
        return 0 if s.dead_argument else fail(s, ERROR_NULL, op, 0)
    run.reference = s.extents[WRITTEN].size
    if run.reference == nobody():
        return 0
    run.which = TARGET
    run.number = write.dstBinding
    run.element = write.dstArrayElement
    run.count = write.descriptorCount
    run.types = type_bit(write.descriptorType)
    run.planes = written_planes(s.core, write)
    run.variable = <uint32_t>s.extents[WRITTEN].texels
    if look_at_run(s, op, &run, write):
        return -1
    return note_reaches(s, op, write) if is_dynamic(write.descriptorType) else 0


cdef inline int look_at_pushed(Stream *s, const hesper_op *op, uint64_t layout, uint32_t set,
                               VkWriteDescriptorSet **writes, uint32_t *count) noexcept nogil:
    """All writes of a vkCmdPushDescriptorSet; layout: the reference of the pipeline layout's."""
    cdef Run run
    cdef const VkWriteDescriptorSet *write
    cdef uint32_t i
    if layout == nobody():
        return 0
    if pushed_layout(s, op, layout, set, &run):
        return -1
    for i in range(count[0] if writes[0] != NULL else 0):
        write = &writes[0][i]
        run.number = write.dstBinding
        run.element = write.dstArrayElement
        run.count = write.descriptorCount
        run.types = type_bit(write.descriptorType)
        run.planes = written_planes(s.core, write)
        if look_at_run(s, op, &run, write):
            return -1
    return split_writes(s, op, writes, count)


cdef inline int pushed_layout(Stream *s, const hesper_op *op, uint64_t layout, uint32_t set,
                              Run *run) noexcept nogil:
    """Find the description of the set layout that a pipeline layout has for what is pushed."""
    cdef Descriptions *all = &s.core.objects.descriptions
    cdef Description *description
    cdef bint pushes = False
    run.which = TARGET
    run.variable = 0
    run.reference = 0
    if not set_of_pipeline(s, layout, set, &run.reference) or run.reference == 0:
        return fail_set(s, op, SET_NO_LAYOUT, set, 0, 0)
    if run.reference == nobody():
        return fail_set(s, op, SET_PUSHED, set, 0, 0)
    hesper_spin_lock(&all.lock)
    description = description_of(all, run.reference, OF_LAYOUT)
    if description != NULL:
        pushes = description.flags & VK_DESCRIPTOR_SET_LAYOUT_CREATE_PUSH_DESCRIPTOR_BIT
    hesper_spin_unlock(&all.lock)
    return 0 if pushes else fail_set(s, op, SET_PUSHED, set, 0, 0)


cdef inline int split_writes(Stream *s, const hesper_op *op, VkWriteDescriptorSet **writes,
                             uint32_t *count) noexcept nogil:
    """Put the pieces of writes in their places."""
    cdef const VkWriteDescriptorSet *old = writes[0]
    cdef VkWriteDescriptorSet *new
    cdef Split *split = s.first_split
    cdef uint64_t total = count[0]
    cdef uint64_t at = 0
    cdef uint32_t i
    while split != NULL:
        if <const void *>old <= split.whole < <const void *>(old + count[0]):
            total += split.count
            total -= 1
        split = split.next
    split = s.first_split
    if split == NULL:
        return 0
    new = <VkWriteDescriptorSet *>arena_take_array(&s.arena, total, sizeof(VkWriteDescriptorSet))
    if new == NULL:
        return fail(s, ERROR_MEMORY, op, total)
    for i in range(count[0]):
        if split != NULL and split.whole == <const void *>&old[i]:
            if write_pieces(s, op, &old[i], split, &new[at]):
                return -1
            at += split.count
            split = split.next
        else:
            new[at] = old[i]
            at += 1
    s.first_split = split
    if split == NULL:
        s.last_split = NULL
    writes[0] = new
    count[0] = <uint32_t>at
    return 0


cdef inline int write_pieces(Stream *s, const hesper_op *op, const VkWriteDescriptorSet *whole,
                             const Split *split, VkWriteDescriptorSet *new) noexcept nogil:
    cdef uint64_t done = 0
    cdef uint64_t i
    for i in range(split.count):
        new[i] = whole[0]
        new[i].dstBinding = split.pieces[i].number
        new[i].dstArrayElement = split.pieces[i].element
        new[i].descriptorCount = split.pieces[i].count
        if whole.pImageInfo != NULL:
            new[i].pImageInfo = whole.pImageInfo + done
        if whole.pBufferInfo != NULL:
            new[i].pBufferInfo = whole.pBufferInfo + done
        if whole.pTexelBufferView != NULL:
            new[i].pTexelBufferView = whole.pTexelBufferView + done
        if whole.pNext != NULL and cut_chain(s, op, whole, done, &new[i]):
            return -1
        done += split.pieces[i].count
    return 0


cdef inline int cut_chain(Stream *s, const hesper_op *op, const VkWriteDescriptorSet *whole,
                          uint64_t done, VkWriteDescriptorSet *new) noexcept nogil:
    """Chain to a piece what there is of it behind the first `done` descriptors, or bytes."""
    cdef const VkWriteDescriptorSetInlineUniformBlock *bytes
    cdef VkWriteDescriptorSetInlineUniformBlock *some
    cdef const VkWriteDescriptorSetAccelerationStructureKHR *structures
    cdef VkWriteDescriptorSetAccelerationStructureKHR *few
    new.pNext = NULL
    if whole.descriptorType == VK_DESCRIPTOR_TYPE_INLINE_UNIFORM_BLOCK:
        bytes = <const VkWriteDescriptorSetInlineUniformBlock *>chain_find(
            whole, VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET_INLINE_UNIFORM_BLOCK)
        some = <VkWriteDescriptorSetInlineUniformBlock *>arena_take(&s.arena, sizeof(some[0]))
        if some == NULL or bytes == NULL or bytes.pData == NULL:
            return fail(s, ERROR_MEMORY if some == NULL else ERROR_NULL, op, sizeof(some[0]))
        some[0] = bytes[0]
        some.pNext = NULL
        some.pData = <char *>bytes.pData + done
        some.dataSize = new.descriptorCount
        new.pNext = some
    elif whole.descriptorType == VK_DESCRIPTOR_TYPE_ACCELERATION_STRUCTURE_KHR:
        structures = <const VkWriteDescriptorSetAccelerationStructureKHR *>chain_find(
            whole, VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET_ACCELERATION_STRUCTURE_KHR)
        few = <VkWriteDescriptorSetAccelerationStructureKHR *>arena_take(
            &s.arena, sizeof(few[0]))
        if few == NULL or structures == NULL or structures.pAccelerationStructures == NULL:
            return fail(s, ERROR_MEMORY if few == NULL else ERROR_NULL, op, sizeof(few[0]))
        few[0] = structures[0]
        few.pNext = NULL
        few.pAccelerationStructures = structures.pAccelerationStructures + done
        few.accelerationStructureCount = new.descriptorCount
        new.pNext = few
    return 0


cdef inline int look_at_template(Stream *s, const hesper_op *op,
                                 const VkDescriptorUpdateTemplateCreateInfo *info) noexcept nogil:
    """A VkDescriptorUpdateTemplateCreateInfo, which drivers look up in the layout at once."""
    cdef const VkDescriptorUpdateTemplateEntry *entry
    cdef Run run
    cdef uint32_t i
    if info.templateType == VK_DESCRIPTOR_UPDATE_TEMPLATE_TYPE_DESCRIPTOR_SET:
        if info.descriptorSetLayout == 0:
            return 0 if s.dead_argument else fail(s, ERROR_NULL, op, 0)
        run.which = TARGET
        run.variable = <uint32_t>-1
        run.reference = s.extents[0].size
    else:
        if info.pipelineLayout == 0:
            return 0 if s.dead_argument else fail(s, ERROR_NULL, op, 0)
        if s.extents[1].size == nobody():
            return 0
        if pushed_layout(s, op, s.extents[1].size, info.set, &run):
            return -1
    if run.reference == nobody():
        return 0
    for i in range(info.descriptorUpdateEntryCount
                   if info.pDescriptorUpdateEntries != NULL else 0):
        entry = &info.pDescriptorUpdateEntries[i]
        run.number = entry.dstBinding
        run.element = entry.dstArrayElement
        run.count = entry.descriptorCount
        run.types = type_bit(entry.descriptorType)
        run.planes = 1
        if look_at_run(s, op, &run, NULL):
            return -1
    return 0
