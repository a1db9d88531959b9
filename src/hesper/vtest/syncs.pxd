"""Timeline syncs: 64-bit counters that a client waits for by polling a descriptor.

The socket's thread creates, reads, writes and waits; whichever thread retires a fence signals.
"""

from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc

from hesper_vtest_wire cimport Point as WirePoint

from hesper.kernel.core.platform cimport (
    hesper_now_ns, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t,
    pthread_mutex_unlock)
from hesper.sockets.connection cimport close, hesper_is_left, hesper_pipe


cdef extern from "<unistd.h>" nogil:
    ssize_t write(int fd, const void *data, size_t size)


cdef enum:
    MOST_SYNCS = 65536          # that a client may have at a time
    MOST_WAITS = 1024           # unfinished ones; each holds a descriptor here
    MOST_BATCHES = 1 << 16      # whose fence is pending
    MOST_SIGNALS = 1 << 20      # points of all of those
    MOST_PARKED = 64            # ends of pipes that clients may still look at
    ENDLESS_MS = 0x7fffffff     # longer time-outs mean for ever


cdef struct Sync:
    uint64_t value
    bint lost                   # what set it last was a fence of a lost device
    uint32_t owners             # its id, and the points that name it
    uint32_t awaited            # points of unfinished waits


cdef struct Point:
    Sync *sync
    uint64_t value


cdef struct Wait:
    # Its client polls the other end of `write_fd`.
    int write_fd
    bint either
    bint lost                   # for a sync that a lost device was to signal
    uint64_t deadline           # ns; 0: none
    uint32_t count
    Point *points               # that are not reached
    Wait *next                  # of those that are not over, or of those that are


cdef struct Syncs:
    # All syncs of one client.
    pthread_mutex_t lock        # guards everything here, values included
    uint32_t owners             # the server, and batches whose fence is pending
    uint32_t signals            # points of those batches
    bint closed
    Sync **syncs                # by id - 1
    uint32_t *free_ids
    uint32_t size
    uint32_t free_count
    Wait *waits
    uint32_t wait_count
    # Ends of waits that are over.  Linux looks for data in a pipe and for its writers one after the
    # other, without a lock: a client that begins to poll while the other end writes and closes may
    # hear of the end and not of the data, and Mesa takes that for a lost device.  So these stay
    # open until the client has closed its end; when this process dies, it is to hear of that.
    int parked[MOST_PARKED]
    uint32_t parked_count
    int spare[2]                # a pipe for the next wait; -1: none
    # Most waits are over before they begin, or are polls: they share descriptors.
    int ready_fd
    # Its other end is closed, and nothing was written: Mesa takes that for a lost device
    # (`vn_renderer_vtest.c`).
    int lost_fd
    int never_fd
    int never_write_fd


cdef struct Batch:
    # Syncs that a fence will signal.
    Syncs *syncs
    uint32_t count
    Point points[1]             # and more


cdef inline Syncs *syncs_new() except NULL:
    cdef int ends[2]
    cdef Syncs *s = <Syncs *>calloc(1, sizeof(Syncs))
    if s == NULL:
        raise MemoryError
    s.owners = 1
    s.spare[0] = -1
    if hesper_pipe(ends):
        free(s)
        raise OSError(errno, "no descriptors for a client's syncs")
    s.ready_fd = ends[0]
    write(ends[1], b"\1", 1)
    close(ends[1])
    if hesper_pipe(ends):
        close(s.ready_fd)
        free(s)
        raise OSError(errno, "no descriptors for a client's syncs")
    s.lost_fd = ends[0]
    close(ends[1])
    if hesper_pipe(ends):
        close(s.ready_fd)
        close(s.lost_fd)
        free(s)
        raise OSError(errno, "no descriptors for a client's syncs")
    s.never_fd = ends[0]
    s.never_write_fd = ends[1]
    pthread_mutex_init(&s.lock, NULL)
    return s


cdef inline void sync_release(Sync *sync) noexcept nogil:
    sync.owners -= 1
    if sync.owners == 0:
        free(sync)


