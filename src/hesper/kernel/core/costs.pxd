"""What objects cost: bytes here, and those that the driver is taken to keep.

Nobody can ask a driver for the latter.  These are figures of Mesa's drivers and others, rounded up:
they need not be exact, but no number of objects may cost nothing.
"""

from libc.stdint cimport uint32_t, uint64_t

from hesper_commands cimport (
    COMMAND_vkCreateComputePipelines, COMMAND_vkCreateDescriptorPool,
    COMMAND_vkCreateDescriptorSetLayout, COMMAND_vkCreateGraphicsPipelines,
    COMMAND_vkCreateQueryPool, COMMAND_vkCreateRayTracingPipelinesKHR, HANDLE_VkCommandBuffer,
    HANDLE_VkCommandPool, HANDLE_VkDescriptorSet, HANDLE_VkDevice, HANDLE_VkEvent, HANDLE_VkImage,
    HANDLE_VkInstance, HANDLE_VkPipeline, HANDLE_VkPipelineBinaryKHR,
    HANDLE_VkPipelineCache, HANDLE_VkShaderEXT, VK_DESCRIPTOR_TYPE_INLINE_UNIFORM_BLOCK,
    VK_ERROR_OUT_OF_HOST_MEMORY, VK_QUERY_TYPE_PIPELINE_STATISTICS, VkDescriptorPoolCreateInfo,
    VkDescriptorSetLayoutCreateInfo, VkQueryPoolCreateInfo, vkAllocateDescriptorSets_parameters,
    vkCreateComputePipelines_parameters, vkCreateDescriptorPool_parameters,
    vkCreateDescriptorSetLayout_parameters, vkCreateGraphicsPipelines_parameters,
    vkCreateQueryPool_parameters, vkCreateRayTracingPipelinesKHR_parameters)

from hesper.kernel.core.created cimport New
from hesper.kernel.core.dead cimport set_result
from hesper.kernel.core.extents cimport own_description
from hesper.kernel.core.ledger cimport (
    ACCOUNT_OBJECTS, LIMIT_DEVICES, LIMIT_MEMORY, LIMIT_OBJECTS, ledger_give, ledger_note)
from hesper.kernel.core.objects cimport Entry, object_kin, object_with
from hesper.kernel.core.platform cimport (
    hesper_add_u64, hesper_load_u64, hesper_noted, hesper_spin_lock, hesper_spin_unlock)
from hesper.kernel.core.set_layouts cimport description_drop
from hesper.kernel.core.set_new cimport describe_new
from hesper.kernel.core.set_sizes cimport set_size_link
from hesper.kernel.core.shm_pool cimport pool_room
from hesper.kernel.core.state cimport Core, SetSize, Stream


cdef enum:
    ENTRY_COST = 160            # of an object's place in the table
    ORDINARY_COST = 1024        # of an object that is nothing special to a driver
    DEVICE_COST = 16 << 20
    PIPELINE_COST = 64 << 10
    POOL_COST = 16 << 10
    COMMAND_BUFFER_COST = 16 << 10
    IMAGE_COST = 4096
    EVENT_COST = 4096
    SET_COST = 512
    DESCRIPTOR_COST = 64        # of one that a pool has room for
    WRITTEN_DESCRIPTOR_COST = 128   # of one in a set
    BINDING_COST = 128          # of a layout's; drivers have an array up to the highest number
    QUERY_COST = 64
    STATISTICS_COST = 256       # of a query that counts a dozen things
    DESCRIBED_TWICE = 2         # what is described when it is made is kept, and in another form
    COST_BITS = 60              # of a sum, after which nothing is added: none overflows
    MANY_BITS = 24              # of sets, descriptors; drivers count bytes in 32 bits
    QUERY_BITS = 22             # of queries, of which some drivers keep hundreds of bytes


cdef enum:
    TOO_MUCH = 0x1000000000000000


