"""The one way to wait for what may come soon: `poll_step`, by the table in `includes/polling.h`.

    poll_begin(&poll, POLL_...)
    while it has not come and poll_step(&poll, &polling):
        pass
    block, if it has not come

A `Poll` belongs to one thread at one place; what it learns there (whether yielding lets anybody
run, whether waiting has helped) it keeps from one occasion to the next.  A `Polling` belongs to a
context: when one of its threads finds that somebody else wants the processor, none looks out for
a while.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from hesper.kernel.core.platform cimport (
    hesper_load_u64, hesper_move_on, hesper_now_ns, hesper_pause, hesper_store_u64, sched_yield)

cdef extern from "polling.h" nogil:
    enum:
        POLL_COMMANDS, POLL_BORROWED, POLL_SEQNO, POLL_VIRTQUEUE, POLL_FENCE
        POLL_MESSAGE, POLL_MESSAGE_OR_FENCE, POLL_MESSAGE_REST, POLL_ANSWER
    enum:
        HESPER_HELD_UP_NS, HESPER_CONTENDED_NS
        HESPER_SHARED_NS, HESPER_SHARED_ENOUGH, HESPER_MOVE_AGAIN_NS

    ctypedef struct hesper_poll_row:
        uint16_t pauses
        uint16_t looks
        uint16_t looks_alone
        uint8_t patient
        uint8_t polite
        uint32_t spin_ns
        uint32_t yield_ns
        uint32_t until_ns
        uint8_t nap_shift
        uint32_t nap_least_ns
        uint32_t nap_most_ns
        uint32_t nap_rare_ns
        uint8_t rests

    const hesper_poll_row hesper_poll_rows[]
    void hesper_nap(int fd, uint64_t ns)


cdef struct Polling:
    uint64_t patience_ns        # 0: processors are few
    uint64_t contended_until    # ns; nobody looks out before


cdef struct Poll:
    const hesper_poll_row *row
    int fd                      # that ends a nap, 0: none
    uint64_t until_ns
    uint32_t looks              # without the clock, so far
    uint64_t start              # ns, of the first look at the clock; 0: none so far
    uint64_t last               # of the last one
    uint32_t resting            # occasions that are left out
    bint alone                  # the last yield let nobody run
    uint32_t shared             # occasions in a row, short ones, on which it let somebody
    uint64_t moved              # ns, when the thread did


cdef inline uint64_t polling_patience(Polling *shared, uint64_t now) noexcept nogil:
    """How long to look out, in ns; 0 where processors are few or wanted by others."""
    if shared.patience_ns and now < hesper_load_u64(&shared.contended_until):
        return 0
    return hesper_load_u64(&shared.patience_ns)


cdef inline bint poll_begin(Poll *p, uint32_t reason) noexcept nogil:
    """A new occasion; False: to wait did not help lately, so block at once."""
    if p.resting:
        p.resting -= 1
        return False
    p.row = &hesper_poll_rows[reason]
    p.until_ns = p.row.until_ns
    p.looks = 0
    p.start = 0
    return True


cdef inline void pause_between(const hesper_poll_row *row) noexcept nogil:
    cdef uint32_t _
    for _ in range(row.pauses):
        hesper_pause()


cdef inline bint poll_step(Poll *p, Polling *shared) noexcept nogil:
    """Wait a little before the next look; False, at once, when it is time to block."""
    if p.looks < (p.row.looks_alone if p.alone and p.row.looks_alone else p.row.looks):
        p.looks += 1
        pause_between(p.row)
        return True
    return poll_on(p, shared)


cdef inline bint poll_on(Poll *p, Polling *shared) noexcept nogil:
    """The same by the clock."""
    cdef const hesper_poll_row *row = p.row
    cdef uint64_t now = hesper_now_ns()
    cdef uint64_t elapsed
    if p.start == 0:
        p.start = now
    elif row.polite and now - p.last >= HESPER_HELD_UP_NS:
        hesper_store_u64(&shared.contended_until, now + HESPER_CONTENDED_NS)
    p.last = now
    elapsed = now - p.start
    if not row.polite or now >= hesper_load_u64(&shared.contended_until):
        if elapsed < row.spin_ns or (row.patient
                                     and elapsed < hesper_load_u64(&shared.patience_ns)):
            pause_between(row)
            return True
    elif row.polite == 2:
        p.resting = row.rests
        return False
    if elapsed < row.yield_ns:
        sched_yield()
        return True
    if elapsed >= p.until_ns:
        p.resting = row.rests
        return False
    hesper_nap(p.fd, nap_of(row, elapsed))
    p.last = hesper_now_ns()
    return True


cdef inline uint64_t nap_of(const hesper_poll_row *row, uint64_t elapsed) noexcept nogil:
    cdef uint64_t nap = elapsed >> row.nap_shift
    cdef uint64_t rare = elapsed >> 5
    if nap < row.nap_least_ns:
        return row.nap_least_ns
    if nap < row.nap_most_ns:
        return nap
    if rare > row.nap_rare_ns:
        rare = row.nap_rare_ns
    return rare if rare > row.nap_most_ns else row.nap_most_ns


cdef inline void poll_came(Poll *p) noexcept nogil:
    """What was waited for has come: keep what that says about the processors."""
    cdef uint64_t now
    cdef uint64_t since
    if p.start == 0:
        p.shared = 0
        return
    now = hesper_now_ns()
    since = now - p.last
    p.alone = since < HESPER_SHARED_NS
    # Longer than a yield, it was no call that the other side waited for.
    p.shared = p.shared + 1 if not p.alone and since < p.row.yield_ns else 0
    if p.shared >= HESPER_SHARED_ENOUGH and now - p.moved > HESPER_MOVE_AGAIN_NS:
        hesper_move_on()
        p.shared = 0
        p.moved = now