cdef inline Sync *sync_find(Syncs *s, uint32_t id) noexcept nogil:
    return s.syncs[id - 1] if 0 < id <= s.size else NULL


cdef inline uint32_t sync_create(Syncs *s, uint64_t value) noexcept nogil:
    """Make a sync that stands at `value`; its id, 0 when there are too many."""
    cdef uint32_t size = 2 * s.size if s.size else 64
    cdef uint32_t id
    cdef Sync **syncs
    cdef uint32_t *free_ids
    cdef Sync *sync
    if s.free_count == 0:
        if s.size >= MOST_SYNCS:
            return 0
        syncs = <Sync **>realloc(s.syncs, size * sizeof(Sync *))
        if syncs == NULL:
            return 0
        s.syncs = syncs
        free_ids = <uint32_t *>realloc(s.free_ids, size * sizeof(uint32_t))
        if free_ids == NULL:
            return 0
        s.free_ids = free_ids
        # The lowest id is the next one.
        for id in range(size, s.size, -1):
            s.syncs[id - 1] = NULL
            s.free_ids[s.free_count] = id
            s.free_count += 1
        s.size = size
    sync = <Sync *>calloc(1, sizeof(Sync))
    if sync == NULL:
        return 0
    s.free_count -= 1
    id = s.free_ids[s.free_count]
    sync.value = value
    sync.owners = 1
    s.syncs[id - 1] = sync
    return id


cdef inline void sync_forget(Syncs *s, uint32_t id) noexcept nogil:
    """Forget an id that there is.  The sync lives on as long as waits or fences hold it."""
    cdef Sync *sync = s.syncs[id - 1]
    s.syncs[id - 1] = NULL
    s.free_ids[s.free_count] = id
    s.free_count += 1
    sync_release(sync)


cdef inline void point_drop(Wait *wait, uint32_t index) noexcept nogil:
    """Take a point off a wait; the last one takes its place."""
    cdef Sync *sync = wait.points[index].sync
    wait.count -= 1
    wait.points[index] = wait.points[wait.count]
    sync.awaited -= 1
    sync_release(sync)


cdef inline void syncs_unpark(Syncs *s) noexcept nogil:
    """Close the ends of pipes whose clients have closed theirs; the lock is held."""
    cdef uint32_t kept = 0
    cdef uint32_t i
    for i in range(s.parked_count):
        if hesper_is_left(s.parked[i]):
            close(s.parked[i])
        else:
            s.parked[kept] = s.parked[i]
            kept += 1
    s.parked_count = kept


cdef inline void syncs_provide(Syncs *s) noexcept nogil:
    """Have a pipe for the next wait; the lock is held."""
    if s.spare[0] < 0 and hesper_pipe(s.spare):
        s.spare[0] = -1


cdef inline void park(Syncs *s, int fd) noexcept nogil:
    """Keep the end of a wait that is over until its client has closed the other."""
    cdef uint32_t i
    if s.closed:
        close(fd)
        return
    if s.parked_count == MOST_PARKED:
        syncs_unpark(s)
    if s.parked_count == MOST_PARKED:
        # A client that keeps so many has had time to look at the oldest.
        close(s.parked[0])
        s.parked_count -= 1
        for i in range(s.parked_count):
            s.parked[i] = s.parked[i + 1]
    s.parked[s.parked_count] = fd
    s.parked_count += 1


cdef inline Wait *wait_unlink(Syncs *s, Wait **link) noexcept nogil:
    """Take a wait that is over out of the others."""
    cdef Wait *wait = link[0]
    link[0] = wait.next
    s.wait_count -= 1
    while wait.count:
        point_drop(wait, wait.count - 1)
    free(wait.points)
    return wait


cdef inline void wait_drop(Syncs *s, Wait **link) noexcept nogil:
    """Forget a wait that nobody waits for any more."""
    cdef Wait *wait = wait_unlink(s, link)
    park(s, wait.write_fd)
    free(wait)


