# Ids of a client's resources.  Clients keep arrays by id, so ids are used again.

cdef struct Ids:
    uint8_t *taken              # by id
    uint32_t *unused            # ids up to `highest` that are not taken
    uint32_t unused_count
    uint32_t highest            # id that there has been
    uint32_t room               # of both arrays


cdef uint32_t ids_take(Ids *ids) noexcept nogil:
    """An id that was not taken; 0 without memory."""
    cdef uint32_t id
    if ids.unused_count:
        ids.unused_count -= 1
        id = ids.unused[ids.unused_count]
    elif ids.highest + 1 < ids.room or ids_grow(ids):
        ids.highest += 1
        id = ids.highest
    else:
        return 0
    ids.taken[id] = True
    return id


cdef bint ids_grow(Ids *ids) noexcept nogil:
    cdef uint32_t room = 2 * ids.room if ids.room else 64
    cdef uint8_t *taken = <uint8_t *>realloc(ids.taken, room)
    cdef uint32_t *unused
    if taken == NULL:
        return False
    ids.taken = taken
    unused = <uint32_t *>realloc(ids.unused, room * sizeof(uint32_t))
    if unused == NULL:
        return False
    ids.unused = unused
    ids.room = room
    return True


cdef bint ids_give(Ids *ids, uint32_t id) noexcept nogil:
    """Give an id back; whether it was taken."""
    if not 0 < id <= ids.highest or not ids.taken[id]:
        return False
    ids.taken[id] = False
    ids.unused[ids.unused_count] = id
    ids.unused_count += 1
    return True


cdef void ids_free(Ids *ids) noexcept nogil:
    free(ids.taken)
    free(ids.unused)
