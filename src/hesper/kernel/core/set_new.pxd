"""What is kept of new set layouts, pipeline layouts and sets: `set_layouts.pxd`."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memset

from hesper_commands cimport (
    HANDLE_VkDescriptorSet, HANDLE_VkDescriptorSetLayout, HANDLE_VkPipelineLayout,
    HANDLE_VkRenderPass, VK_DESCRIPTOR_BINDING_VARIABLE_DESCRIPTOR_COUNT_BIT,
    VK_DESCRIPTOR_TYPE_MUTABLE_EXT,
    VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_BINDING_FLAGS_CREATE_INFO,
    VK_STRUCTURE_TYPE_MUTABLE_DESCRIPTOR_TYPE_CREATE_INFO_EXT, VkDescriptorSetAllocateInfo,
    VkDescriptorSetLayoutBindingFlagsCreateInfo, VkDescriptorSetLayoutCreateInfo,
    VkMutableDescriptorTypeCreateInfoEXT, VkMutableDescriptorTypeListEXT,
    VkPipelineLayoutCreateInfo, vkAllocateDescriptorSets_parameters,
    vkCreateDescriptorSetLayout_parameters, vkCreatePipelineLayout_parameters)

from hesper.kernel.core.arena cimport arena_take_array
from hesper.kernel.core.created cimport New
from hesper.kernel.core.extents cimport put_own_description
from hesper.kernel.core.objects cimport Extent
from hesper.kernel.core.pass_colors cimport (
    describe_colors, has_colors_elsewhere, new_subpasses)
from hesper.kernel.core.planes cimport binding_planes
from hesper.kernel.core.platform cimport hesper_spin_lock, hesper_spin_unlock
from hesper.kernel.core.set_layouts cimport (
    BINDING_DYNAMIC, BINDING_MUTABLE, BINDING_PLANES, BINDING_VARIABLE, OF_LAYOUT, OF_PIPELINE,
    OF_SET, Description, Descriptions, SetBinding, description_add, description_drop,
    description_hold, description_new, description_of, pipeline_sets, set_bindings)
from hesper.kernel.core.set_runs cimport by_number, is_dynamic, nobody, type_bit, variable_count
from hesper.kernel.core.state cimport Core, Stream
from hesper.kernel.core.structs cimport chain_find


cdef inline uint32_t listed_types(const VkMutableDescriptorTypeListEXT *list) noexcept nogil:
    cdef uint32_t types = 0
    cdef uint32_t i
    for i in range(list.descriptorTypeCount if list.pDescriptorTypes != NULL else 0):
        types |= type_bit(list.pDescriptorTypes[i])
    return types


cdef inline uint64_t describe_layout(Core *core,
                                     const VkDescriptorSetLayoutCreateInfo *info) noexcept nogil:
    """A reference to what a new set layout has; 0 without memory."""
    cdef const VkDescriptorSetLayoutBindingFlagsCreateInfo *flags = (
        <const VkDescriptorSetLayoutBindingFlagsCreateInfo *>chain_find(
            info, VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_BINDING_FLAGS_CREATE_INFO))
    cdef const VkMutableDescriptorTypeCreateInfoEXT *lists = (
        <const VkMutableDescriptorTypeCreateInfoEXT *>chain_find(
            info, VK_STRUCTURE_TYPE_MUTABLE_DESCRIPTOR_TYPE_CREATE_INFO_EXT))
    cdef uint32_t count = info.bindingCount if info.pBindings != NULL else 0
    cdef Descriptions *all = &core.objects.descriptions
    cdef Description *made = description_new(all, count, sizeof(SetBinding))
    cdef SetBinding *b
    cdef uint32_t offsets = 0
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
        b.flags |= BINDING_PLANES * (binding_planes(core, &info.pBindings[i]) - 1)
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
    for i in range(count):
        b = &set_bindings(made)[i]
        b.offsets = offsets
        offsets += b.count if b.flags & BINDING_DYNAMIC else 0
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
    made.of = OF_PIPELINE
    made.references = count
    hesper_spin_lock(&all.lock)
    for i in range(count):
        reference = s.extent_list[i].size if info.pSetLayouts[i] else 0
        if reference and (reference == nobody() or description_hold(all, reference)):
            pipeline_sets(made)[i] = reference
    hesper_spin_unlock(&all.lock)
    return description_add(all, made)


cdef inline uint64_t pushed_end(const VkPipelineLayoutCreateInfo *info) noexcept nogil:
    """Where the last of its push constants ends."""
    cdef uint64_t last = 0
    cdef uint64_t end
    cdef uint32_t i
    for i in range(info.pushConstantRangeCount if info.pPushConstantRanges != NULL else 0):
        end = (<uint64_t>info.pPushConstantRanges[i].offset) + info.pPushConstantRanges[i].size
        last = end if end > last else last
    return last


cdef inline uint64_t describe_set(Stream *s, const VkDescriptorSetAllocateInfo *info,
                                  uint32_t index, Extent *extent) noexcept nogil:
    """A reference to what a new set's layout has; 0 without memory."""
    cdef Descriptions *all = &s.core.objects.descriptions
    cdef uint64_t reference = s.extent_list[index].size
    cdef Description *description
    cdef uint32_t dynamic = 0
    extent.texels = variable_count(info, index)
    if reference == nobody():
        return reference
    hesper_spin_lock(&all.lock)
    description = description_of(all, reference, OF_LAYOUT)
    if description != NULL and description_hold(all, reference):
        dynamic = description.dynamic
    else:
        reference = 0
    hesper_spin_unlock(&all.lock)
    extent.texels |= <uint64_t>dynamic << 32
    return describe_dynamic(all, reference, dynamic, extent) if dynamic else reference


