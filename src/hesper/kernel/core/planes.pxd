"""Views of several planes, and the bindings whose samplers put those together.

A descriptor of such a view is one for each plane.  Drivers make room for them by the conversions of
a binding's own samplers, and write as many as the view has.  Source: the valid usage of
VkWriteDescriptorSet and VkImageViewCreateInfo.  What has one plane is not kept.
"""

from libc.stdint cimport uint32_t, uint64_t

from hesper_commands cimport VkDescriptorSetLayoutBinding, VkWriteDescriptorSet

from hesper.kernel.core.nulls cimport sees_image
from hesper.kernel.core.objects cimport DEAD, Entry, object_find
from hesper.kernel.core.platform cimport hesper_spin_lock, hesper_spin_unlock
from hesper.kernel.core.set_sizes cimport set_size_link, set_size_note
from hesper.kernel.core.state cimport Core, SetSize, Stream
from hesper.kernel.core.tables cimport hesper_format
from hesper.kernel.core.texels cimport format_of


cdef enum Planar:
    # Beside the handles of set layouts, which are noted in the same table.
    PLANAR_VIEW = 1
    PLANAR_SAMPLER
    PLANAR_CONVERSION


cdef inline uint64_t planar_key(Planar kind, uint64_t handle) noexcept nogil:
    return handle ^ <uint64_t>kind << 61


cdef inline void note_planes(Core *core, Planar kind, uint64_t handle,
                             uint32_t planes) noexcept nogil:
    """Keep how many planes a new object has, whose handle another one may have had."""
    if planes > 1:
        core.planar = True
    if core.planar:
        set_size_note(core, planar_key(kind, handle), planes if planes > 1 else 0)


cdef inline uint32_t planes_of(Core *core, Planar kind, uint64_t handle) noexcept nogil:
    cdef const SetSize *known
    cdef uint32_t planes = 1
    if not core.planar:
        return 1
    hesper_spin_lock(&core.set_sizes_lock)
    known = set_size_link(core, planar_key(kind, handle))[0]
    if known != NULL:
        planes = <uint32_t>known.size
    hesper_spin_unlock(&core.set_sizes_lock)
    return planes


cdef inline uint32_t planes_in(uint32_t format) noexcept nogil:
    """How many planes a VkFormat has."""
    cdef const hesper_format *known = format_of(format)
    cdef uint32_t planes = 1
    while known != NULL and planes < 3 and known.planes[planes].size:
        planes += 1
    return planes


cdef inline void note_new(Stream *s, Planar kind, uint64_t id, uint32_t planes) noexcept nogil:
    """The same of what the current command has made, if it has."""
    cdef Entry *entry = object_find(&s.core.objects, id)
    if entry != NULL and not entry.type & DEAD:
        note_planes(s.core, kind, entry.handle, planes)


cdef inline uint32_t binding_planes(Core *core,
                                    const VkDescriptorSetLayoutBinding *binding) noexcept nogil:
    """How many planes a binding's own samplers put together."""
    cdef const uint64_t *samplers = <const uint64_t *>binding.pImmutableSamplers
    cdef uint32_t most = 1
    cdef uint32_t planes
    cdef uint32_t i
    for i in range(binding.descriptorCount if core.planar and samplers != NULL else 0):
        planes = planes_of(core, PLANAR_SAMPLER, samplers[i])
        most = planes if planes > most else most
    return most


cdef inline uint32_t written_planes(Core *core, const VkWriteDescriptorSet *write) noexcept nogil:
    """How many planes the views of a write have at most."""
    cdef uint32_t most = 1
    cdef uint32_t planes
    cdef uint32_t i
    if not core.planar or write.pImageInfo == NULL or not sees_image(write.descriptorType):
        return 1
    for i in range(write.descriptorCount):
        planes = planes_of(core, PLANAR_VIEW, <uint64_t>write.pImageInfo[i].imageView)
        most = planes if planes > most else most
    return most
