"""What a context is told, for who writes it to a file; `tape.pyi`."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint64_t

from hesper.kernel.core.platform cimport hesper_load_acquire, hesper_store_release
from hesper.kernel.core.tape cimport (
    TAPE_END, TAPE_IMPORT, TAPE_ROOM, TapePlace, tape_close, tape_die_with, tape_free, tape_last,
    tape_new, tape_now, tape_say, tape_survive, tape_take)


cdef class Tape:
    def __cinit__(self):
        self.core = tape_new()
        if self.core == NULL:
            raise MemoryError

    def __dealloc__(self):
        tape_survive(self.core)
        tape_free(self.core)

    @property
    def is_over(self):
        return bool(hesper_load_acquire(&self.core.over))

    @property
    def now(self):
        return tape_now(self.core)

    def take(self, uint64_t patience_ns):
        cdef uint64_t size
        with nogil:
            size = tape_take(self.core, patience_ns)
        if size == 0 and self.core.closed:
            return None
        return PyBytes_FromStringAndSize(<char *>self.core.taken, <Py_ssize_t>size)

    def written(self, number, fd):
        self.core.number = number
        self.core.fd = fd
        hesper_store_release(&self.core.writing, 0)

    def die_with(self, int fd):
        self.core.fd = fd
        tape_die_with(self.core)

    def imported(self, resource_id, uint64_t size):
        cdef TapePlace place
        place.resource = resource_id
        place.zero = 0
        place.offset = size
        with nogil:
            tape_say(self.core, TAPE_IMPORT, 0, &place, sizeof(place))

    def end(self, str reason not None):
        cdef bytes text = reason.encode()[:1000]
        cdef const char *start = text
        cdef uint64_t size = len(text)
        with nogil:
            tape_say(self.core, TAPE_END, 0, start, size)

    def want_whole(self):
        hesper_store_release(&self.core.wants_whole, 1)

    def last(self):
        with nogil:
            tape_last(self.core, 0)

    def stop(self):
        hesper_store_release(&self.core.over, 1)

    def close(self):
        with nogil:
            tape_close(self.core)


ROOM = TAPE_ROOM