cdef inline uint64_t type_cost(uint32_t type) noexcept nogil:
    if type == HANDLE_VkInstance:
        return 0                # there is one
    if type == HANDLE_VkDevice:
        return DEVICE_COST
    if (type == HANDLE_VkPipeline or type == HANDLE_VkShaderEXT
            or type == HANDLE_VkPipelineBinaryKHR):
        return PIPELINE_COST
    if type == HANDLE_VkCommandPool or type == HANDLE_VkPipelineCache:
        return POOL_COST
    if type == HANDLE_VkCommandBuffer:
        return COMMAND_BUFFER_COST
    if type == HANDLE_VkImage:
        return IMAGE_COST
    if type == HANDLE_VkEvent:
        return EVENT_COST
    if type == HANDLE_VkDescriptorSet:
        return SET_COST
    return ORDINARY_COST


cdef inline uint64_t pool_cost(const VkDescriptorPoolCreateInfo *info) noexcept nogil:
    """Of what a descriptor pool has room for."""
    cdef uint64_t cost = info.maxSets * <uint64_t>SET_COST
    cdef uint32_t i
    cdef uint64_t descriptors = 0
    for i in range(info.poolSizeCount if info.pPoolSizes != NULL else 0):
        descriptors += info.pPoolSizes[i].descriptorCount
        if info.pPoolSizes[i].type == VK_DESCRIPTOR_TYPE_INLINE_UNIFORM_BLOCK:
            cost += info.pPoolSizes[i].descriptorCount
        else:
            cost += info.pPoolSizes[i].descriptorCount * <uint64_t>DESCRIPTOR_COST
        if descriptors >> MANY_BITS + 2:
            break
    if info.maxSets >> MANY_BITS or descriptors >> MANY_BITS + 2:
        return TOO_MUCH
    return cost


cdef inline uint64_t layout_cost(const VkDescriptorSetLayoutCreateInfo *info,
                                 uint64_t *set) noexcept nogil:
    """Of a descriptor set layout; set: becomes that of the descriptors of a set."""
    cdef uint64_t highest = 0
    cdef uint32_t i
    set[0] = 0
    for i in range(info.bindingCount if info.pBindings != NULL else 0):
        if info.pBindings[i].binding >= highest:
            highest = info.pBindings[i].binding + <uint64_t>1
        if info.pBindings[i].descriptorType == VK_DESCRIPTOR_TYPE_INLINE_UNIFORM_BLOCK:
            set[0] += info.pBindings[i].descriptorCount
        else:
            set[0] += info.pBindings[i].descriptorCount * <uint64_t>WRITTEN_DESCRIPTOR_COST
        if set[0] >> COST_BITS:
            break
    return highest * BINDING_COST


cdef inline uint64_t query_cost(const VkQueryPoolCreateInfo *info) noexcept nogil:
    if info.queryCount >> QUERY_BITS:
        return TOO_MUCH
    return info.queryCount * <uint64_t>(
        STATISTICS_COST if info.queryType == VK_QUERY_TYPE_PIPELINE_STATISTICS else QUERY_COST)


cdef inline uint64_t set_cost(Stream *s) noexcept nogil:
    """Of the descriptors of the largest of the sets that are asked for."""
    cdef const vkAllocateDescriptorSets_parameters *block = (
        <const vkAllocateDescriptorSets_parameters *>s.parameters)
    cdef const SetSize *known
    cdef uint64_t most = 0
    cdef uint32_t i
    if block.pAllocateInfo == NULL or block.pAllocateInfo.pSetLayouts == NULL:
        return 0
    hesper_spin_lock(&s.core.set_sizes_lock)
    for i in range(block.pAllocateInfo.descriptorSetCount):
        known = set_size_link(s.core, block.pAllocateInfo.pSetLayouts[i])[0]
        if known != NULL and known.size > most:
            most = known.size
    hesper_spin_unlock(&s.core.set_sizes_lock)
    return most


