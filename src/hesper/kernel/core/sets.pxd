"""Descriptors against the layouts of their sets: the looks of `protocol/facts/sets.toml`.

Drivers find a descriptor by its binding's number, its element and its type, without asking whether
the layout has any such.  What runs over from one binding into the next, as Vulkan allows, drivers
take as if it were one array, which it need not be to them: they get a piece for each binding.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memset

from hesper_commands cimport (
    COMMAND_vkUpdateDescriptorSets, HANDLE_VkDescriptorSet, HANDLE_VkDescriptorSetLayout,
    HANDLE_VkPipelineLayout, VK_DESCRIPTOR_BINDING_VARIABLE_DESCRIPTOR_COUNT_BIT,
    VK_DESCRIPTOR_SET_LAYOUT_CREATE_PUSH_DESCRIPTOR_BIT,
    VK_DESCRIPTOR_TYPE_ACCELERATION_STRUCTURE_KHR, VK_DESCRIPTOR_TYPE_ACCELERATION_STRUCTURE_NV,
    VK_DESCRIPTOR_TYPE_BLOCK_MATCH_IMAGE_QCOM, VK_DESCRIPTOR_TYPE_INLINE_UNIFORM_BLOCK,
    VK_DESCRIPTOR_TYPE_INPUT_ATTACHMENT, VK_DESCRIPTOR_TYPE_MUTABLE_EXT,
    VK_DESCRIPTOR_TYPE_PARTITIONED_ACCELERATION_STRUCTURE_NV,
    VK_DESCRIPTOR_TYPE_SAMPLE_WEIGHT_IMAGE_QCOM, VK_DESCRIPTOR_TYPE_STORAGE_BUFFER_DYNAMIC,
    VK_DESCRIPTOR_TYPE_TENSOR_ARM, VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER_DYNAMIC,
    VK_DESCRIPTOR_UPDATE_TEMPLATE_TYPE_DESCRIPTOR_SET,
    VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_BINDING_FLAGS_CREATE_INFO,
    VK_STRUCTURE_TYPE_DESCRIPTOR_SET_VARIABLE_DESCRIPTOR_COUNT_ALLOCATE_INFO,
    VK_STRUCTURE_TYPE_MUTABLE_DESCRIPTOR_TYPE_CREATE_INFO_EXT,
    VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET_ACCELERATION_STRUCTURE_KHR,
    VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET_INLINE_UNIFORM_BLOCK, VkBindDescriptorSetsInfo,
    VkCopyDescriptorSet, VkDescriptorSetAllocateInfo, VkDescriptorSetLayoutBindingFlagsCreateInfo,
    VkDescriptorSetLayoutCreateInfo, VkDescriptorSetVariableDescriptorCountAllocateInfo,
    VkDescriptorUpdateTemplateCreateInfo, VkDescriptorUpdateTemplateEntry,
    VkMutableDescriptorTypeCreateInfoEXT, VkMutableDescriptorTypeListEXT, VkPhysicalDeviceLimits, VkPipelineLayoutCreateInfo,
    VkPushDescriptorSetInfo, VkWriteDescriptorSet, VkWriteDescriptorSetAccelerationStructureKHR,
    VkWriteDescriptorSetInlineUniformBlock, vkAllocateDescriptorSets_parameters,
    vkCmdBindDescriptorSets_parameters, vkCmdPushDescriptorSet_parameters,
    vkCreateDescriptorSetLayout_parameters, vkCreatePipelineLayout_parameters,
    vkUpdateDescriptorSets_parameters)

from hesper.kernel.core.arena cimport arena_take, arena_take_array
from hesper.kernel.core.created cimport New
from hesper.kernel.core.objects cimport Extent
from hesper.kernel.core.platform cimport hesper_spin_lock, hesper_spin_unlock
from hesper.kernel.core.relations cimport limits_of
from hesper.kernel.core.set_layouts cimport (
    BINDING_DYNAMIC, BINDING_MUTABLE, BINDING_VARIABLE, Description, Descriptions, SeenSet,
    SetBinding, alike, description_add, description_drop, description_hold, description_new,
    description_of, find_binding, pipeline_sets, see_pipeline, see_set, set_bindings)
from hesper.kernel.core.state cimport (
    ERROR_MEMORY, ERROR_NULL, ERROR_SET, SET_BEYOND, SET_DYNAMIC, SET_FIXED, SET_GONE, SET_LIMIT,
    SET_NO_BINDING, SET_NO_LAYOUT, SET_NOT_LAST, SET_OTHER, SET_OTHER_TYPE, SET_PUSHED, SET_STAGES, SET_TWICE,
    SET_TYPE, SET_VARIABLE, Piece, SetFault, Split, Stream, fail)
from hesper.kernel.core.structs cimport chain_find
from hesper.kernel.core.tables cimport (
    LOOK_ALLOCATE, LOOK_BIND, LOOK_BIND_INFO, LOOK_COPY, LOOK_LAYOUT, LOOK_PIPELINE, LOOK_PUSH,
    LOOK_TEMPLATE, LOOK_UPDATE, LOOK_WRITE, hesper_commands, hesper_op)


cdef enum:
    TARGET = 0                  # of Stream.seen_sets: what is written, or copied to
    SOURCE = 1
    PUSHED = 3                  # of Stream.extents: the pipeline layout; what is pushed uses others


cdef struct Run:
    # Descriptors that a command names.
    uint64_t reference          # of the description of the set's layout
    uint32_t which              # of Stream.seen_sets
    uint32_t number             # of the first binding
    uint32_t element            # in that
    uint32_t count
    uint32_t types              # that one of which each binding must take
    uint64_t variable           # the descriptors of the set's binding of a variable number


cdef inline uint64_t nobody() noexcept nogil:
    """In the place of a reference: what is not known, since no guest has made it."""
    return <uint64_t>-1


cdef inline uint32_t type_bit(uint32_t type) noexcept nogil:
    """The bit of a VkDescriptorType; 0: no descriptor is of it."""
    if type <= VK_DESCRIPTOR_TYPE_INPUT_ATTACHMENT:
        return <uint32_t>1 << type
    if type == VK_DESCRIPTOR_TYPE_INLINE_UNIFORM_BLOCK:
        return 1 << 11
    if type == VK_DESCRIPTOR_TYPE_ACCELERATION_STRUCTURE_KHR:
        return 1 << 12
    if type == VK_DESCRIPTOR_TYPE_ACCELERATION_STRUCTURE_NV:
        return 1 << 13
    if type == VK_DESCRIPTOR_TYPE_SAMPLE_WEIGHT_IMAGE_QCOM:
        return 1 << 14
    if type == VK_DESCRIPTOR_TYPE_BLOCK_MATCH_IMAGE_QCOM:
        return 1 << 15
    if type == VK_DESCRIPTOR_TYPE_TENSOR_ARM:
        return 1 << 16
    if type == VK_DESCRIPTOR_TYPE_PARTITIONED_ACCELERATION_STRUCTURE_NV:
        return 1 << 17
    return 0


cdef inline bint is_dynamic(uint32_t type) noexcept nogil:
    return (type == VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER_DYNAMIC
            or type == VK_DESCRIPTOR_TYPE_STORAGE_BUFFER_DYNAMIC)


cdef inline int fail_set(Stream *s, const hesper_op *op, SetFault fault, uint64_t value,
                         uint64_t start, uint64_t most) noexcept nogil:
    s.error_set = fault
    s.error_start = start
    s.error_most = most
    return fail(s, ERROR_SET, op, value)


# Where descriptors lie.


cdef inline int64_t cut(const SetBinding *bindings, uint32_t count, const Run *run, Piece *pieces,
                        SetFault *fault) noexcept nogil:
    """Cut a run into a piece for each binding, whose number is returned; pieces: null to count.

    -1, with the fault told, when it names what there is not.
    """
    cdef const SetBinding *b
    cdef const SetBinding *first = NULL
    cdef uint64_t element = run.element
    cdef uint64_t left = run.count
    cdef uint64_t room
    cdef uint64_t here
    cdef int64_t found = 0
    cdef uint32_t i = find_binding(bindings, count, run.number)
    if left and (i == count or bindings[i].number != run.number):
        fault[0] = SET_NO_BINDING
        return -1
    while left:
        if i == count:
            fault[0] = SET_BEYOND
            return -1
        b = &bindings[i]
        room = b.count
        if b.flags & BINDING_VARIABLE and run.variable < room:
            room = run.variable
        if element >= room:
            element -= room
            i += 1
            continue
        if not b.types & run.types:
            fault[0] = SET_TYPE
            return -1
        if first == NULL:
            first = b
        elif b.stages != first.stages:
            fault[0] = SET_STAGES
            return -1
        here = room - element if room - element < left else left
        if pieces != NULL:
            pieces[found].number = b.number
            pieces[found].element = <uint32_t>element
            pieces[found].count = <uint32_t>here
            pieces[found].types = b.types
            pieces[found].flags = b.flags
        found += 1
        left -= here
        element = 0
        i += 1
    return found


cdef inline int64_t cut_seen(Stream *s, const Run *run, Piece *pieces,
                             SetFault *fault) noexcept nogil:
    """The same, by the description that the run refers to."""
    cdef Descriptions *all = &s.core.objects.descriptions
    cdef SeenSet *seen = &s.seen_sets[run.which]
    cdef Description *description
    cdef int64_t found = -1
    if see_set(all, run.reference, seen):
        return cut(seen.bindings, seen.count, run, pieces, fault)
    fault[0] = SET_GONE
    hesper_spin_lock(&all.lock)
    description = description_of(all, run.reference, False)
    if description != NULL:
        found = cut(set_bindings(description), description.count, run, pieces, fault)
    hesper_spin_unlock(&all.lock)
    return found


cdef inline int64_t take_pieces(Stream *s, const hesper_op *op, const Run *run,
                                Piece **pieces) noexcept nogil:
    """A run's pieces, in the arena; their number, or -1 with the error noted."""
    cdef SetFault fault = SET_GONE
    cdef int64_t found = cut_seen(s, run, NULL, &fault)
    if found >= 0:
        pieces[0] = <Piece *>arena_take_array(&s.arena, found, sizeof(Piece))
        if pieces[0] == NULL:
            return fail(s, ERROR_MEMORY, op, found)
        found = cut_seen(s, run, pieces[0], &fault)
    if found < 0:
        return fail_set(s, op, fault, run.number, run.element, run.count)
    return found


