"""Commands that change what is charged, besides making and destroying objects."""

from libc.stdint cimport uint32_t, uint64_t

from hesper_commands cimport (
    COMMAND_vkBeginCommandBuffer, COMMAND_vkCreateDescriptorSetLayout,
    COMMAND_vkDestroyDescriptorSetLayout, COMMAND_vkResetCommandBuffer, COMMAND_vkResetCommandPool,
    HANDLE_VkDescriptorSetLayout, vkCreateDescriptorSetLayout_parameters)

from hesper.kernel.core.costs cimport layout_cost
from hesper.kernel.core.dead cimport command_result
from hesper.kernel.core.dispatch cimport put_override
from hesper.kernel.core.driver cimport serve
from hesper.kernel.core.objects cimport Entry, Kin, object_find, object_kin
from hesper.kernel.core.recording cimport recording_drop
from hesper.kernel.core.set_sizes cimport set_size_note
from hesper.kernel.core.state cimport Core, Stream


cdef inline int create_set_layout(Stream *s) noexcept nogil:
    """vkCreateDescriptorSetLayout."""
    cdef vkCreateDescriptorSetLayout_parameters *block = (
        <vkCreateDescriptorSetLayout_parameters *>s.parameters)
    cdef uint64_t size
    cdef Entry *entry
    if serve(s):
        return -1
    entry = object_find(&s.core.objects, block.pSetLayout[0])
    if entry != NULL and entry.type == HANDLE_VkDescriptorSetLayout:
        layout_cost(block.pCreateInfo, &size)
        set_size_note(s.core, entry.handle, size)
    return 0


cdef inline int destroy_set_layout(Stream *s) noexcept nogil:
    """vkDestroyDescriptorSetLayout."""
    if s.victim_count:
        set_size_note(s.core, s.victims[0].handle, 0)
    return serve(s)


cdef inline int begin_again(Stream *s) noexcept nogil:
    """vkBeginCommandBuffer, vkResetCommandBuffer: what was recorded is no more."""
    if serve(s):
        return -1
    if command_result(s) == 0:
        recording_drop(s.core, object_kin(s.first))
    return 0


cdef inline int reset_pool(Stream *s) noexcept nogil:
    """vkResetCommandPool: the same of all command buffers of a pool."""
    cdef Kin *kin
    # Threads of a guest that breaks Vulkan's threading rules can tie the list into a ring.
    cdef uint32_t left = s.core.objects.limit
    if serve(s):
        return -1
    if command_result(s) or s.parent == NULL:
        return 0
    kin = object_kin(s.parent).first_child
    while kin != NULL and left:
        recording_drop(s.core, kin)
        kin = kin.next
        left -= 1
    return 0


cdef inline void charge_overrides(Core *core) noexcept nogil:
    put_override(core, COMMAND_vkBeginCommandBuffer, begin_again)
    put_override(core, COMMAND_vkResetCommandBuffer, begin_again)
    put_override(core, COMMAND_vkResetCommandPool, reset_pool)
    put_override(core, COMMAND_vkCreateDescriptorSetLayout, create_set_layout)
    put_override(core, COMMAND_vkDestroyDescriptorSetLayout, destroy_set_layout)