cdef inline Wait *syncs_advance(Syncs *s) noexcept nogil:
    """Take out the waits whose points are reached by now; they are for `syncs_wake`."""
    cdef Wait *over = NULL
    cdef Wait **link = &s.waits
    cdef Wait *wait
    cdef uint32_t before
    cdef uint32_t i
    while link[0] != NULL:
        wait = link[0]
        before = wait.count
        i = 0
        while i < wait.count:
            if wait.points[i].sync.value >= wait.points[i].value:
                wait.lost = wait.lost or wait.points[i].sync.lost
                point_drop(wait, i)
            else:
                i += 1
        if wait.count == 0 or (wait.either and wait.count < before):
            wait_unlink(s, link)
            wait.next = over
            over = wait
        else:
            link = &wait.next
    return over


cdef inline Wait *syncs_signal(Syncs *s, const Point *points, uint32_t count,
                               bint lost) noexcept nogil:
    """Set syncs to values; returns the waits that were for them.  The lock is held.

    lost: whether a lost device was to do so.
    """
    cdef bint awaited = False
    cdef uint32_t i
    for i in range(count):
        awaited = awaited or (points[i].sync.awaited != 0
                              and points[i].value > points[i].sync.value)
        points[i].sync.value = points[i].value
        points[i].sync.lost = lost
    return syncs_advance(s) if awaited else NULL


cdef inline void syncs_wake(Syncs *s, Wait *over) noexcept nogil:
    """Tell the clients of waits that they are over.

    The lock is not held: a client that is woken takes this processor, and its next message the
    lock.
    """
    cdef Wait *wait
    while over != NULL:
        wait = over
        over = wait.next
        if wait.lost:
            close(wait.write_fd)
        else:
            # The client may have stopped polling and closed its end.
            write(wait.write_fd, b"\1", 1)
            pthread_mutex_lock(&s.lock)
            park(s, wait.write_fd)
            pthread_mutex_unlock(&s.lock)
        free(wait)


cdef inline void syncs_release(Syncs *s) noexcept nogil:
    """Give up one ownership; the lock is held, and is not when this returns."""
    s.owners -= 1
    if s.owners:
        pthread_mutex_unlock(&s.lock)
        return
    pthread_mutex_unlock(&s.lock)
    pthread_mutex_destroy(&s.lock)
    free(s.syncs)
    free(s.free_ids)
    free(s)


cdef inline void syncs_close(Syncs *s) noexcept nogil:
    """Drop every wait and close all descriptors.  Later signals do nothing visible."""
    cdef uint32_t i
    pthread_mutex_lock(&s.lock)
    while s.waits != NULL:
        wait_drop(s, &s.waits)
    s.closed = True
    for i in range(s.parked_count):
        close(s.parked[i])
    s.parked_count = 0
    for i in range(s.size):
        if s.syncs[i] != NULL:
            sync_release(s.syncs[i])
            s.syncs[i] = NULL
    if s.spare[0] >= 0:
        close(s.spare[0])
        close(s.spare[1])
    close(s.ready_fd)
    close(s.lost_fd)
    close(s.never_fd)
    close(s.never_write_fd)
    syncs_release(s)


cdef inline void batch_retired(void *data, bint lost) noexcept nogil:
    """A fence is through, or its device lost: signal what stands in its batch."""
    cdef Batch *batch = <Batch *>data
    cdef Syncs *s = batch.syncs
    cdef Wait *over
    cdef uint32_t i
    pthread_mutex_lock(&s.lock)
    over = syncs_signal(s, batch.points, batch.count, lost)
    for i in range(batch.count):
        sync_release(batch.points[i].sync)
    s.signals -= batch.count
    pthread_mutex_unlock(&s.lock)
    syncs_wake(s, over)
    pthread_mutex_lock(&s.lock)
    syncs_release(s)
    free(batch)