cdef inline uint64_t describe_dynamic(Descriptions *all, uint64_t layout, uint32_t dynamic,
                                      Extent *extent) noexcept nogil:
    """Make a description of a set's own, which takes over the reference to its layout's.

    Returns that reference, or 0 without memory.
    """
    cdef Description *made = description_new(all, 1 + <uint64_t>dynamic, sizeof(uint64_t))
    cdef uint64_t own = 0
    if made != NULL:
        made.of = OF_SET
        made.references = 1
        pipeline_sets(made)[0] = layout
        own = description_add(all, made)
    if own == 0:
        description_drop(all, layout)
        return 0
    put_own_description(extent, own)
    return layout


cdef inline bint describe_new(Stream *s, New *new) noexcept nogil:
    """Describe the layouts, sets' layouts or colours of what the current command is to make.

    False: for want of memory.  What no object takes over, `settle_new` gives up.
    """
    cdef uint32_t type = s.command.new_type
    cdef const VkDescriptorSetAllocateInfo *sets
    cdef const VkPipelineLayoutCreateInfo *pipeline
    cdef uint64_t i
    if (type != HANDLE_VkDescriptorSet and type != HANDLE_VkDescriptorSetLayout
            and type != HANDLE_VkPipelineLayout
            and not (type == HANDLE_VkRenderPass and has_colors_elsewhere(new_subpasses(s)))):
        return True
    new.extents = <Extent *>arena_take_array(&s.arena, new.count, sizeof(Extent))
    if new.extents == NULL:
        return False
    memset(new.extents, 0, new.count * sizeof(Extent))
    for i in range(new.count):
        if type == HANDLE_VkDescriptorSet:
            sets = (<vkAllocateDescriptorSets_parameters *>s.parameters).pAllocateInfo
            new.extents[i].size = describe_set(s, sets, <uint32_t>i, &new.extents[i])
        elif type == HANDLE_VkDescriptorSetLayout:
            new.extents[i].size = describe_layout(
                s.core, (<vkCreateDescriptorSetLayout_parameters *>s.parameters).pCreateInfo)
        elif type == HANDLE_VkRenderPass:
            new.extents[i].size = describe_colors(s)
        else:
            pipeline = (<vkCreatePipelineLayout_parameters *>s.parameters).pCreateInfo
            new.extents[i].size = describe_pipeline(s, pipeline)
            new.extents[i].texels = ~pushed_end(pipeline)
        if new.extents[i].size == 0:
            return False
    return True
