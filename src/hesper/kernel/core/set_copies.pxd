"""Copies of descriptors against the layouts of their sets, and the end of an update."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from hesper_commands cimport VkCopyDescriptorSet, vkUpdateDescriptorSets_parameters

from hesper.kernel.core.arena cimport arena_take_array
from hesper.kernel.core.nulls cimport views_hold
from hesper.kernel.core.set_layouts cimport BINDING_MUTABLE, BINDING_PLANES
from hesper.kernel.core.set_offsets cimport copy_reaches
from hesper.kernel.core.set_runs cimport (
    SOURCE, TARGET, Run, fail_set, nobody, note_split, take_pieces)
from hesper.kernel.core.set_writes cimport split_writes
from hesper.kernel.core.state cimport (
    ERROR_MEMORY, ERROR_NULL, SET_OTHER_TYPE, Piece, Split, Stream, fail)
from hesper.kernel.core.tables cimport hesper_op


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
    source.planes = target.planes = 1
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
    copy_reaches(s, both, count)
    if count == 1 and both[0].number == copy.srcBinding and both[1].number == copy.dstBinding:
        return 0
    return note_split(s, op, copy, both, count)


cdef inline bint match(const Piece *a, const Piece *b) noexcept nogil:
    """Whether descriptors can be copied from one binding to another, as far as these say."""
    if (a.flags ^ b.flags) & BINDING_PLANES * 3:
        return False
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
    if s.nulls and views_hold(s, op, block.pDescriptorWrites, block.descriptorWriteCount):
        return -1
    if s.first_split == NULL:
        return 0
    if block.pDescriptorWrites != NULL:
        result = split_writes(s, op, &block.pDescriptorWrites, &block.descriptorWriteCount)
    if result == 0 and s.first_split != NULL and block.pDescriptorCopies != NULL:
        result = split_copies(s, op, block)
    s.first_split = NULL
    s.last_split = NULL
    return result