cdef inline Batch *batch_new(Syncs *s, const WirePoint *asked, uint32_t count,
                             int64_t *unknown) noexcept nogil:
    """What is to be signalled later.

    Null with the first id in `unknown` that does not exist, or -1: too many are pending, or there
    is no memory.
    """
    cdef Batch *batch
    cdef uint32_t i
    cdef bint room
    pthread_mutex_lock(&s.lock)
    room = s.owners <= MOST_BATCHES and s.signals + count <= MOST_SIGNALS
    pthread_mutex_unlock(&s.lock)
    batch = <Batch *>malloc(sizeof(Batch) + count * sizeof(Point)) if room else NULL
    if batch == NULL:
        return NULL
    batch.syncs = s
    batch.count = count
    if not points_read(s, asked, count, batch.points, unknown):
        free(batch)
        return NULL
    pthread_mutex_lock(&s.lock)
    s.owners += 1
    s.signals += count
    for i in range(count):
        batch.points[i].sync.owners += 1
    pthread_mutex_unlock(&s.lock)
    return batch


cdef inline bint points_read(Syncs *s, const WirePoint *asked, uint32_t count, Point *points,
                             int64_t *unknown) noexcept nogil:
    """Find what the points of a message name; False with an unknown id noted."""
    cdef uint32_t i
    for i in range(count):
        points[i].sync = sync_find(s, asked[i].sync)
        points[i].value = asked[i].value
        if points[i].sync == NULL:
            unknown[0] = asked[i].sync
            return False
    return True


cdef inline bint is_over(uint32_t count, uint32_t left, bint either) noexcept nogil:
    """Whether a wait for all (or any) of `count` points is, when `left` are not reached."""
    return left == 0 or (either and left < count)


cdef inline bint points_are_reached(Syncs *s, const Point *points, uint32_t count,
                                    bint either) noexcept nogil:
    """Whether a wait for all (or any) of these points would be over at once."""
    cdef uint32_t left = 0
    cdef uint32_t i
    pthread_mutex_lock(&s.lock)
    for i in range(count):
        left += points[i].sync.value < points[i].value
    pthread_mutex_unlock(&s.lock)
    return is_over(count, left, either)


cdef inline int wait_begin(Syncs *s, Point *points, uint32_t count, bint either,
                           uint32_t timeout_ms, bint *owned) noexcept nogil:
    """Begin a wait; a descriptor that becomes readable when all (or any) points are reached.

    points: from malloc; taken over.  owned: whether the caller must close the descriptor.
    A wait whose time-out has passed is dropped some time after.  -1: too many waits, or no
    descriptors or memory.
    """
    cdef int fd
    pthread_mutex_lock(&s.lock)
    fd = wait_add(s, points, count, either, timeout_ms, owned)
    pthread_mutex_unlock(&s.lock)
    return fd


cdef inline int wait_add(Syncs *s, Point *points, uint32_t count, bint either, uint32_t timeout_ms,
                         bint *owned) noexcept nogil:
    cdef uint64_t now = hesper_now_ns()
    cdef uint32_t left = 0
    cdef uint32_t i
    cdef int fd
    cdef bint lost = False
    cdef Wait **link = &s.waits
    cdef Wait *wait
    owned[0] = False
    for i in range(count):
        if points[i].sync.value < points[i].value:
            points[left] = points[i]
            left += 1
        else:
            lost = lost or points[i].sync.lost
    if is_over(count, left, either) or timeout_ms == 0:
        free(points)
        if not is_over(count, left, either):
            return s.never_fd
        return s.lost_fd if lost else s.ready_fd
    while link[0] != NULL:
        if link[0].deadline and link[0].deadline < now:
            wait_drop(s, link)
        else:
            link = &link[0].next
    syncs_provide(s)
    wait = <Wait *>calloc(1, sizeof(Wait)) if s.wait_count < MOST_WAITS else NULL
    if wait == NULL or s.spare[0] < 0:
        free(wait)
        free(points)
        return -1
    wait.write_fd = s.spare[1]
    wait.either = either
    wait.lost = lost
    wait.deadline = now + timeout_ms * <uint64_t>1000000 if timeout_ms <= ENDLESS_MS else 0
    wait.count = left
    wait.points = points
    for i in range(left):
        points[i].sync.owners += 1
        points[i].sync.awaited += 1
    wait.next = s.waits
    s.waits = wait
    s.wait_count += 1
    fd = s.spare[0]
    s.spare[0] = -1
    owned[0] = True
    return fd