cdef inline int note_split(Stream *s, const hesper_op *op, const void *whole, Piece *pieces,
                           uint64_t count) noexcept nogil:
    """Have a write or a copy become as many as it has pieces, when its command is decoded."""
    cdef Split *split = <Split *>arena_take(&s.arena, sizeof(Split))
    if split == NULL:
        return fail(s, ERROR_MEMORY, op, sizeof(Split))
    split.next = NULL
    split.whole = whole
    split.pieces = pieces
    split.count = count
    if s.last_split != NULL:
        s.last_split.next = split
    else:
        s.first_split = split
    s.last_split = split
    return 0


# Writes.


cdef inline int look_at_run(Stream *s, const hesper_op *op, const Run *run,
                            const void *whole) noexcept nogil:
    """A write's descriptors; whole: the write."""
    cdef SeenSet *seen = &s.seen_sets[run.which]
    cdef const SetBinding *b
    cdef Piece *pieces
    cdef int64_t found
    cdef uint32_t i
    if seen.reference == run.reference:
        # As it mostly is: some elements of one binding.
        i = find_binding(seen.bindings, seen.count, run.number)
        b = &seen.bindings[i]
        if (i < seen.count and b.number == run.number and b.types & run.types and run.count
                and not b.flags & BINDING_VARIABLE and run.element < b.count
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
    """A write of vkUpdateDescriptorSets; those that are pushed are looked at with their layout."""
    cdef Run run
    if s.command != &hesper_commands[COMMAND_vkUpdateDescriptorSets]:
        return 0
    if write.dstSet == 0:
        return 0 if s.dead_argument else fail(s, ERROR_NULL, op, 0)
    run.reference = s.extents[0].size
    if run.reference == nobody():
        return 0
    run.which = TARGET
    run.number = write.dstBinding
    run.element = write.dstArrayElement
    run.count = write.descriptorCount
    run.types = type_bit(write.descriptorType)
    run.variable = <uint32_t>s.extents[0].texels
    return look_at_run(s, op, &run, write)


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
    description = description_of(all, run.reference, False)
    if description != NULL:
        pushes = description.flags & VK_DESCRIPTOR_SET_LAYOUT_CREATE_PUSH_DESCRIPTOR_BIT
    hesper_spin_unlock(&all.lock)
    return 0 if pushes else fail_set(s, op, SET_PUSHED, set, 0, 0)


cdef inline bint set_of_pipeline(Stream *s, uint64_t reference, uint32_t index,
                                 uint64_t *found) noexcept nogil:
    """The reference of the layout of a set (0: it has none); False: the pipeline layout has no such."""
    cdef Descriptions *all = &s.core.objects.descriptions
    cdef Description *description
    cdef bint is_there
    if see_pipeline(all, reference, &s.seen_pipeline):
        if index >= s.seen_pipeline.count:
            return False
        found[0] = s.seen_pipeline.sets[index]
        return True
    hesper_spin_lock(&all.lock)
    description = description_of(all, reference, True)
    is_there = description != NULL and index < description.count
    if is_there:
        found[0] = pipeline_sets(description)[index]
    hesper_spin_unlock(&all.lock)
    return is_there


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


# Copies.


cdef inline int look_at_copy(Stream *s, const hesper_op *op,
                             const VkCopyDescriptorSet *copy) noexcept nogil:
    """A VkCopyDescriptorSet."""
    cdef Run source
    cdef Run target
    cdef Piece *from_
    cdef Piece *to
    cdef int64_t from_count
    cdef int64_t to_count
    if copy.srcSet == 0 or copy.dstSet == 0:
        return 0 if s.dead_argument else fail(s, ERROR_NULL, op, 0)
    source.reference = s.extents[0].size
    source.variable = <uint32_t>s.extents[0].texels
    source.which = SOURCE
    source.number = copy.srcBinding
    source.element = copy.srcArrayElement
    target.reference = s.extents[1].size
    target.variable = <uint32_t>s.extents[1].texels
    target.which = TARGET
    target.number = copy.dstBinding
    target.element = copy.dstArrayElement
    source.count = target.count = copy.descriptorCount
    source.types = target.types = <uint32_t>-1
    if source.reference == nobody() or target.reference == nobody():
        return 0
    from_count = take_pieces(s, op, &source, &from_)
    if from_count < 0:
        return -1
    to_count = take_pieces(s, op, &target, &to)
    if to_count < 0:
        return -1
    return pair(s, op, copy, from_, from_count, to, to_count)


cdef inline int pair(Stream *s, const hesper_op *op, const VkCopyDescriptorSet *copy,
                     const Piece *from_, uint64_t from_count, const Piece *to,
                     uint64_t to_count) noexcept nogil:
    """Cut the pieces of both ends of a copy to those that lie in one binding at either."""
    cdef Piece *both = <Piece *>arena_take_array(
        &s.arena, from_count + to_count, 2 * sizeof(Piece))
    cdef uint64_t count = 0
    cdef uint64_t i = 0
    cdef uint64_t j = 0
    cdef uint32_t from_done = 0
    cdef uint32_t to_done = 0
    cdef uint32_t here
    if both == NULL:
        return fail(s, ERROR_MEMORY, op, from_count + to_count)
    while i < from_count and j < to_count:
        if not match(&from_[i], &to[j]):
            return fail_set(s, op, SET_OTHER_TYPE, copy.dstBinding, copy.srcBinding, 0)
        here = from_[i].count - from_done
        if to[j].count - to_done < here:
            here = to[j].count - to_done
        both[2 * count] = from_[i]
        both[2 * count].element += from_done
        both[2 * count].count = here
        both[2 * count + 1] = to[j]
        both[2 * count + 1].element += to_done
        both[2 * count + 1].count = here
        count += 1
        from_done += here
        to_done += here
        if from_done == from_[i].count:
            i += 1
            from_done = 0
        if to_done == to[j].count:
            j += 1
            to_done = 0
    if count == 1 and both[0].number == copy.srcBinding and both[1].number == copy.dstBinding:
        return 0
    return note_split(s, op, copy, both, count)


cdef inline bint match(const Piece *a, const Piece *b) noexcept nogil:
    """Whether descriptors can be copied from one binding to another, as far as their types say."""
    if a.flags & b.flags & BINDING_MUTABLE:
        return a.types == b.types
    return a.types & b.types != 0


cdef inline int split_copies(Stream *s, const hesper_op *op,
                             vkUpdateDescriptorSets_parameters *block) noexcept nogil:
    """Put the pieces of copies in their places."""
    cdef const VkCopyDescriptorSet *old = block.pDescriptorCopies
    cdef VkCopyDescriptorSet *new
    cdef Split *split = s.first_split
    cdef uint64_t total = block.descriptorCopyCount
    cdef uint64_t at = 0
    cdef uint64_t j
    cdef uint32_t i
    while split != NULL:
        total += split.count
        split = split.next
    split = s.first_split
    new = <VkCopyDescriptorSet *>arena_take_array(&s.arena, total, sizeof(VkCopyDescriptorSet))
    if new == NULL:
        return fail(s, ERROR_MEMORY, op, total)
    for i in range(block.descriptorCopyCount):
        if split == NULL or split.whole != <const void *>&old[i]:
            new[at] = old[i]
            at += 1
            continue
        for j in range(split.count):
            new[at] = old[i]
            new[at].srcBinding = split.pieces[2 * j].number
            new[at].srcArrayElement = split.pieces[2 * j].element
            new[at].dstBinding = split.pieces[2 * j + 1].number
            new[at].dstArrayElement = split.pieces[2 * j + 1].element
            new[at].descriptorCount = split.pieces[2 * j].count
            at += 1
        split = split.next
    block.pDescriptorCopies = new
    block.descriptorCopyCount = <uint32_t>at
    return 0


cdef inline int finish_update(Stream *s, const hesper_op *op,
                              vkUpdateDescriptorSets_parameters *block) noexcept nogil:
    """vkUpdateDescriptorSets, when all of it is decoded: pieces for what runs over bindings."""
    cdef int result = 0
    if s.first_split == NULL:
        return 0
    if block.pDescriptorWrites != NULL:
        result = split_writes(s, op, &block.pDescriptorWrites, &block.descriptorWriteCount)
    if result == 0 and s.first_split != NULL and block.pDescriptorCopies != NULL:
        result = split_copies(s, op, block)
    s.first_split = NULL
    s.last_split = NULL
    return result


# Sets that are bound.


cdef inline int look_at_bound(Stream *s, const hesper_op *op, uint64_t layout, uint32_t first,
                              const uint64_t *sets, uint32_t count,
                              uint32_t offsets) noexcept nogil:
    """Sets against a pipeline layout; offsets: how many dynamic ones come along."""
    cdef Descriptions *all = &s.core.objects.descriptions
    cdef uint64_t pipeline = s.extents[0].size
    cdef uint64_t dynamic = 0
    cdef uint64_t expected = 0
    cdef const Extent *set
    cdef uint32_t i
    if count and sets == NULL:
        return fail(s, ERROR_NULL, op, 0)
    if layout == 0:
        pipeline = nobody()
    for i in range(count):
        set = &s.extent_list[i]
        if pipeline != nobody():
            if first + <uint64_t>i > <uint32_t>-1 or not set_of_pipeline(
                    s, pipeline, first + i, &expected):
                return fail_set(s, op, SET_NO_LAYOUT, first + <uint64_t>i, 0, 0)
        if sets[i] == 0 or set.size == nobody():
            continue
        dynamic += set.texels >> 32
        if pipeline == nobody() or expected == set.size or expected == nobody():
            continue
        if expected == 0:
            if set.texels >> 32:
                return fail_set(s, op, SET_OTHER, first + i, 0, 0)
        elif not alike(all, expected, set.size):
            return fail_set(s, op, SET_OTHER, first + i, 0, 0)
    if dynamic > offsets:
        return fail_set(s, op, SET_DYNAMIC, offsets, 0, dynamic)
    return 0


# Layouts.


cdef inline int by_number(const void *a, const void *b) noexcept nogil:
    """For qsort: SetBinding and numbers alone, which begin with the number."""
    cdef uint32_t x = (<const uint32_t *>a)[0]
    cdef uint32_t y = (<const uint32_t *>b)[0]
    return (x > y) - (x < y)


cdef inline int look_at_layout(Stream *s, const hesper_op *op,
                               const VkDescriptorSetLayoutCreateInfo *info) noexcept nogil:
    """A VkDescriptorSetLayoutCreateInfo: no binding twice, the variable one last."""
    cdef const VkDescriptorSetLayoutBindingFlagsCreateInfo *flags = (
        <const VkDescriptorSetLayoutBindingFlagsCreateInfo *>chain_find(
            info, VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_BINDING_FLAGS_CREATE_INFO))
    cdef uint32_t *numbers
    cdef uint32_t highest = 0
    cdef uint32_t i
    cdef bint rising = True
    cdef bint pushed = info.flags & VK_DESCRIPTOR_SET_LAYOUT_CREATE_PUSH_DESCRIPTOR_BIT
    if info.pBindings == NULL:
        return 0
    for i in range(info.bindingCount):
        if i and info.pBindings[i].binding <= highest:
            rising = False
        if info.pBindings[i].binding > highest:
            highest = info.pBindings[i].binding
        if pushed and is_dynamic(info.pBindings[i].descriptorType):
            return fail_set(s, op, SET_FIXED, info.pBindings[i].binding, 0, 0)
    if not rising:
        numbers = <uint32_t *>arena_take_array(&s.arena, info.bindingCount, sizeof(uint32_t))
        if numbers == NULL:
            return fail(s, ERROR_MEMORY, op, info.bindingCount)
        for i in range(info.bindingCount):
            numbers[i] = info.pBindings[i].binding
        qsort(numbers, info.bindingCount, sizeof(uint32_t), by_number)
        for i in range(1, info.bindingCount):
            if numbers[i] == numbers[i - 1]:
                return fail_set(s, op, SET_TWICE, numbers[i], 0, 0)
    if flags == NULL or flags.pBindingFlags == NULL:
        return 0
    for i in range(flags.bindingCount if flags.bindingCount == info.bindingCount else 0):
        if flags.pBindingFlags[i] & VK_DESCRIPTOR_BINDING_VARIABLE_DESCRIPTOR_COUNT_BIT:
            if info.pBindings[i].binding != highest:
                return fail_set(s, op, SET_NOT_LAST, info.pBindings[i].binding, 0, highest)
            if is_dynamic(info.pBindings[i].descriptorType):
                return fail_set(s, op, SET_FIXED, info.pBindings[i].binding, 0, 0)
    return 0


cdef inline uint64_t variable_count(const VkDescriptorSetAllocateInfo *info,
                                    uint32_t index) noexcept nogil:
    """What the set of that index gets of its layout's binding of a variable number."""
    cdef const VkDescriptorSetVariableDescriptorCountAllocateInfo *counts = (
        <const VkDescriptorSetVariableDescriptorCountAllocateInfo *>chain_find(
            info, VK_STRUCTURE_TYPE_DESCRIPTOR_SET_VARIABLE_DESCRIPTOR_COUNT_ALLOCATE_INFO))
    if (counts == NULL or counts.pDescriptorCounts == NULL
            or index >= counts.descriptorSetCount):
        return 0
    return counts.pDescriptorCounts[index]


cdef inline int look_at_allocation(Stream *s, const hesper_op *op,
                                   const VkDescriptorSetAllocateInfo *info) noexcept nogil:
    """A VkDescriptorSetAllocateInfo: variable numbers within those of the layouts."""
    cdef Descriptions *all = &s.core.objects.descriptions
    cdef Description *description
    cdef uint64_t most
    cdef uint32_t i
    if info.pSetLayouts == NULL or info.pNext == NULL:
        return 0
    for i in range(info.descriptorSetCount):
        most = <uint64_t>-1
        hesper_spin_lock(&all.lock)
        description = description_of(all, s.extent_list[i].size, False)
        if description != NULL:
            most = description.variable
        hesper_spin_unlock(&all.lock)
        if variable_count(info, i) > most:
            return fail_set(s, op, SET_VARIABLE, variable_count(info, i), 0, most)
    return 0


cdef inline int look_at_pipeline(Stream *s, const hesper_op *op,
                                 const VkPipelineLayoutCreateInfo *info) noexcept nogil:
    """A VkPipelineLayoutCreateInfo: dynamic offsets, which drivers keep in arrays of that size."""
    cdef Descriptions *all = &s.core.objects.descriptions
    cdef const VkPhysicalDeviceLimits *limits = <const VkPhysicalDeviceLimits *>limits_of(s)
    cdef Description *description
    cdef uint64_t dynamic = 0
    cdef uint64_t most
    cdef uint32_t i
    if info.pSetLayouts == NULL or limits == NULL:
        return 0
    for i in range(info.setLayoutCount):
        if info.pSetLayouts[i] == 0:
            continue
        hesper_spin_lock(&all.lock)
        description = description_of(all, s.extent_list[i].size, False)
        if description != NULL:
            dynamic += description.dynamic
        hesper_spin_unlock(&all.lock)
    most = (<uint64_t>limits.maxDescriptorSetUniformBuffersDynamic
            + limits.maxDescriptorSetStorageBuffersDynamic)
    if dynamic > most:
        return fail_set(s, op, SET_LIMIT, dynamic, 0, most)
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
        if look_at_run(s, op, &run, NULL):
            return -1
    return 0


# What is kept of new objects.


cdef inline uint32_t listed_types(const VkMutableDescriptorTypeListEXT *list) noexcept nogil:
    cdef uint32_t types = 0
    cdef uint32_t i
    for i in range(list.descriptorTypeCount if list.pDescriptorTypes != NULL else 0):
        types |= type_bit(list.pDescriptorTypes[i])
    return types


cdef inline uint64_t describe_layout(Descriptions *all,
                                     const VkDescriptorSetLayoutCreateInfo *info) noexcept nogil:
    """A reference to what a new set layout has; 0 without memory."""
    cdef const VkDescriptorSetLayoutBindingFlagsCreateInfo *flags = (
        <const VkDescriptorSetLayoutBindingFlagsCreateInfo *>chain_find(
            info, VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_BINDING_FLAGS_CREATE_INFO))
    cdef const VkMutableDescriptorTypeCreateInfoEXT *lists = (
        <const VkMutableDescriptorTypeCreateInfoEXT *>chain_find(
            info, VK_STRUCTURE_TYPE_MUTABLE_DESCRIPTOR_TYPE_CREATE_INFO_EXT))
    cdef uint32_t count = info.bindingCount if info.pBindings != NULL else 0
    cdef Description *made = description_new(all, count, sizeof(SetBinding))
    cdef SetBinding *b
    cdef uint32_t i
    if made == NULL:
        return 0
    made.flags = info.flags
    made.variable = <uint64_t>-1
    for i in range(count):
        b = &set_bindings(made)[i]
        b.number = info.pBindings[i].binding
        b.types = type_bit(info.pBindings[i].descriptorType)
        b.count = info.pBindings[i].descriptorCount
        b.stages = info.pBindings[i].stageFlags
        if is_dynamic(info.pBindings[i].descriptorType):
            b.flags |= BINDING_DYNAMIC
            made.dynamic += b.count
        if info.pBindings[i].descriptorType == VK_DESCRIPTOR_TYPE_MUTABLE_EXT:
            b.flags |= BINDING_MUTABLE
            if (lists != NULL and lists.pMutableDescriptorTypeLists != NULL
                    and i < lists.mutableDescriptorTypeListCount):
                b.types = listed_types(&lists.pMutableDescriptorTypeLists[i])
        if (flags != NULL and flags.pBindingFlags != NULL and i < flags.bindingCount
                and flags.pBindingFlags[i]
                & VK_DESCRIPTOR_BINDING_VARIABLE_DESCRIPTOR_COUNT_BIT):
            b.flags |= BINDING_VARIABLE
            made.variable = b.count
    qsort(set_bindings(made), count, sizeof(SetBinding), by_number)
    return description_add(all, made)


cdef inline uint64_t describe_pipeline(Stream *s, const VkPipelineLayoutCreateInfo *info,
                                       ) noexcept nogil:
    """A reference to what a new pipeline layout has; 0 without memory."""
    cdef Descriptions *all = &s.core.objects.descriptions
    cdef uint32_t count = info.setLayoutCount if info.pSetLayouts != NULL else 0
    cdef Description *made = description_new(all, count, sizeof(uint64_t))
    cdef uint64_t reference
    cdef uint32_t i
    if made == NULL:
        return 0
    made.of_pipeline = True
    hesper_spin_lock(&all.lock)
    for i in range(count):
        reference = s.extent_list[i].size if info.pSetLayouts[i] else 0
        if reference and (reference == nobody() or description_hold(all, reference)):
            pipeline_sets(made)[i] = reference
    hesper_spin_unlock(&all.lock)
    return description_add(all, made)


cdef inline uint64_t describe_set(Stream *s, const VkDescriptorSetAllocateInfo *info,
                                  uint32_t index, uint64_t *numbers) noexcept nogil:
    """A reference to what a new set's layout has; numbers: see `Extent.texels`."""
    cdef Descriptions *all = &s.core.objects.descriptions
    cdef uint64_t reference = s.extent_list[index].size
    cdef Description *description
    numbers[0] = variable_count(info, index)
    if reference == nobody():
        return reference
    hesper_spin_lock(&all.lock)
    description = description_of(all, reference, False)
    if description != NULL and description_hold(all, reference):
        numbers[0] |= <uint64_t>description.dynamic << 32
    else:
        reference = 0
    hesper_spin_unlock(&all.lock)
    return reference


cdef inline bint describe_new(Stream *s, New *new) noexcept nogil:
    """Describe the layouts, or the sets' layouts, that the current command is to make.

    False: for want of memory.  What no object takes over, `settle_new` gives up.
    """
    cdef uint32_t type = s.command.new_type
    cdef const VkDescriptorSetAllocateInfo *sets
    cdef uint64_t i
    if (type != HANDLE_VkDescriptorSet and type != HANDLE_VkDescriptorSetLayout
            and type != HANDLE_VkPipelineLayout):
        return True
    new.extents = <Extent *>arena_take_array(&s.arena, new.count, sizeof(Extent))
    if new.extents == NULL:
        return False
    memset(new.extents, 0, new.count * sizeof(Extent))
    for i in range(new.count):
        if type == HANDLE_VkDescriptorSet:
            sets = (<vkAllocateDescriptorSets_parameters *>s.parameters).pAllocateInfo
            new.extents[i].size = describe_set(s, sets, <uint32_t>i, &new.extents[i].texels)
        elif type == HANDLE_VkDescriptorSetLayout:
            new.extents[i].size = describe_layout(
                &s.core.objects.descriptions,
                (<vkCreateDescriptorSetLayout_parameters *>s.parameters).pCreateInfo)
        else:
            new.extents[i].size = describe_pipeline(
                s, (<vkCreatePipelineLayout_parameters *>s.parameters).pCreateInfo)
        if new.extents[i].size == 0:
            return False
    return True


cdef inline int check_sets(Stream *s, const hesper_op *op, uint8_t *base) noexcept nogil:
    """OP_SETS: look at the struct or the parameters at `base`; -1 with the error noted."""
    cdef vkCmdPushDescriptorSet_parameters *push
    cdef VkPushDescriptorSetInfo *push_info
    cdef vkCmdBindDescriptorSets_parameters *bind
    cdef VkBindDescriptorSetsInfo *bind_info
    if op.ref == LOOK_WRITE:
        return look_at_write(s, op, <VkWriteDescriptorSet *>base)
    if op.ref == LOOK_UPDATE:
        return finish_update(s, op, <vkUpdateDescriptorSets_parameters *>base)
    if op.ref == LOOK_BIND:
        bind = <vkCmdBindDescriptorSets_parameters *>base
        if bind.layout == 0 and not s.dead_argument:
            return fail(s, ERROR_NULL, op, 0)
        return look_at_bound(s, op, bind.layout, bind.firstSet, bind.pDescriptorSets,
                             bind.descriptorSetCount,
                             bind.dynamicOffsetCount if bind.pDynamicOffsets != NULL else 0)
    if op.ref == LOOK_PUSH:
        push = <vkCmdPushDescriptorSet_parameters *>base
        if push.layout == 0:
            return 0 if s.dead_argument else fail(s, ERROR_NULL, op, 0)
        return look_at_pushed(s, op, s.extents[PUSHED].size, push.set, &push.pDescriptorWrites,
                              &push.descriptorWriteCount)
    if op.ref == LOOK_COPY:
        return look_at_copy(s, op, <VkCopyDescriptorSet *>base)
    if op.ref == LOOK_LAYOUT:
        return look_at_layout(s, op, <VkDescriptorSetLayoutCreateInfo *>base)
    if op.ref == LOOK_ALLOCATE:
        return look_at_allocation(s, op, <VkDescriptorSetAllocateInfo *>base)
    if op.ref == LOOK_PIPELINE:
        return look_at_pipeline(s, op, <VkPipelineLayoutCreateInfo *>base)
    if op.ref == LOOK_TEMPLATE:
        return look_at_template(s, op, <VkDescriptorUpdateTemplateCreateInfo *>base)
    if op.ref == LOOK_BIND_INFO:
        bind_info = <VkBindDescriptorSetsInfo *>base
        if bind_info.layout == 0 and not s.dead_argument:
            return fail(s, ERROR_NULL, op, 0)
        return look_at_bound(s, op, bind_info.layout, bind_info.firstSet,
                             bind_info.pDescriptorSets, bind_info.descriptorSetCount,
                             bind_info.dynamicOffsetCount
                             if bind_info.pDynamicOffsets != NULL else 0)
    push_info = <VkPushDescriptorSetInfo *>base
    if push_info.layout == 0:
        return 0 if s.dead_argument else fail(s, ERROR_NULL, op, 0)
    return look_at_pushed(s, op, s.extents[PUSHED].size, push_info.set, &push_info.pDescriptorWrites,
                          &push_info.descriptorWriteCount)
