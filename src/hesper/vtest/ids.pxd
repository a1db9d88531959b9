"""Ids of a client's resources.  Clients keep arrays by id, so ids are used again."""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, realloc


cdef enum:
    # Also of those for which a context had no room, which cost nothing but their ids.
    MOST_IDS = 1 << 18


cdef enum Owner:
    NOBODY
    CONTEXT
    CLIENT                      # alone: the context had no room for it


cdef struct Ids:
    uint8_t *owners             # by id: an Owner
    uint32_t *unused            # ids up to `highest` that nobody owns
    uint32_t unused_count
    uint32_t highest            # id that there has been
    uint32_t room               # of both arrays


cdef inline uint32_t ids_take(Ids *ids) noexcept nogil:
    """An id that nobody owned, now the context's; 0 when there are too many, or no memory."""
    cdef uint32_t id
    if ids.unused_count:
        ids.unused_count -= 1
        id = ids.unused[ids.unused_count]
    elif ids.highest < MOST_IDS and (ids.highest + 1 < ids.room or ids_grow(ids)):
        ids.highest += 1
        id = ids.highest
    else:
        return 0
    ids.owners[id] = CONTEXT
    return id


cdef inline bint ids_grow(Ids *ids) noexcept nogil:
    cdef uint32_t room = 2 * ids.room if ids.room else 64
    cdef uint8_t *owners = <uint8_t *>realloc(ids.owners, room)
    cdef uint32_t *unused
    if owners == NULL:
        return False
    ids.owners = owners
    unused = <uint32_t *>realloc(ids.unused, room * sizeof(uint32_t))
    if unused == NULL:
        return False
    ids.unused = unused
    ids.room = room
    return True


cdef inline Owner ids_owner(Ids *ids, uint32_t id) noexcept nogil:
    """Who owns the resource with that id; NOBODY: there is none."""
    return <Owner>ids.owners[id] if 0 < id <= ids.highest else NOBODY


cdef inline void ids_give(Ids *ids, uint32_t id) noexcept nogil:
    """Give an id back that is owned."""
    ids.owners[id] = NOBODY
    ids.unused[ids.unused_count] = id
    ids.unused_count += 1


cdef inline void ids_free(Ids *ids) noexcept nogil:
    free(ids.owners)
    free(ids.unused)
