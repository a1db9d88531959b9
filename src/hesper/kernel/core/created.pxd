"""Objects that a command makes or destroys."""

from libc.stdint cimport int32_t, uint32_t, uint64_t

from hesper_commands cimport (
    HANDLE_VkDescriptorSet, HANDLE_VkPipeline, HANDLE_VkRenderPass, VK_ERROR_UNKNOWN)

from hesper.kernel.core.arena cimport arena_take_array
from hesper.kernel.core.attachments cimport attachment_extent
from hesper.kernel.core.dead cimport command_result, heard_add, heard_remove
from hesper.kernel.core.decode cimport length_of
from hesper.kernel.core.extents cimport (
    extent_of_each, extent_of_new, own_description, put_own_description)
from hesper.kernel.core.objects cimport (
    DEAD, Entry, Extent, Objects, object_add, object_adopt, object_clear, object_find, object_kin,
    object_remove)
from hesper.kernel.core.pass_colors cimport name_colors
from hesper.kernel.core.platform cimport hesper_add_u64
from hesper.kernel.core.relations cimport make_facts
from hesper.kernel.core.set_layouts cimport description_drop
from hesper.kernel.core.state cimport (
    ERROR_ID, ERROR_LIMIT, ERROR_MEMORY, ERROR_NULL, ERROR_OBJECT, Stream, fail)
from hesper.kernel.core.tables cimport hesper_command, hesper_lengths


cdef struct New:
    # Objects a command makes: guest ids taken off their place, host handles put there.
    uint64_t *handles
    uint64_t *ids
    uint64_t count
    void *region                # that the first of them, memory, gets; mostly null
    uint64_t each               # bytes that are charged for each: `costs.pxd`
    uint64_t charged            # that no object has taken over yet
    Extent *extents             # of each, with references in `size`: `sets.pxd`; mostly null


cdef inline int prepare_new(Stream *s, New *new) noexcept nogil:
    """Take the guest ids off the output array; all must be free."""
    cdef uint64_t i
    cdef const hesper_command *c = s.command
    new.handles = (<uint64_t **>(s.parameters + c.new_offset))[0]
    new.count = 0
    new.ids = NULL
    new.region = NULL
    new.each = 0
    new.charged = 0
    new.extents = NULL
    if new.handles == NULL:
        return 0
    new.count = 1 if c.new_single else length_of(&hesper_lengths[c.new_length], s.parameters)
    new.ids = <uint64_t *>arena_take_array(&s.arena, new.count, 8)
    if new.ids == NULL:
        return fail(s, ERROR_MEMORY, NULL, new.count)
    for i in range(new.count):
        new.ids[i] = new.handles[i]
        new.handles[i] = 0
        if new.ids[i] == 0 or (object_find(&s.core.objects, new.ids[i]) != NULL
                               and not heard_remove(s.core, new.ids[i])):
            return fail(s, ERROR_ID, NULL, new.ids[i])
    return 0


cdef inline int register_new(Stream *s, New *new) noexcept nogil:
    """Make objects of the handles the driver has given, dead ones where it has given none."""
    cdef uint64_t i
    cdef uint32_t type
    cdef int32_t result = command_result(s)
    cdef Entry *entry
    cdef Objects *objects = &s.core.objects
    cdef uint64_t parent_id = s.parent_id if s.parent != NULL else s.first_id
    cdef uint64_t device_id
    cdef Extent extent
    cdef uint64_t description
    if s.first == NULL:
        return fail(s, ERROR_NULL, NULL, 0)
    extent_of_new(s, &extent)
    if extent.size == <uint64_t>-1:
        attachment_extent(s, &extent)
    device_id = s.first_id if s.device else 0
    make_facts(s, extent.facts)
    if result < 0 and s.command.new_single and new.count:
        new.handles[0] = 0      # a driver may leave anything there
    for i in range(new.count):
        type = s.command.new_type
        if type == HANDLE_VkPipeline:
            extent_of_each(s, i, &extent)
        if new.handles[i] == 0:
            if result == 0:
                continue
            type |= DEAD
        description = 0
        if new.extents != NULL and not type & DEAD:
            description = own_description(&new.extents[i])
            if type == HANDLE_VkDescriptorSet:
                put_own_description(&extent, description)
            description = description if description else new.extents[i].size
            if type == HANDLE_VkRenderPass:
                name_colors(&extent, description)
            else:
                extent.size = new.extents[i].size
                extent.texels = new.extents[i].texels
            new.extents[i].size = 0
        entry = object_add(objects, new.ids[i], type, new.handles[i], s.first.table, s.device,
                           device_id, parent_id,
                           new.region if i == 0 and not type & DEAD else NULL, &extent,
                           description)
        if entry == NULL and description:
            description_drop(&objects.descriptions, description)
        if entry == NULL and type & DEAD and s.wants_reply:
            continue
        if entry == NULL:
            return fail(s, ERROR_LIMIT, NULL, objects.limit)
        if type & DEAD:
            entry.extra = <uint32_t>(result if result < 0 else VK_ERROR_UNKNOWN)
            if s.wants_reply:
                heard_add(s.core, new.ids[i])
                continue
        elif new.charged >= new.each:
            hesper_add_u64(&object_kin(entry).charged, new.each)
            new.charged -= new.each
        if s.parent != NULL:
            object_adopt(s.parent, entry)
    return 0


cdef inline void restore_ids(New *new) noexcept nogil:
    """Put guest ids back for the reply; null where nothing was made."""
    cdef uint64_t i
    for i in range(new.count):
        if new.handles[i]:
            new.handles[i] = new.ids[i]


cdef inline int forget_victims(Stream *s) noexcept nogil:
    """Forget what the current command destroys, before the driver does.

    -1, with the error noted, where that is named twice, or another ring has destroyed it meanwhile:
    the driver would free it twice.
    """
    cdef uint32_t i
    cdef Entry *entry
    for i in range(s.victim_count):
        entry = object_find(&s.core.objects, s.victims[i].id)
        if (entry == NULL or entry.handle != s.victims[i].handle
                or not object_remove(&s.core.objects, entry)):
            return fail(s, ERROR_OBJECT, NULL, s.victims[i].id)
    return 0


cdef inline void clear_pool(Stream *s) noexcept nogil:
    """vkResetDescriptorPool: all sets of the pool are gone."""
    cdef uint64_t id = s.victims[0].id if s.victim_count else 0
    cdef Entry *entry = object_find(&s.core.objects, id)
    if entry != NULL:
        object_clear(&s.core.objects, entry)
