"""What a context is told, noted for a recording: records, in memory until somebody takes them.

A context without a tape has a null pointer for it, and pays for nothing.  See docs/recordings.md
for how records lie, `hesper.trace.records` for who reads them.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from hesper.kernel.core.platform cimport (
    hesper_load_acquire, hesper_load_ordered, hesper_monitor,
    hesper_monitor_destroy, hesper_monitor_init, hesper_monitor_wait_for, hesper_now_ns,
    hesper_store_ordered, hesper_store_release, pthread_cond_broadcast, pthread_mutex_destroy,
    pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock)
from hesper.kernel.core.shm_pool cimport ShmPool, ShmRegion, region_release

cdef extern from "tape.h" nogil:
    enum:
        HESPER_TAPE_PAGE
    uint64_t hesper_page_number(const void *at, size_t size)
    uint64_t hesper_pages_there(int fd, uint64_t start, uint64_t size, uint64_t *end)
    void hesper_tape_write(int fd, const void *data, size_t size)
    void hesper_tape_pause()


cdef enum:
    CHUNK_HEAD = 24             # bytes, see `hesper.trace.chunks`
    TAPE_ROOM = 8 << 20         # bytes of records that may wait to be taken, and again that are
    TAPE_PIECE = 1 << 20        # of a record; longer ones are cut
    TAPE_ENOUGH = 1 << 20       # bytes that are taken at once, without waiting for more
    TAPE_RUNNING = 64           # streams whose command is known when the process dies
    TAPE_FAILED = 65536         # bytes that are kept of a stream behind what has failed

    TAPE_COMMAND = 1
    TAPE_BEGUN = 2
    TAPE_MEMORY = 3
    TAPE_BLOB = 4
    TAPE_GONE = 5
    TAPE_FENCE = 6
    TAPE_RETIRED = 7
    TAPE_IMPORT = 8
    TAPE_END = 9
    TAPE_LAST = 10
    TAPE_UNFINISHED = 11
    TAPE_WHOLE = 12

    TAPE_MORE = 1
    TAPE_NESTED = 2
    TAPE_IS_FAILED = 4
    TAPE_REPLIED = 8


cdef struct TapeHead:
    uint8_t kind
    uint8_t flags
    uint8_t zero[2]
    uint32_t size
    uint64_t time
    uint64_t stream


cdef struct TapeBlob:
    uint32_t resource
    uint32_t flags
    uint64_t memory
    uint64_t size


cdef struct TapeFence:
    uint32_t timeline
    uint32_t lost
    uint64_t number


cdef struct TapePlace:
    uint32_t resource
    uint32_t zero
    uint64_t offset


cdef struct TapeCommand:
    uint64_t duration
    uint32_t reply
    uint32_t zero


cdef struct TapeMemory:
    # Memory that the guest can write to: a resource of a VkDeviceMemory.
    uint32_t resource
    bint apart                  # somebody besides the guest may map it
    ShmRegion *region           # one ownership
    uint64_t size
    uint64_t *pages             # of each, its number when it was recorded last; 0: a page of zeros
    TapeMemory *next


cdef struct TapeRunning:
    uint32_t used
    uint64_t stream
    const uint8_t *begin        # of the command that runs; null: none
    const uint8_t *end


cdef struct Tape:
    hesper_monitor monitor      # guards what follows; signalled when there is enough, or room
    uint8_t *filling
    uint64_t filled
    uint8_t *taken
    uint64_t start_ns
    uint64_t fences
    bint closed                 # nothing more comes
    uint32_t over               # nothing more is wanted
    pthread_mutex_t lock        # guards the memories; taken before the monitor, never after it
    TapeMemory *memories
    uint32_t wants_whole        # all memory is to be recorded before the next submission
    ShmPool *pool
    uint64_t zeros              # the number of a page of zeros
    uint8_t *copy               # of pages, TAPE_PIECE bytes
    TapeRunning running[TAPE_RUNNING]
    # For a process that dies: where the file is, and whether somebody else is writing to it.
    int fd
    uint32_t writing
    uint32_t dying
    uint32_t number             # of the next chunk


cdef inline uint8_t *room_new() noexcept nogil:
    """Room for records, and for the head of a chunk before them; null without memory."""
    cdef uint8_t *room = <uint8_t *>malloc(CHUNK_HEAD + TAPE_ROOM)
    return room + CHUNK_HEAD if room != NULL else NULL


cdef inline void room_free(uint8_t *room) noexcept nogil:
    if room != NULL:
        free(room - CHUNK_HEAD)


cdef inline Tape *tape_new() noexcept nogil:
    """A tape, or null."""
    cdef Tape *tape = <Tape *>calloc(1, sizeof(Tape))
    if tape == NULL:
        return NULL
    tape.filling = room_new()
    tape.taken = room_new()
    tape.copy = <uint8_t *>calloc(1, TAPE_PIECE)
    tape.fd = -1
    tape.start_ns = hesper_now_ns()
    if (tape.filling == NULL or tape.taken == NULL or tape.copy == NULL
            or hesper_monitor_init(&tape.monitor)):
        room_free(tape.filling)
        room_free(tape.taken)
        free(tape.copy)
        free(tape)
        return NULL
    pthread_mutex_init(&tape.lock, NULL)
    tape.zeros = hesper_page_number(tape.copy, HESPER_TAPE_PAGE)
    return tape


cdef inline void tape_free(Tape *tape) noexcept nogil:
    if tape == NULL:
        return
    while tape.memories != NULL:
        tape_drop(tape, tape.memories.resource)
    hesper_monitor_destroy(&tape.monitor)
    pthread_mutex_destroy(&tape.lock)
    room_free(tape.filling)
    room_free(tape.taken)
    free(tape.copy)
    free(tape)


cdef inline uint64_t tape_now(const Tape *tape) noexcept nogil:
    return hesper_now_ns() - tape.start_ns


# Records.

cdef inline void tape_piece(Tape *tape, TapeHead *head, const void *first, uint64_t first_size,
                            const void *second, uint64_t second_size) noexcept nogil:
    """Put one piece; the monitor is held, and let go while there is no room."""
    cdef uint8_t *to
    head.size = <uint32_t>(first_size + second_size)
    while (tape.filled + sizeof(head[0]) + head.size > TAPE_ROOM
           and not tape.closed and not tape.over):
        hesper_monitor_wait_for(&tape.monitor, 100000000)
    if tape.closed or tape.over or hesper_load_acquire(&tape.dying):
        return
    to = tape.filling + tape.filled
    memcpy(to, head, sizeof(head[0]))
    if first_size:
        memcpy(to + sizeof(head[0]), first, first_size)
    if second_size:
        memcpy(to + sizeof(head[0]) + first_size, second, second_size)
    tape.filled += sizeof(head[0]) + head.size


cdef inline void tape_put(Tape *tape, TapeHead *head, const void *first, uint64_t first_size,
                          const void *second, uint64_t second_size, const void *third,
                          uint64_t third_size) noexcept nogil:
    """Put a record of three parts, in so many pieces as it takes."""
    cdef uint8_t flags = head.flags
    cdef const uint8_t *data
    cdef uint64_t left
    cdef uint64_t size
    cdef uint64_t before
    cdef int part
    pthread_mutex_lock(&tape.monitor.mutex)
    before = tape.filled
    if second_size + third_size <= TAPE_PIECE:
        if third_size == 0:
            tape_piece(tape, head, first, first_size, second, second_size)
        else:
            head.flags = flags | TAPE_MORE
            tape_piece(tape, head, first, first_size, second, second_size)
            head.flags = flags
            tape_piece(tape, head, third, third_size, NULL, 0)
    else:
        head.flags = flags | TAPE_MORE
        tape_piece(tape, head, first, first_size, NULL, 0)
        for part in range(2):
            data = <const uint8_t *>second if part == 0 else <const uint8_t *>third
            left = second_size if part == 0 else third_size
            while left:
                size = left if left < TAPE_PIECE else TAPE_PIECE
                tape_piece(tape, head, data, size, NULL, 0)
                data += size
                left -= size
        head.flags = flags
        tape_piece(tape, head, NULL, 0, NULL, 0)
    if before < TAPE_ENOUGH <= tape.filled:
        pthread_cond_broadcast(&tape.monitor.condition)
    pthread_mutex_unlock(&tape.monitor.mutex)


cdef inline void tape_say(Tape *tape, uint8_t kind, uint64_t stream, const void *body,
                          uint64_t size) noexcept nogil:
    """Put a record of one part."""
    cdef TapeHead head
    memset(&head, 0, sizeof(head))
    head.kind = kind
    head.time = tape_now(tape)
    head.stream = stream
    tape_put(tape, &head, body, size, NULL, 0, NULL, 0)


cdef inline uint64_t tape_take(Tape *tape, uint64_t patience_ns) noexcept nogil:
    """Have what was noted in `taken`; how many bytes.  0 after the patience, or in the end."""
    cdef uint8_t *filled
    cdef uint64_t size
    pthread_mutex_lock(&tape.monitor.mutex)
    if tape.filled < TAPE_ENOUGH and not tape.closed:
        hesper_monitor_wait_for(&tape.monitor, patience_ns)
    # Who dies says so first, and then looks whether somebody writes.
    hesper_store_ordered(&tape.writing, 1)
    while hesper_load_ordered(&tape.dying):
        hesper_store_release(&tape.writing, 0)
        hesper_tape_pause()
    filled = tape.filling
    size = tape.filled
    tape.filling = tape.taken
    tape.filled = 0
    tape.taken = filled
    if size == 0:
        hesper_store_release(&tape.writing, 0)
    pthread_cond_broadcast(&tape.monitor.condition)
    pthread_mutex_unlock(&tape.monitor.mutex)
    return size


cdef inline void tape_close(Tape *tape) noexcept nogil:
    """Note nothing any more."""
    pthread_mutex_lock(&tape.monitor.mutex)
    tape.closed = True
    pthread_cond_broadcast(&tape.monitor.condition)
    pthread_mutex_unlock(&tape.monitor.mutex)


# Memory.

cdef inline uint64_t page_count(uint64_t size) noexcept nogil:
    return (size + HESPER_TAPE_PAGE - 1) // HESPER_TAPE_PAGE


cdef inline void tape_add(Tape *tape, ShmPool *pool, ShmRegion *region, const TapeBlob *blob,
                          bint apart) noexcept nogil:
    """Look at a resource's memory from now on; takes over an ownership of its region."""
    cdef TapeMemory *memory = <TapeMemory *>calloc(1, sizeof(TapeMemory))
    if memory != NULL:
        memory.pages = <uint64_t *>calloc(page_count(blob.size), sizeof(uint64_t))
    if memory == NULL or memory.pages == NULL:
        free(memory)
        region_release(pool, region)
        return
    memory.resource = blob.resource
    memory.apart = apart
    memory.region = region
    memory.size = blob.size
    pthread_mutex_lock(&tape.lock)
    tape.pool = pool
    memory.next = tape.memories
    tape.memories = memory
    pthread_mutex_unlock(&tape.lock)