cdef inline uint64_t new_cost(Stream *s, uint64_t count, uint32_t index) noexcept nogil:
    """Of each of the objects that the current command is to make."""
    cdef uint64_t described = <uint64_t>(s.cursor - s.begin) * DESCRIBED_TWICE // count
    cdef uint64_t cost = ENTRY_COST + described + type_cost(s.command.new_type)
    cdef uint64_t set
    if index == COMMAND_vkCreateDescriptorPool:
        return cost + pool_cost(
            (<vkCreateDescriptorPool_parameters *>s.parameters).pCreateInfo)
    if index == COMMAND_vkCreateDescriptorSetLayout:
        return cost + layout_cost(
            (<vkCreateDescriptorSetLayout_parameters *>s.parameters).pCreateInfo, &set)
    if index == COMMAND_vkCreateQueryPool:
        return cost + query_cost((<vkCreateQueryPool_parameters *>s.parameters).pCreateInfo)
    if s.command.new_type == HANDLE_VkDescriptorSet:
        return cost + set_cost(s)
    return cost


cdef inline void charge_cache(Stream *s, uint64_t handle, uint64_t size) noexcept nogil:
    """Charge a pipeline cache for a pipeline, which it keeps when the pipeline is gone."""
    cdef Core *core = s.core
    cdef Entry *entry = core.filled_cache
    if entry == NULL or entry.type != HANDLE_VkPipelineCache or entry.handle != handle:
        entry = object_with(&core.objects, HANDLE_VkPipelineCache, handle, s.device)
        core.filled_cache = entry
    # One that is larger than may be does not fail what is put into it: that is charged, too.
    if entry != NULL and pool_room(core.pool, ACCOUNT_OBJECTS, size):
        hesper_add_u64(&object_kin(entry).charged, size)


cdef inline uint64_t filled_cache(Stream *s, uint32_t index) noexcept nogil:
    """The pipeline cache, a host handle, that the current command fills; 0: none."""
    if index == COMMAND_vkCreateGraphicsPipelines:
        return (<vkCreateGraphicsPipelines_parameters *>s.parameters).pipelineCache
    if index == COMMAND_vkCreateComputePipelines:
        return (<vkCreateComputePipelines_parameters *>s.parameters).pipelineCache
    if index == COMMAND_vkCreateRayTracingPipelinesKHR:
        return (<vkCreateRayTracingPipelinesKHR_parameters *>s.parameters).pipelineCache
    return 0


cdef inline bint charge_new(Stream *s, New *new, uint32_t index) noexcept nogil:
    """Take what the objects cost that a command is to make; False: it has failed for that.

    index: of the command.  What they are not made of must be given back by `settle_new`.
    """
    cdef Core *core = s.core
    cdef uint64_t cache
    if new.count == 0:
        return True
    if hesper_noted(&core.objects.live) + new.count > core.objects.limit:
        ledger_note(&core.pool.ledger, LIMIT_OBJECTS)
    else:
        new.each = new_cost(s, new.count, index)
        if (s.command.new_type == HANDLE_VkDevice
                and hesper_load_u64(&core.pool.ledger.count[LIMIT_DEVICES]) <= 1):
            new.each = ENTRY_COST   # every client has one
        if new.each > <uint64_t>-1 // new.count:
            ledger_note(&core.pool.ledger, LIMIT_MEMORY)
        elif pool_room(core.pool, ACCOUNT_OBJECTS, new.each * new.count):
            new.charged = new.each * new.count
            if not describe_new(s, new):
                return refuse_new(s, new)
            cache = filled_cache(s, index)
            if cache:
                charge_cache(s, cache, new.charged // 4)
            return True
    return refuse_new(s, new)


cdef inline bint refuse_new(Stream *s, New *new) noexcept nogil:
    """Have the current command fail for a limit: False."""
    new.each = 0
    s.limited = True
    set_result(s, VK_ERROR_OUT_OF_HOST_MEMORY)
    return False


cdef inline void settle_new(Stream *s, New *new) noexcept nogil:
    """Give back what no object has been made of."""
    cdef uint64_t own
    cdef uint64_t i
    if new.charged:
        ledger_give(&s.core.pool.ledger, ACCOUNT_OBJECTS, new.charged)
        new.charged = 0
    for i in range(new.count if new.extents != NULL else 0):
        if new.extents[i].size:
            own = own_description(&new.extents[i])
            description_drop(&s.core.objects.descriptions, own if own else new.extents[i].size)
            new.extents[i].size = 0
