"""Runs of descriptors, which commands name by binding and element, and the bindings they lie in.

Drivers find a descriptor by its binding's number, its element and its type, without asking whether
the layout has any such.  What runs over from one binding into the next, as Vulkan allows, drivers
take as if it were one array, which it need not be to them: they get a piece for each binding.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from hesper_commands cimport (
    VK_DESCRIPTOR_TYPE_ACCELERATION_STRUCTURE_KHR, VK_DESCRIPTOR_TYPE_ACCELERATION_STRUCTURE_NV,
    VK_DESCRIPTOR_TYPE_BLOCK_MATCH_IMAGE_QCOM, VK_DESCRIPTOR_TYPE_INLINE_UNIFORM_BLOCK,
    VK_DESCRIPTOR_TYPE_INPUT_ATTACHMENT,
    VK_DESCRIPTOR_TYPE_PARTITIONED_ACCELERATION_STRUCTURE_NV,
    VK_DESCRIPTOR_TYPE_SAMPLE_WEIGHT_IMAGE_QCOM, VK_DESCRIPTOR_TYPE_STORAGE_BUFFER_DYNAMIC,
    VK_DESCRIPTOR_TYPE_TENSOR_ARM, VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER_DYNAMIC,
    VK_STRUCTURE_TYPE_DESCRIPTOR_SET_VARIABLE_DESCRIPTOR_COUNT_ALLOCATE_INFO,
    VkDescriptorSetAllocateInfo, VkDescriptorSetVariableDescriptorCountAllocateInfo)

from hesper.kernel.core.arena cimport arena_take, arena_take_array
from hesper.kernel.core.platform cimport hesper_spin_lock, hesper_spin_unlock
from hesper.kernel.core.set_layouts cimport (
    BINDING_PLANES, BINDING_VARIABLE, OF_LAYOUT, OF_PIPELINE, Description, Descriptions, Seen,
    SetBinding, description_of, find_binding, pipeline_sets, see, seen_bindings, set_bindings)
from hesper.kernel.core.state cimport (
    ERROR_MEMORY, ERROR_SET, SET_BEYOND, SET_GONE, SET_NO_BINDING, SET_PLANES, SET_STAGES, SET_TYPE,
    Piece, SetFault, Split, Stream, fail)
from hesper.kernel.core.structs cimport chain_find
from hesper.kernel.core.tables cimport hesper_op


cdef enum:
    TARGET = 0                  # of Stream.seen_sets: what is written, or copied to
    SOURCE = 1
    # Of Stream.extents: the set that is written, and the pipeline layout of what is pushed.  The
    # buffers of a write use the first one.
    WRITTEN = 2
    PUSHED = 3


cdef struct Run:
    # Descriptors that a command names.
    uint64_t reference          # of the description of the set's layout
    uint32_t which              # of Stream.seen_sets
    uint32_t number             # of the first binding
    uint32_t element            # in that
    uint32_t count
    uint32_t types              # that one of which each binding must take
    uint32_t planes             # that views have at most
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


cdef inline uint32_t planes_taken(const SetBinding *b) noexcept nogil:
    """How many planes of a view a descriptor of a binding has room for."""
    return (b.flags & BINDING_PLANES * 3) // BINDING_PLANES + 1


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
        if run.planes > planes_taken(b):
            fault[0] = SET_PLANES
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
    cdef Seen *seen = &s.seen_sets[run.which]
    cdef Description *description
    cdef int64_t found = -1
    if see(all, run.reference, OF_LAYOUT, seen):
        return cut(seen_bindings(seen), seen.count, run, pieces, fault)
    fault[0] = SET_GONE
    hesper_spin_lock(&all.lock)
    description = description_of(all, run.reference, OF_LAYOUT)
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


cdef inline bint set_of_pipeline(Stream *s, uint64_t reference, uint32_t index,
                                 uint64_t *found) noexcept nogil:
    """The reference of the layout of a set (0: none); False: there is no such set."""
    cdef Descriptions *all = &s.core.objects.descriptions
    cdef Description *description
    cdef bint is_there
    if see(all, reference, OF_PIPELINE, &s.seen_pipeline):
        if index >= s.seen_pipeline.count:
            return False
        found[0] = s.seen_pipeline.words[index]
        return True
    hesper_spin_lock(&all.lock)
    description = description_of(all, reference, OF_PIPELINE)
    is_there = description != NULL and index < description.count
    if is_there:
        found[0] = pipeline_sets(description)[index]
    hesper_spin_unlock(&all.lock)
    return is_there


cdef inline int by_number(const void *a, const void *b) noexcept nogil:
    """For qsort: SetBinding and numbers alone, which begin with the number."""
    cdef uint32_t x = (<const uint32_t *>a)[0]
    cdef uint32_t y = (<const uint32_t *>b)[0]
    return (x > y) - (x < y)


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
