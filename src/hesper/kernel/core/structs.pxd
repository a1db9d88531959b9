"""Structs by VkStructureType, and their pNext chains."""

from libc.stdint cimport int64_t, uint16_t, uint32_t

from hesper.kernel.core.tables cimport (
    hesper_base, hesper_extends, hesper_struct, hesper_stype_index, hesper_structs)


cdef enum:
    STYPE_SLOTS = 2048          # of `hesper_stype_index`, see protocol/compiler/emit.py


cdef inline uint32_t stype_slot(uint32_t stype) noexcept nogil:
    return (stype * <uint32_t>2654435761u) >> 21


cdef inline const hesper_struct *struct_by_stype(uint32_t stype) noexcept nogil:
    """The struct with that sType, or null."""
    cdef uint32_t slot = stype_slot(stype)
    cdef const hesper_struct *type
    while hesper_stype_index[slot]:
        type = &hesper_structs[hesper_stype_index[slot] - 1]
        if type.stype == <int64_t>stype:
            return type
        slot = (slot + 1) & (STYPE_SLOTS - 1)
    return NULL


cdef inline bint extends(const hesper_struct *type, uint32_t root) noexcept nogil:
    """Whether a struct may stand in the pNext chain of struct `root`."""
    cdef uint32_t i
    for i in range(type.extend_count):
        if hesper_extends[type.extends + i] == root:
            return True
    return False


cdef inline hesper_base *chain_find(const void *info, uint32_t stype) noexcept nogil:
    """The struct with that sType in the pNext chain of `info`, or null."""
    cdef hesper_base *node = (<const hesper_base *>info).pNext
    while node != NULL and node.sType != stype:
        node = node.pNext
    return node