cdef inline void tape_drop(Tape *tape, uint32_t resource) noexcept nogil:
    """Look at it no more."""
    cdef TapeMemory **link = &tape.memories
    cdef TapeMemory *memory
    pthread_mutex_lock(&tape.lock)
    while link[0] != NULL and link[0].resource != resource:
        link = &link[0].next
    memory = link[0]
    if memory != NULL:
        link[0] = memory.next
    pthread_mutex_unlock(&tape.lock)
    if memory != NULL:
        region_release(tape.pool, memory.region)
        free(memory.pages)
        free(memory)


cdef inline void tape_look(Tape *tape, TapeMemory *memory, uint8_t kind,
                           uint64_t stream) noexcept nogil:
    """Record the pages of one memory that are not what they were; the lock is held."""
    cdef uint64_t at = 0
    cdef uint64_t end = 0
    cdef uint64_t number
    cdef uint64_t run = 0       # where the changed pages begin that are in the copy
    cdef uint64_t held = 0
    cdef uint64_t size
    while at < memory.size:
        if at >= end:
            at = hesper_pages_there(memory.region.fd, at, memory.size, &end)
            at &= ~<uint64_t>(HESPER_TAPE_PAGE - 1)
            if at >= memory.size:
                break
        size = memory.size - at
        if size > HESPER_TAPE_PAGE:
            size = HESPER_TAPE_PAGE
        number = hesper_page_number(memory.region.data + at, size) ^ tape.zeros
        if number != memory.pages[at // HESPER_TAPE_PAGE]:
            if held and (run + held != at or held + size > TAPE_PIECE):
                tape_pages(tape, memory, kind, stream, run, held)
                held = 0
            if held == 0:
                run = at
            memory.pages[at // HESPER_TAPE_PAGE] = number
            memcpy(tape.copy + held, memory.region.data + at, size)
            held += size
        at += size
    if held:
        tape_pages(tape, memory, kind, stream, run, held)


cdef inline void tape_pages(Tape *tape, TapeMemory *memory, uint8_t kind, uint64_t stream,
                            uint64_t offset, uint64_t size) noexcept nogil:
    cdef TapeHead head
    cdef TapePlace place
    memset(&head, 0, sizeof(head))
    head.kind = kind
    head.time = tape_now(tape)
    head.stream = stream
    place.resource = memory.resource
    place.zero = 0
    place.offset = offset
    tape_put(tape, &head, &place, sizeof(place), tape.copy, size, NULL, 0)


cdef inline void tape_memories(Tape *tape, uint64_t stream) noexcept nogil:
    """Record what the guest has written since the last time, or everything where that is wanted.

    Not of memory that it shares with others: that is mostly pictures, drawn by the device.
    """
    cdef TapeMemory *memory
    if hesper_load_acquire(&tape.over):
        return
    pthread_mutex_lock(&tape.lock)
    if hesper_load_acquire(&tape.wants_whole):
        hesper_store_release(&tape.wants_whole, 0)
        memory = tape.memories
        while memory != NULL:
            memset(memory.pages, 0, page_count(memory.size) * sizeof(uint64_t))
            memory = memory.next
        tape_say(tape, TAPE_WHOLE, stream, NULL, 0)
    memory = tape.memories
    while memory != NULL:
        if not memory.apart:
            tape_look(tape, memory, TAPE_MEMORY, stream)
        memory = memory.next
    pthread_mutex_unlock(&tape.lock)


cdef inline void tape_last(Tape *tape, uint32_t resource) noexcept nogil:
    """Record what a resource, or each for 0, holds in the end."""
    cdef TapeMemory *memory
    pthread_mutex_lock(&tape.lock)
    memory = tape.memories
    while memory != NULL:
        if resource == 0 or memory.resource == resource:
            tape_look(tape, memory, TAPE_LAST, 0)
        memory = memory.next
    pthread_mutex_unlock(&tape.lock)


# What runs.

cdef inline TapeRunning *tape_running(Tape *tape, uint64_t stream) noexcept nogil:
    """Where it is noted what a stream runs; null: there is no place."""
    cdef uint32_t i
    cdef TapeRunning *running = NULL
    pthread_mutex_lock(&tape.monitor.mutex)
    for i in range(TAPE_RUNNING):
        if tape.running[i].used == 0:
            tape.running[i].used = 1
            tape.running[i].stream = stream
        if tape.running[i].stream == stream:
            running = &tape.running[i]
            break
    pthread_mutex_unlock(&tape.monitor.mutex)
    return running


# The end.

cdef extern from "last_words.h" nogil:
    void hesper_have_last_words(void (*say)(void *) noexcept nogil, void *data)
    void hesper_forget_last_words(const void *data)


cdef enum:
    CHUNK_RECORDS = 1
    LAST_PATIENCE = 3000        # milliseconds for who is writing to the file


cdef inline void put_u32(uint8_t *at, uint32_t value) noexcept nogil:
    memcpy(at, &value, sizeof(value))


cdef inline void say_last(void *data) noexcept nogil:
    """Write what was not taken, and what was running, as a plain chunk: from a signal's handler."""
    cdef Tape *tape = <Tape *>data
    cdef TapeHead head
    cdef uint8_t *chunk
    cdef uint64_t size
    cdef uint64_t rest
    cdef uint32_t i
    cdef int patience = LAST_PATIENCE
    cdef const uint8_t *begin
    if tape.fd < 0 or tape.closed or tape.over:
        return
    hesper_store_ordered(&tape.dying, 1)
    while hesper_load_ordered(&tape.writing) and patience:
        hesper_tape_pause()
        patience -= 1
    size = tape.filled
    memset(&head, 0, sizeof(head))
    head.kind = TAPE_UNFINISHED
    head.time = tape_now(tape)
    for i in range(TAPE_RUNNING):
        begin = tape.running[i].begin
        if begin == NULL:
            continue
        rest = <uint64_t>(tape.running[i].end - begin)
        if rest > TAPE_FAILED:
            rest = TAPE_FAILED
        if size + sizeof(head) + rest > TAPE_ROOM:
            break
        head.stream = tape.running[i].stream
        head.size = <uint32_t>rest
        memcpy(tape.filling + size, &head, sizeof(head))
        memcpy(tape.filling + size + sizeof(head), begin, rest)
        size += sizeof(head) + rest
    if size == 0:
        return
    # In one piece: who was still writing comes before it, or behind.
    chunk = tape.filling - CHUNK_HEAD
    memset(chunk, 0, CHUNK_HEAD)
    memcpy(chunk, b"HCNK", 4)
    chunk[5] = CHUNK_RECORDS
    put_u32(chunk + 8, tape.number)
    put_u32(chunk + 12, <uint32_t>size)
    put_u32(chunk + 16, <uint32_t>size)
    hesper_tape_write(tape.fd, chunk, CHUNK_HEAD + size)


cdef inline void tape_die_with(Tape *tape) noexcept nogil:
    hesper_have_last_words(say_last, tape)


cdef inline void tape_survive(Tape *tape) noexcept nogil:
    hesper_forget_last_words(tape)
