"""What a context has been granted of what all clients of a server may have together.

Who shares that out (`isolation.total`) grants some at the start, and more when it is asked: what a
context may take at any moment is the lease, however much its own limit is.  Threads that want more
wait here until somebody of this process has asked for it.
"""

from libc.stdint cimport uint32_t, uint64_t
from posix.unistd cimport write

from hesper.kernel.core.ledger cimport (
    ACCOUNT_DECODED, ACCOUNT_SPARE, LIMIT_MEMORY, LIMIT_TOTAL, Ledger, ledger_note, ledger_own,
    ledger_take)
from hesper.kernel.core.platform cimport (
    hesper_add_u64, hesper_load_acquire, hesper_load_u64, hesper_now_ns, hesper_sleep_ns)


cdef enum:
    KEPT_PART = 8               # of the total, a part that is for those who have less than it
    ANSWER_NS = 3000000000      # for which an answer is waited for
    LOOK_NS = 100000            # between two looks for it


cdef enum:
    NO_LEASE = 0xffffffffffffffff


cdef inline uint64_t lease_open(Ledger *ledger) noexcept nogil:
    """Bytes by which the lease may still grow; `isolation.total` reckons alike."""
    cdef uint64_t left, kept, lease, least, most
    if ledger.total == NULL:
        return 0
    left = hesper_load_u64(&ledger.total[1])
    kept = hesper_load_u64(&ledger.total[0]) // KEPT_PART
    lease = hesper_load_u64(&ledger.lease) + ledger.lease_slack
    least = kept - lease if lease < kept else 0
    most = left - kept if left > kept else 0
    least = least if least < left else left
    return least if least > most else most


cdef inline bint lease_await(Ledger *ledger, uint32_t account, uint64_t size) noexcept nogil:
    """Take bytes that the lease lacks, by waiting for more; no lock is held.

    False when they are not to be had, or when it is not for the lease that they are not left.
    """
    cdef uint64_t used = hesper_load_u64(&ledger.used)
    cdef uint64_t lease = hesper_load_u64(&ledger.lease)
    cdef uint64_t own = ledger_own(ledger, account)
    cdef uint64_t mine, until
    cdef bint taken, over
    cdef ssize_t _woken
    if lease == NO_LEASE or size > own or used > own - size:
        return False
    # Nobody is asked in vain, however often a guest tries.
    if used + size > lease and used + size - lease > lease_open(ledger) + (
            ledger.lease_slack if account == ACCOUNT_DECODED else 0):
        return False
    until = hesper_now_ns() + <uint64_t>ANSWER_NS
    hesper_add_u64(&ledger.missing, size)
    mine = hesper_add_u64(&ledger.asks, 1)
    # Where that fails, there is no room for one more wake, or nobody to wake: time tells.
    _woken = write(ledger.wake, b"", 1)
    while True:
        # In this order: what was granted before the answer is seen.
        over = (hesper_load_u64(&ledger.answers) >= mine or hesper_now_ns() > until
                or hesper_load_acquire(&ledger.ending))
        taken = ledger_take(ledger, account, size)
        if taken or over:
            break
        hesper_sleep_ns(LOOK_NS)
    hesper_add_u64(&ledger.missing, <uint64_t>0 - size)
    return taken


cdef inline void lease_note(Ledger *ledger, uint32_t account, uint64_t size) noexcept nogil:
    """Note which limit it is for which so many bytes are not left."""
    cdef uint64_t own = ledger_own(ledger, account)
    cdef bint is_own = size > own or hesper_load_u64(&ledger.used) > own - size
    ledger_note(ledger, LIMIT_MEMORY if is_own else LIMIT_TOTAL)


cdef inline uint64_t ledger_left(Ledger *ledger) noexcept nogil:
    """Bytes that are left, with what is kept for nothing but to be used again."""
    cdef uint64_t used = hesper_load_u64(&ledger.used)
    cdef uint64_t spare = hesper_load_u64(&ledger.held[ACCOUNT_SPARE])
    cdef uint64_t most = ledger.limit
    cdef uint64_t lease = hesper_load_u64(&ledger.lease)
    if lease != NO_LEASE and lease + lease_open(ledger) < most:
        most = lease + lease_open(ledger)
    used = used - spare if used > spare else 0
    # For a moment, somebody may have taken what there is not.
    return most - used if used < most else 0
