"""Descriptors against the layouts of their sets: the looks of `protocol/facts/sets.toml`."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memcpy

from hesper_commands cimport (
    COMMAND_vkGetDescriptorSetLayoutSupport, VK_DESCRIPTOR_BINDING_VARIABLE_DESCRIPTOR_COUNT_BIT,
    VK_DESCRIPTOR_SET_LAYOUT_CREATE_PUSH_DESCRIPTOR_BIT,
    VK_DESCRIPTOR_SET_LAYOUT_CREATE_UPDATE_AFTER_BIND_POOL_BIT, VK_DESCRIPTOR_TYPE_MUTABLE_EXT,
    VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_BINDING_FLAGS_CREATE_INFO,
    VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_SUPPORT,
    VK_STRUCTURE_TYPE_MUTABLE_DESCRIPTOR_TYPE_CREATE_INFO_EXT, VkBindDescriptorSetsInfo,
    VkCopyDescriptorSet, VkDescriptorSetAllocateInfo,
    VkDescriptorSetLayoutBindingFlagsCreateInfo, VkDescriptorSetLayoutCreateInfo,
    VkDescriptorSetLayoutSupport, VkDescriptorUpdateTemplateCreateInfo,
    VkMutableDescriptorTypeCreateInfoEXT, VkMutableDescriptorTypeListEXT, VkPhysicalDeviceLimits,
    VkPipelineLayoutCreateInfo, VkPushDescriptorSetInfo, VkWriteDescriptorSet,
    vkCmdBindDescriptorSets_parameters, vkCmdPushDescriptorSet_parameters,
    vkGetDescriptorSetLayoutSupport_parameters, vkUpdateDescriptorSets_parameters)

from hesper.kernel.core.arena cimport arena_take_array, arena_take_zeroed
from hesper.kernel.core.bounds cimport device_handle
from hesper.kernel.core.nulls cimport views_hold
from hesper.kernel.core.objects cimport Extent
from hesper.kernel.core.platform cimport hesper_spin_lock, hesper_spin_unlock
from hesper.kernel.core.relations cimport (
    NUMBER_UPDATE_AFTER_BIND_DYNAMIC, device_number, limits_of)
from hesper.kernel.core.set_copies cimport finish_update, look_at_copy
from hesper.kernel.core.set_layouts cimport (
    OF_LAYOUT, Description, Descriptions, alike, description_of)
from hesper.kernel.core.set_offsets cimport look_at_offsets
from hesper.kernel.core.set_runs cimport (
    PUSHED, by_number, fail_set, is_dynamic, nobody, set_of_pipeline, variable_count)
from hesper.kernel.core.set_writes cimport look_at_pushed, look_at_template, look_at_write
from hesper.kernel.core.state cimport (
    ERROR_MEMORY, ERROR_NULL, SET_DYNAMIC, SET_FIXED, SET_LIMIT, SET_NOT_LAST, SET_NO_LAYOUT,
    SET_NO_TYPES, SET_OTHER, SET_TWICE, SET_UNSUPPORTED, SET_VARIABLE, Stream, fail)
from hesper.kernel.core.structs cimport chain_find
from hesper.kernel.core.tables cimport (
    LOOK_ALLOCATE, LOOK_BIND, LOOK_BIND_INFO, LOOK_COPY, LOOK_LAYOUT, LOOK_PIPELINE, LOOK_PUSH,
    LOOK_TEMPLATE, LOOK_UPDATE, LOOK_WRITE, hesper_commands, hesper_op)


cdef inline int look_at_bound(Stream *s, const hesper_op *op, uint64_t layout, uint32_t first,
                              const uint64_t *sets, uint32_t count, const uint32_t *offsets,
                              uint32_t offset_count) noexcept nogil:
    """Sets against a pipeline layout, and dynamic offsets against what is in the sets."""
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
    if dynamic == 0:
        return 0
    if dynamic > offset_count or offsets == NULL:
        return fail_set(s, op, SET_DYNAMIC, offset_count if offsets != NULL else 0, 0, dynamic)
    return look_at_offsets(s, op, sets, count, <uint32_t *>offsets)


cdef inline bint is_supported(Stream *s,
                              const VkDescriptorSetLayoutCreateInfo *info) noexcept nogil:
    """Whether the driver can make such a layout; True where it cannot be asked, or is being asked.

    Of types that it does not know, a driver may make a binding without a size.
    """
    cdef vkGetDescriptorSetLayoutSupport_parameters block
    cdef VkDescriptorSetLayoutSupport answer
    cdef uint32_t index = COMMAND_vkGetDescriptorSetLayoutSupport
    if (s.command - &hesper_commands[0] == index or s.first == NULL or s.first.table == NULL
            or s.first.table[index] == NULL):
        return True
    answer.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_SUPPORT
    answer.pNext = NULL
    answer.supported = 1
    block.device = device_handle(s)
    block.pCreateInfo = <VkDescriptorSetLayoutCreateInfo *>info
    block.pSupport = &answer
    hesper_commands[index].call(s.first.table[index], &block)
    return answer.supported != 0


cdef inline int look_at_mutable(Stream *s, const hesper_op *op,
                                const VkDescriptorSetLayoutCreateInfo *info,
                                uint32_t last) noexcept nogil:
    """A layout with bindings of several types, of which `last` is the last.

    Of each it must be said which.  Drivers look that up by a binding's place, whether or not there
    are so many lists: those that are left out become empty ones.
    """
    cdef VkMutableDescriptorTypeCreateInfoEXT *given = <VkMutableDescriptorTypeCreateInfoEXT *>(
        chain_find(info, VK_STRUCTURE_TYPE_MUTABLE_DESCRIPTOR_TYPE_CREATE_INFO_EXT))
    cdef VkMutableDescriptorTypeListEXT *lists
    cdef uint32_t i
    if (given == NULL or given.pMutableDescriptorTypeLists == NULL
            or given.mutableDescriptorTypeListCount <= last):
        return fail_set(s, op, SET_NO_TYPES, info.pBindings[last].binding, 0, 0)
    for i in range(last + 1):
        if (info.pBindings[i].descriptorType == VK_DESCRIPTOR_TYPE_MUTABLE_EXT
                and (given.pMutableDescriptorTypeLists[i].descriptorTypeCount == 0
                     or given.pMutableDescriptorTypeLists[i].pDescriptorTypes == NULL)):
            return fail_set(s, op, SET_NO_TYPES, info.pBindings[i].binding, 0, 0)
    if given.mutableDescriptorTypeListCount < info.bindingCount:
        lists = <VkMutableDescriptorTypeListEXT *>arena_take_zeroed(
            &s.arena, info.bindingCount * sizeof(VkMutableDescriptorTypeListEXT))
        if lists == NULL:
            return fail(s, ERROR_MEMORY, op, info.bindingCount)
        memcpy(lists, given.pMutableDescriptorTypeLists,
               given.mutableDescriptorTypeListCount * sizeof(VkMutableDescriptorTypeListEXT))
        given.pMutableDescriptorTypeLists = lists
        given.mutableDescriptorTypeListCount = info.bindingCount
    return 0 if is_supported(s, info) else fail_set(s, op, SET_UNSUPPORTED, 0, 0, 0)


cdef inline int look_at_layout(Stream *s, const hesper_op *op,
                               const VkDescriptorSetLayoutCreateInfo *info) noexcept nogil:
    """A VkDescriptorSetLayoutCreateInfo: no binding twice or of no type, the variable one last."""
    cdef const VkDescriptorSetLayoutBindingFlagsCreateInfo *flags = (
        <const VkDescriptorSetLayoutBindingFlagsCreateInfo *>chain_find(
            info, VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_BINDING_FLAGS_CREATE_INFO))
    cdef uint32_t *numbers
    cdef uint32_t highest = 0
    cdef uint32_t i
    cdef bint rising = True
    cdef uint32_t mutable = 0
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
        if info.pBindings[i].descriptorType == VK_DESCRIPTOR_TYPE_MUTABLE_EXT:
            mutable = i + 1
    if mutable and look_at_mutable(s, op, info, mutable - 1):
        return -1
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
        description = description_of(all, s.extent_list[i].size, OF_LAYOUT)
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
    cdef uint64_t late = 0
    cdef uint64_t most
    cdef uint64_t most_late = device_number(s, NUMBER_UPDATE_AFTER_BIND_DYNAMIC)
    cdef uint32_t i
    if info.pSetLayouts == NULL or limits == NULL:
        return 0
    for i in range(info.setLayoutCount):
        if info.pSetLayouts[i] == 0:
            continue
        hesper_spin_lock(&all.lock)
        description = description_of(all, s.extent_list[i].size, OF_LAYOUT)
        if description != NULL:
            if (description.flags
                    & VK_DESCRIPTOR_SET_LAYOUT_CREATE_UPDATE_AFTER_BIND_POOL_BIT):
                late += description.dynamic
            else:
                dynamic += description.dynamic
        hesper_spin_unlock(&all.lock)
    most = (<uint64_t>limits.maxDescriptorSetUniformBuffersDynamic
            + limits.maxDescriptorSetStorageBuffersDynamic)
    if dynamic > most:
        return fail_set(s, op, SET_LIMIT, dynamic, 0, most)
    # Those of sets that can be updated when they are bound have a limit that is for all together.
    most_late = most_late if most_late > most else most
    if dynamic + late > most_late:
        return fail_set(s, op, SET_LIMIT, dynamic + late, 0, most_late)
    return 0


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
                             bind.descriptorSetCount, bind.pDynamicOffsets,
                             bind.dynamicOffsetCount)
    if op.ref == LOOK_PUSH:
        push = <vkCmdPushDescriptorSet_parameters *>base
        if push.layout == 0:
            return 0 if s.dead_argument else fail(s, ERROR_NULL, op, 0)
        if s.nulls and views_hold(s, op, push.pDescriptorWrites, push.descriptorWriteCount):
            return -1
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
                             bind_info.pDynamicOffsets, bind_info.dynamicOffsetCount)
    push_info = <VkPushDescriptorSetInfo *>base
    if push_info.layout == 0:
        return 0 if s.dead_argument else fail(s, ERROR_NULL, op, 0)
    if s.nulls and views_hold(s, op, push_info.pDescriptorWrites, push_info.descriptorWriteCount):
        return -1
    return look_at_pushed(s, op, s.extents[PUSHED].size, push_info.set,
                          &push_info.pDescriptorWrites, &push_info.descriptorWriteCount)
