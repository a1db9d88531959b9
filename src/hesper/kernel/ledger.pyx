"""What a context has taken of its limits, as Python sees it; `ledger.pyi`."""

from libc.stdint cimport uint32_t, uint64_t

from hesper.kernel.core.ledger cimport (
    ACCOUNT_DECODED, ACCOUNT_MEMORY, ACCOUNT_OBJECTS, ACCOUNT_RECORDED, ACCOUNT_RINGS,
    ACCOUNT_SPARE, COUNTED, LIMIT_DESCRIPTORS, LIMIT_DEVICES, LIMIT_FENCES, LIMIT_MEMORY,
    LIMIT_OBJECTS, LIMIT_THREADS, LIMIT_TOTAL, Ledger as LedgerCore, ledger_add, ledger_note,
    ledger_remove, ledger_untold)
from hesper.kernel.core.platform cimport (
    hesper_exchange_u64, hesper_load_u64, hesper_store_u64)
from hesper.kernel.core.shm_pool cimport pool_room
from hesper.kernel.runtime cimport CoreRef, object_charge

cdef dict ACCOUNT_NAMES = {
    "memory": ACCOUNT_MEMORY, "spare": ACCOUNT_SPARE, "decoded": ACCOUNT_DECODED,
    "rings": ACCOUNT_RINGS, "objects": ACCOUNT_OBJECTS, "recorded": ACCOUNT_RECORDED,
}
cdef dict LIMIT_NAMES = {
    "devices": LIMIT_DEVICES, "threads": LIMIT_THREADS, "descriptors": LIMIT_DESCRIPTORS,
    "fences": LIMIT_FENCES, "memory": LIMIT_MEMORY, "objects": LIMIT_OBJECTS,
    "total_memory": LIMIT_TOTAL,
}


cdef class Ledger:
    def __init__(self, CoreRef ref not None, dict most):
        self.ref = ref
        for name, value in most.items():
            if LIMIT_NAMES[name] >= COUNTED:
                raise KeyError(name)
            ref.core.pool.ledger.most[<uint32_t>LIMIT_NAMES[name]] = value

    cdef object most(self, uint32_t limit):
        cdef LedgerCore *ledger = &self.ref.core.pool.ledger
        if limit == LIMIT_MEMORY:
            return ledger.limit
        if limit == LIMIT_TOTAL:
            return 0 if ledger.total == NULL else hesper_load_u64(ledger.total)
        return self.ref.core.objects.limit if limit == LIMIT_OBJECTS else ledger.most[limit]

    def begin(self, str name, uint64_t count=1):
        return bool(ledger_add(&self.ref.core.pool.ledger, LIMIT_NAMES[name], count))

    def end(self, str name, uint64_t count=1):
        ledger_remove(&self.ref.core.pool.ledger, LIMIT_NAMES[name], count)

    def charge(self, uint64_t object_id, uint64_t size):
        cdef bint fits
        with nogil:
            fits = object_charge(self.ref.core, object_id, size)
        return bool(fits)

    def keep(self, uint64_t size):
        cdef bint fits
        with nogil:
            fits = pool_room(self.ref.core.pool, ACCOUNT_OBJECTS, size)
        return bool(fits)

    def note(self, str name):
        ledger_note(&self.ref.core.pool.ledger, LIMIT_NAMES[name])

    def untold(self):
        cdef uint32_t reached = ledger_untold(&self.ref.core.pool.ledger)
        return [
            (name, self.most(limit)) for name, limit in LIMIT_NAMES.items() if reached >> limit & 1
        ]

    def borrow(self, uint64_t lease, uint64_t slack, int wake, uint64_t total):
        cdef LedgerCore *ledger = &self.ref.core.pool.ledger
        ledger.wake = wake
        ledger.total = <const uint64_t *>total
        ledger.lease_slack = slack
        hesper_store_u64(&ledger.lease, lease)

    def wanted(self):
        cdef LedgerCore *ledger = &self.ref.core.pool.ledger
        cdef uint64_t asks = hesper_load_u64(&ledger.asks)
        cdef uint64_t used = hesper_load_u64(&ledger.used)
        cdef uint64_t missing = hesper_load_u64(&ledger.missing)
        return (asks, used, missing)

    def grant(self, uint64_t lease, uint64_t asks):
        cdef LedgerCore *ledger = &self.ref.core.pool.ledger
        hesper_store_u64(&ledger.lease, lease)
        hesper_store_u64(&ledger.answers, asks)

    def give_back(self, uint64_t lease):
        cdef LedgerCore *ledger = &self.ref.core.pool.ledger
        cdef uint64_t before = hesper_exchange_u64(&ledger.lease, lease)
        # Who takes from now on sees the smaller one; who has taken before is seen here.
        if hesper_load_u64(&ledger.missing) or hesper_load_u64(&ledger.used) > lease:
            hesper_store_u64(&ledger.lease, before)
            return False
        return True

    def figures(self):
        cdef LedgerCore *ledger = &self.ref.core.pool.ledger
        found = {"limit": ledger.limit, "used": hesper_load_u64(&ledger.used)}
        for name, place in ACCOUNT_NAMES.items():
            found[name] = hesper_load_u64(&ledger.held[<uint32_t>place])
        for name, place in LIMIT_NAMES.items():
            if place < COUNTED:
                found[name] = hesper_load_u64(&ledger.count[<uint32_t>place])
        return found
