"""Dynamic offsets against the buffers behind their descriptors.

A driver adds them to where the descriptor's part of a buffer begins.  So of each dynamic descriptor
is kept how far that part can be moved: for as long as its set lives, since neither Vulkan nor a
driver asks about the buffer again when the set is bound.  A guest that breaks the rule that a set
which is bound is not written, and has the driver read it later, is not held by this.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from hesper_commands cimport (
    HANDLE_VkBuffer, VK_DESCRIPTOR_TYPE_STORAGE_BUFFER_DYNAMIC,
    VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER_DYNAMIC, VK_WHOLE_SIZE, WIRE_VkDescriptorBufferInfo_SIZE,
    WIRE_VkDescriptorBufferInfo_buffer, VkDescriptorBufferInfo, VkWriteDescriptorSet)

from hesper.kernel.core.arena cimport arena_take_array
from hesper.kernel.core.extents cimport own_description
from hesper.kernel.core.nulls cimport supplied
from hesper.kernel.core.objects cimport Entry, Extent, object_extent, object_find
from hesper.kernel.core.platform cimport hesper_read_u64, hesper_spin_lock, hesper_spin_unlock
from hesper.kernel.core.set_layouts cimport (
    OF_LAYOUT, OF_SET, Description, Descriptions, SetBinding, description_of, find_binding,
    set_bindings, set_reaches)
from hesper.kernel.core.set_runs cimport WRITTEN, fail_set, nobody, type_bit
from hesper.kernel.core.state cimport (
    ERROR_MEMORY, SET_GONE, SET_REACH, Piece, Stream, fail)
from hesper.kernel.core.tables cimport hesper_op


cdef enum:
    # Of Stream.extents: the sets of a copy.
    SOURCE_SET = 0
    TARGET_SET = 1


cdef inline uint64_t no_end() noexcept nogil:
    """How far a part of a buffer can be moved of which nothing is known."""
    return <uint64_t>-1


cdef inline uint64_t dropped() noexcept nogil:
    """The same of one that stands for nothing, whose dynamic offset counts for nothing."""
    return <uint64_t>-2


cdef inline uint64_t reach(Stream *s, const VkDescriptorBufferInfo *info,
                           const uint8_t *sent) noexcept nogil:
    """How far a descriptor's part of a buffer can be moved; sent: its struct on the wire.

    The id is read there once more, and what it names now counts only if it is that buffer.
    """
    cdef Entry *entry
    cdef uint64_t size
    if info.buffer == 0:
        # What stands in for it has an end, if something does: the offset is dropped.
        return dropped() if supplied(s) != NULL else no_end()
    entry = object_find(&s.core.objects, hesper_read_u64(sent + WIRE_VkDescriptorBufferInfo_buffer))
    if entry == NULL or entry.type != HANDLE_VkBuffer or entry.handle != info.buffer:
        return 0
    size = object_extent(entry).size
    if size == <uint64_t>-1:
        return no_end()
    # All that is left of a buffer has been measured when the descriptor was written.
    if info.range == VK_WHOLE_SIZE or info.offset > size or info.range > size - info.offset:
        return 0
    return size - info.offset - info.range


cdef inline uint64_t first_place(Description *layout, uint32_t number,
                                 uint64_t element) noexcept nogil:
    """Which of the dynamic descriptors of a set a run of them begins with."""
    cdef const SetBinding *bindings = set_bindings(layout)
    cdef uint32_t i = find_binding(bindings, layout.count, number)
    while i < layout.count and element >= bindings[i].count:
        element -= bindings[i].count
        i += 1
    return bindings[i].offsets + element if i < layout.count else <uint64_t>-1


cdef inline uint64_t *reaches_of(Descriptions *all, const Extent *extent, uint32_t number,
                                 uint64_t element, uint64_t count) noexcept nogil:
    """What is kept of `count` dynamic descriptors of a set, or null; the lock is held."""
    cdef Description *set = description_of(all, own_description(extent), OF_SET)
    cdef Description *layout = description_of(all, extent.size, OF_LAYOUT)
    cdef uint64_t first
    if set == NULL or layout == NULL:
        return NULL
    first = first_place(layout, number, element)
    if first > set.count - 1 or count > set.count - 1 - first:
        return NULL
    return set_reaches(set) + first


cdef inline int note_reaches(Stream *s, const hesper_op *op,
                             const VkWriteDescriptorSet *write) noexcept nogil:
    """Keep how far the dynamic descriptors reach that are written; the cursor is behind them."""
    cdef Descriptions *all = &s.core.objects.descriptions
    cdef uint32_t count = write.descriptorCount if write.pBufferInfo != NULL else 0
    cdef const uint8_t *sent = s.cursor - <uint64_t>count * WIRE_VkDescriptorBufferInfo_SIZE
    cdef uint64_t *found
    cdef uint64_t *kept
    cdef uint32_t i
    if count == 0:
        return 0
    found = <uint64_t *>arena_take_array(&s.arena, count, sizeof(uint64_t))
    if found == NULL:
        return fail(s, ERROR_MEMORY, op, count)
    for i in range(count):
        found[i] = reach(s, &write.pBufferInfo[i],
                         sent + <uint64_t>i * WIRE_VkDescriptorBufferInfo_SIZE)
    hesper_spin_lock(&all.lock)
    kept = reaches_of(all, &s.extents[WRITTEN], write.dstBinding, write.dstArrayElement, count)
    for i in range(count if kept != NULL else 0):
        kept[i] = ~found[i]
    hesper_spin_unlock(&all.lock)
    return 0


cdef inline void copy_reaches(Stream *s, const Piece *both, uint64_t count) noexcept nogil:
    """The same of what is copied: pairs of pieces, of the first measured set and the second."""
    cdef Descriptions *all = &s.core.objects.descriptions
    cdef uint32_t dynamic_types = (type_bit(VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER_DYNAMIC)
                                   | type_bit(VK_DESCRIPTOR_TYPE_STORAGE_BUFFER_DYNAMIC))
    cdef const uint64_t *source
    cdef uint64_t *target
    cdef uint64_t i
    cdef uint32_t j
    if own_description(&s.extents[TARGET_SET]) == 0:
        return
    hesper_spin_lock(&all.lock)
    for i in range(count):
        if not both[2 * i].types & dynamic_types:
            continue
        source = reaches_of(all, &s.extents[SOURCE_SET], both[2 * i].number, both[2 * i].element,
                            both[2 * i].count)
        target = reaches_of(all, &s.extents[TARGET_SET], both[2 * i + 1].number,
                            both[2 * i + 1].element, both[2 * i].count)
        for j in range(both[2 * i].count if source != NULL and target != NULL else 0):
            target[j] = source[j]
    hesper_spin_unlock(&all.lock)


cdef inline int look_at_offsets(Stream *s, const hesper_op *op, const uint64_t *sets,
                                uint32_t count, uint32_t *offsets) noexcept nogil:
    """Dynamic offsets of sets that are bound; there are as many as the sets take.

    They are the command's own copy.
    """
    cdef Descriptions *all = &s.core.objects.descriptions
    cdef Description *description
    cdef const Extent *set
    cdef uint64_t most = no_end()
    cdef uint64_t dynamic
    cdef uint64_t i
    cdef uint32_t j
    for j in range(count):
        set = &s.extent_list[j]
        dynamic = set.texels >> 32
        if sets[j] == 0 or set.size == nobody() or dynamic == 0:
            continue
        hesper_spin_lock(&all.lock)
        description = description_of(all, own_description(set), OF_SET)
        i = 0
        while description != NULL and i < dynamic:
            most = ~set_reaches(description)[i]
            if offsets[i] > most:
                break
            if most == dropped():
                offsets[i] = 0
            i += 1
        hesper_spin_unlock(&all.lock)
        if description == NULL:
            return fail_set(s, op, SET_GONE, 0, 0, 0)
        if i < dynamic:
            return fail_set(s, op, SET_REACH, offsets[i], 0, most)
        offsets += dynamic
    return 0
