"""What a context has taken of what it may have: bytes by account, and things by the number.

Any thread takes and gives back, without a lock.  What is taken is taken before it is used, and a
limit that is reached is noted, for somebody to say so.
"""

from libc.stdint cimport uint32_t, uint64_t

from hesper.kernel.core.platform cimport (
    hesper_add_u64, hesper_clear_bits, hesper_load_acquire, hesper_load_u64, hesper_set_bits)


cdef enum:
    # What the bytes of the memory limit are taken for.
    ACCOUNT_MEMORY = 0          # device memory and blobs
    ACCOUNT_SPARE               # shared memory that is kept to be used again
    ACCOUNT_DECODED             # what commands decode to
    ACCOUNT_RINGS               # their threads, and their copies of what wraps around
    ACCOUNT_OBJECTS             # here, and what the driver is taken to keep: `costs.pxd`
    ACCOUNT_RECORDED            # in command buffers: `recording.pxd`
    ACCOUNTS


cdef enum:
    LIMIT_DEVICES = 0
    LIMIT_THREADS
    LIMIT_DESCRIPTORS
    LIMIT_FENCES
    COUNTED                     # the limits above have a number in the ledger, these have not:
    LIMIT_MEMORY = COUNTED
    LIMIT_OBJECTS


cdef enum:
    MOST_SLACK = 16 << 20


cdef struct Ledger:
    uint64_t limit              # of bytes
    uint64_t decode_limit       # the same for ACCOUNT_DECODED: see `slack`
    uint64_t used               # in all accounts
    uint64_t held[ACCOUNTS]
    uint64_t count[COUNTED]
    uint64_t most[COUNTED]
    uint32_t reached            # a bit for each limit that was, and nobody has been told of
    uint32_t told               # the same, and somebody has
    uint32_t ending             # nobody waits for anything any more


cdef inline uint64_t slack(uint64_t limit) noexcept nogil:
    """Bytes by which what commands decode to may pass the limit.

    A guest may fill its memory, as its budget says, and wants to be served still.
    """
    return limit // 8 if limit // 8 < MOST_SLACK else MOST_SLACK


cdef inline void ledger_note(Ledger *ledger, uint32_t limit) noexcept nogil:
    """Note that a limit was reached."""
    if not (hesper_load_acquire(&ledger.reached) | hesper_load_acquire(&ledger.told)) >> limit & 1:
        hesper_set_bits(&ledger.reached, <uint32_t>1 << limit)


cdef inline bint ledger_take(Ledger *ledger, uint32_t account, uint64_t size) noexcept nogil:
    """Take bytes of the memory limit; False when they are not left."""
    cdef uint64_t limit = ledger.decode_limit if account == ACCOUNT_DECODED else ledger.limit
    if size > limit:
        return False            # the sum might overflow
    if hesper_add_u64(&ledger.used, size) > limit:
        hesper_add_u64(&ledger.used, <uint64_t>0 - size)
        return False
    hesper_add_u64(&ledger.held[account], size)
    return True


cdef inline void ledger_give(Ledger *ledger, uint32_t account, uint64_t size) noexcept nogil:
    hesper_add_u64(&ledger.held[account], <uint64_t>0 - size)
    hesper_add_u64(&ledger.used, <uint64_t>0 - size)


cdef inline void ledger_move(Ledger *ledger, uint32_t giver, uint32_t taker,
                             uint64_t size) noexcept nogil:
    hesper_add_u64(&ledger.held[giver], <uint64_t>0 - size)
    hesper_add_u64(&ledger.held[taker], size)


cdef inline uint64_t ledger_left(Ledger *ledger) noexcept nogil:
    """Bytes that are left, with what is kept for nothing but to be used again."""
    cdef uint64_t used = hesper_load_u64(&ledger.used)
    cdef uint64_t spare = hesper_load_u64(&ledger.held[ACCOUNT_SPARE])
    used = used - spare if used > spare else 0
    # For a moment, somebody may have taken what there is not.
    return ledger.limit - used if used < ledger.limit else 0


cdef inline bint ledger_add(Ledger *ledger, uint32_t limit, uint64_t count) noexcept nogil:
    """Count things; False, with the limit noted, when there would be too many."""
    if hesper_add_u64(&ledger.count[limit], count) > ledger.most[limit]:
        hesper_add_u64(&ledger.count[limit], <uint64_t>0 - count)
        ledger_note(ledger, limit)
        return False
    return True


cdef inline void ledger_remove(Ledger *ledger, uint32_t limit, uint64_t count) noexcept nogil:
    hesper_add_u64(&ledger.count[limit], <uint64_t>0 - count)


cdef inline uint32_t ledger_untold(Ledger *ledger) noexcept nogil:
    """The bits of limits that were reached for the first time since the last call."""
    cdef uint32_t reached = hesper_load_acquire(&ledger.reached)
    hesper_set_bits(&ledger.told, reached)
    hesper_clear_bits(&ledger.reached, reached)
    return reached
