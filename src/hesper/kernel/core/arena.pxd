"""Memory that one command decodes to: taken by moving a pointer, given back all at once."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset


cdef struct Chunk:
    Chunk *previous
    size_t size


cdef struct Arena:
    uint8_t *next
    uint8_t *end
    uint8_t *start      # of the first chunk's memory
    Chunk *chunk        # the newest; its memory follows it
    size_t total        # bytes in all chunks
    size_t limit


cdef enum:
    FIRST_CHUNK = 65536


cdef inline int arena_init(Arena *arena, size_t limit) noexcept nogil:
    arena.chunk = NULL
    arena.next = NULL
    arena.end = NULL
    arena.total = 0
    arena.limit = limit if limit > FIRST_CHUNK else FIRST_CHUNK
    if arena_grow(arena, FIRST_CHUNK - sizeof(Chunk)):
        return -1
    arena.start = arena.next
    return 0


cdef inline int arena_grow(Arena *arena, size_t need) noexcept nogil:
    """Add a chunk with room for `need` bytes; -1 when that would pass the limit."""
    cdef size_t size = need + sizeof(Chunk)
    if size < need or size > arena.limit or arena.total > arena.limit - size:
        return -1
    # Double while that stays within the limit, so that few chunks serve a large command.
    if arena.total > size and arena.total <= arena.limit - arena.total:
        size = arena.total
    cdef Chunk *chunk = <Chunk *>malloc(size)
    if chunk == NULL:
        return -1
    chunk.previous = arena.chunk
    chunk.size = size
    arena.chunk = chunk
    arena.total += size
    arena.next = <uint8_t *>chunk + sizeof(Chunk)
    arena.end = <uint8_t *>chunk + size
    return 0


cdef inline void *arena_take(Arena *arena, size_t size) noexcept nogil:
    """`size` bytes, 8-byte aligned, not cleared; null when the limit is reached."""
    cdef size_t rounded = (size + 7) & ~<size_t>7
    if rounded < size:
        return NULL
    if <size_t>(arena.end - arena.next) < rounded and arena_grow(arena, rounded):
        return NULL
    cdef void *memory = arena.next
    arena.next += rounded
    return memory


cdef inline void *arena_take_zeroed(Arena *arena, size_t size) noexcept nogil:
    cdef void *memory = arena_take(arena, size)
    if memory != NULL:
        memset(memory, 0, size)
    return memory


cdef inline void *arena_take_array(Arena *arena, uint64_t count, uint32_t size) noexcept nogil:
    """Room for `count` elements; at least one byte, so that the pointer is never null for none."""
    if count >> 32:
        return NULL
    return arena_take(arena, count * size if count else 1)


cdef inline void arena_reset(Arena *arena) noexcept nogil:
    # The newest chunk's memory starts behind its head; the first one's start is known.
    if <uint8_t *>arena.chunk + sizeof(Chunk) != arena.start:
        arena_shrink(arena)
    arena.next = arena.start


cdef inline void arena_shrink(Arena *arena) noexcept nogil:
    """Free all chunks but the first."""
    cdef Chunk *chunk = arena.chunk
    cdef Chunk *previous
    while chunk.previous != NULL:
        previous = chunk.previous
        arena.total -= chunk.size
        free(chunk)
        chunk = previous
    arena.chunk = chunk
    arena.end = <uint8_t *>chunk + chunk.size


cdef inline void arena_rewind(Arena *arena, Arena *mark) noexcept nogil:
    """Give back what was taken since `mark` was copied from `arena`."""
    cdef Chunk *chunk
    while arena.chunk != mark.chunk:
        chunk = arena.chunk
        arena.chunk = chunk.previous
        arena.total -= chunk.size
        free(chunk)
    arena.next = mark.next
    arena.end = mark.end


cdef inline void arena_free(Arena *arena) noexcept nogil:
    if arena.chunk != NULL:
        arena_shrink(arena)
        free(arena.chunk)
        arena.chunk = NULL
