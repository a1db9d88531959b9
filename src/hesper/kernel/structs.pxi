# Finding structs by VkStructureType.

cdef enum:
    STYPE_SLOTS = 2048          # a power of two, well above the number of chained structs

cdef uint16_t stype_index[STYPE_SLOTS]      # struct index + 1, 0: free


cdef inline uint32_t stype_slot(uint32_t stype) noexcept nogil:
    return (stype * <uint32_t>2654435761u) >> 21


cdef void build_stype_index() noexcept:
    cdef uint32_t i
    cdef uint32_t slot
    for i in range(hesper_struct_count):
        if hesper_structs[i].stype < 0:
            continue
        slot = stype_slot(<uint32_t>hesper_structs[i].stype)
        while stype_index[slot]:
            slot = (slot + 1) & (STYPE_SLOTS - 1)
        stype_index[slot] = <uint16_t>(i + 1)


cdef inline const hesper_struct *struct_by_stype(uint32_t stype) noexcept nogil:
    """The struct with that sType, or null."""
    cdef uint32_t slot = stype_slot(stype)
    cdef const hesper_struct *type
    while stype_index[slot]:
        type = &hesper_structs[stype_index[slot] - 1]
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


build_stype_index()
