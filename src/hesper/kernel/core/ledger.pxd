"""What a context has taken of what it may have: bytes by account, and things by the number.

Any thread takes and gives back, without a lock.  What is taken is taken before it is used, and a
limit that is reached is noted, for somebody to say so.
"""

from libc.stdint cimport uint32_t, uint64_t

from hesper.kernel.core.platform cimport (
    hesper_add_u64, hesper_add_within, hesper_clear_bits, hesper_load_acquire, hesper_load_u64,
    hesper_set_bits)


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
    LIMIT_TOTAL                 # of all clients: `lease.pxd`


cdef enum:
    MOST_SLACK = 16 << 20


cdef struct Ledger:
    uint64_t limit              # of bytes
    uint64_t decode_limit       # the same for ACCOUNT_DECODED: see `slack`
    uint64_t lease              # how much of that is granted so far: `lease.pxd`
    uint64_t lease_slack        # the same for ACCOUNT_DECODED
    uint64_t used               # in all accounts
    uint64_t held[ACCOUNTS]
    uint64_t count[COUNTED]
    uint64_t most[COUNTED]
    uint32_t reached            # a bit for each limit that was, and nobody has been told of
    uint32_t told               # the same, and somebody has
    uint32_t ending             # nobody waits for anything any more
    # Of the lease; `lease.pxd`.
    int wake                    # a descriptor to write to when more is wanted
    uint64_t missing            # bytes that threads wait for
    uint64_t asks               # how often somebody began to wait
    uint64_t answers            # how many of those have been seen to
    const uint64_t *total       # what all clients may have, and what is left of it; null: any


cdef inline uint64_t slack(uint64_t limit) noexcept nogil:
    """Bytes by which what commands decode to may pass the limit.

    A guest may fill its memory, as its budget says, and wants to be served still.
    """
    return limit // 8 if limit // 8 < MOST_SLACK else MOST_SLACK


cdef inline void ledger_note(Ledger *ledger, uint32_t limit) noexcept nogil:
    """Note that a limit was reached."""
    if not (hesper_load_acquire(&ledger.reached) | hesper_load_acquire(&ledger.told)) >> limit & 1:
        hesper_set_bits(&ledger.reached, <uint32_t>1 << limit)


cdef inline uint64_t ledger_own(Ledger *ledger, uint32_t account) noexcept nogil:
    """Bytes that the context may have, whatever others have."""
    return ledger.decode_limit if account == ACCOUNT_DECODED else ledger.limit


cdef inline uint64_t ledger_leased(Ledger *ledger, uint32_t account) noexcept nogil:
    """Bytes that it has been granted."""
    cdef uint64_t lease = hesper_load_u64(&ledger.lease)
    return lease + ledger.lease_slack if account == ACCOUNT_DECODED else lease


cdef inline bint ledger_take(Ledger *ledger, uint32_t account, uint64_t size) noexcept nogil:
    """Take bytes of the memory limit; False when they are not left."""
    return ledger_take_of(ledger, account, size, ledger_own(ledger, account),
                          ledger_leased(ledger, account))


cdef inline bint ledger_take_of(Ledger *ledger, uint32_t account, uint64_t size, uint64_t own,
                                uint64_t leased) noexcept nogil:
    if not hesper_add_within(&ledger.used, size, own if own < leased else leased):
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


cdef inline bint ledger_add(Ledger *ledger, uint32_t limit, uint64_t count) noexcept nogil:
    """Count things; False, with the limit noted, when there would be too many."""
    if not hesper_add_within(&ledger.count[limit], count, ledger.most[limit]):
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
