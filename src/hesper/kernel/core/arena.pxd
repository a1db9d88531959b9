"""Memory that one command decodes to: taken by moving a pointer, given back all at once."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from hesper.kernel.core.ledger cimport ACCOUNT_DECODED, Ledger, ledger_give, ledger_take
from hesper.kernel.core.lease cimport lease_await
from hesper.kernel.core.platform cimport (
    hesper_load_acquire, hesper_load_u64, hesper_now_ns, hesper_sleep_ns)
from hesper.kernel.core.shm_pool cimport ShmPool, pool_room


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
    # `arena_grow`, which nobody is to have in line.
    int (*grow)(Arena *arena, size_t need) noexcept nogil
    ShmPool *pool       # whose memory limit counts all chunks but the first; null: none


cdef enum:
    FIRST_CHUNK = 65536
    ROOM_NS = 10000000000       # for which a command waits for what others decode to


cdef inline int arena_init(Arena *arena, size_t limit, ShmPool *pool) noexcept nogil:
    """-1 without memory.

    pool: null, or that of the context whose memory limit counts what is taken beyond a little.
    """
    arena.grow = arena_grow
    arena.pool = NULL
    arena.chunk = NULL
    arena.next = NULL
    arena.end = NULL
    arena.total = 0
    arena.limit = limit if limit > FIRST_CHUNK else FIRST_CHUNK
    if arena_grow(arena, FIRST_CHUNK - sizeof(Chunk)):
        return -1
    arena.start = arena.next
    arena.pool = pool
    return 0


cdef inline int arena_grow(Arena *arena, size_t need) noexcept nogil:
    """Add a chunk with room for `need` bytes; -1 when that would pass the limit."""
    cdef size_t size = need + sizeof(Chunk)
    if size < need or size > arena.limit or arena.total > arena.limit - size:
        return -1
    # Double while that stays within the limit, so that few chunks serve a large command.
    if arena.total > size and arena.total <= arena.limit - arena.total:
        size = arena.total
    if arena.pool != NULL and not ledger_take(&arena.pool.ledger, ACCOUNT_DECODED, size):
        size = need + sizeof(Chunk)
        if not (lease_await(&arena.pool.ledger, ACCOUNT_DECODED, size)
                or arena_await(arena, size)):
            return -1
    cdef Chunk *chunk = <Chunk *>malloc(size)
    if chunk == NULL:
        if arena.pool != NULL:
            ledger_give(&arena.pool.ledger, ACCOUNT_DECODED, size)
        return -1
    chunk.previous = arena.chunk
    chunk.size = size
    arena.chunk = chunk
    arena.total += size
    arena.next = <uint8_t *>chunk + sizeof(Chunk)
    arena.end = <uint8_t *>chunk + size
    return 0


cdef inline bint arena_await(Arena *arena, uint64_t size) noexcept nogil:
    """Take bytes of the memory limit, if need be those that commands of other streams give back.

    False, with the limit noted, when they are not left; no lock is held.
    """
    cdef Ledger *ledger = &arena.pool.ledger
    cdef uint64_t own = arena.total - FIRST_CHUNK
    cdef uint64_t until = hesper_now_ns() + <uint64_t>ROOM_NS
    while not ledger_take(ledger, ACCOUNT_DECODED, size):
        if (hesper_load_u64(&ledger.held[ACCOUNT_DECODED]) <= own or hesper_now_ns() > until
                or hesper_load_acquire(&ledger.ending)):
            return pool_room(arena.pool, ACCOUNT_DECODED, size)
        hesper_sleep_ns(1000000)
    return True


cdef inline void chunk_free(Arena *arena, Chunk *chunk) noexcept nogil:
    """Free a chunk that is not the first, and in the list no more."""
    arena.total -= chunk.size
    if arena.pool != NULL:
        ledger_give(&arena.pool.ledger, ACCOUNT_DECODED, chunk.size)
    free(chunk)


cdef inline void *arena_take(Arena *arena, size_t size) noexcept nogil:
    """`size` bytes, 8-byte aligned, not cleared; null when the limit is reached."""
    cdef size_t rounded = (size + 7) & ~<size_t>7
    if rounded < size:
        return NULL
    if <size_t>(arena.end - arena.next) < rounded and arena.grow(arena, rounded):
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
        chunk_free(arena, chunk)
        chunk = previous
    arena.chunk = chunk
    arena.end = <uint8_t *>chunk + chunk.size


cdef inline void arena_rewind(Arena *arena, Arena *mark) noexcept nogil:
    """Give back what was taken since `mark` was copied from `arena`."""
    cdef Chunk *chunk
    while arena.chunk != mark.chunk:
        chunk = arena.chunk
        arena.chunk = chunk.previous
        chunk_free(arena, chunk)
    arena.next = mark.next
    arena.end = mark.end


cdef inline void arena_free(Arena *arena) noexcept nogil:
    if arena.chunk != NULL:
        arena_shrink(arena)
        free(arena.chunk)
        arena.chunk = NULL
