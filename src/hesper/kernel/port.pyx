"""A context as frontends see it: its own stream, its fences, its blobs; `port.pyi`."""

from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from hesper_virtgpu cimport BLOB_FLAGS, BLOB_USE_MAPPABLE, MAX_TIMELINES

from hesper.kernel.core.ledger cimport LIMIT_FENCES
from hesper.kernel.core.platform cimport hesper_now_ns
from hesper.kernel.core.polling cimport polling_patience
from hesper.kernel.core.state cimport TIMELINES, Core, Stream, TimelineCore, retired_fn
from hesper.kernel.core.timeline cimport timeline_attend, timeline_leave
from hesper.kernel.runtime cimport (
    CoreRef, context_catch_up, context_create_blob, context_destroy_blob, context_fence,
    context_taped_blob, context_taped_gone, stream_run)

from hesper.kernel.errors import InvalidParameterError, InvalidResourceError

cdef object TO_32_BITS = 2 ** 32
cdef object TO_64_BITS = 2 ** 64

cdef extern from "Python.h":
    enum:
        PyBUF_READ


cdef class Port:
    def __cinit__(self, *_, **__):
        self.polling = &self.own_polling

    def __init__(self, *, submit, fence, create_blob, destroy_blob):
        self.python_submit = submit
        self.python_fence = fence
        self.python_create_blob = create_blob
        self.python_destroy_blob = destroy_blob

    cdef int submit(self, const uint8_t *data, uint64_t size) noexcept nogil:
        """Run the commands in `size` bytes at `data`, which are aligned to 4."""
        with gil:
            try:
                self.python_submit(PyMemoryView_FromMemory(<char *>data, size, PyBUF_READ))
            except BaseException as error:
                self.error = error
                return -1
        return 0

    cdef int fence(self, uint32_t ring_idx, retired_fn retired, void *data) noexcept nogil:
        """Call `retired`, from any thread, when a timeline has done what it has so far."""
        with gil:
            return ask_fence(self, ring_idx, retired, data)

    cdef int create_blob(self, uint32_t id, uint64_t memory, uint64_t size,
                         uint32_t flags) noexcept nogil:
        """Make resource `id`: of a VkDeviceMemory, or of shared memory for `memory` 0.

        Returns its descriptor, or -1.
        """
        with gil:
            try:
                return self.python_create_blob(id, memory, size, flags)
            except BaseException as error:
                self.error = error
        return -1

    cdef int destroy_blob(self, uint32_t id) noexcept nogil:
        """Forget a resource."""
        with gil:
            try:
                self.python_destroy_blob(id)
            except BaseException as error:
                self.error = error
                return -1
        return 0

    cdef object refusal(self):
        """The exception that says why the last call failed."""
        error, self.error = self.error, None
        return error

    cdef void catch_up(self) noexcept nogil:
        """Come to the end of what `submit` was given, before Python serves a message."""

    # A frontend's thread that looks out for the next message looks at the fences as well: nobody
    # else has to be woken for them.

    cdef bint attend(self) noexcept nogil:
        """Retire what fences are signalled; whether there are others to look at."""
        return False

    cdef void leave(self) noexcept nogil:
        """Look at no fences any more: before blocking, and before returning to Python."""


cdef class ContextPort(Port):
    cdef CoreRef ref
    cdef Stream *stream
    cdef object poisoned            # poisons the context; returns the exception
    cdef bint failed                # the stream has, and that was what failed last
    cdef bint too_many              # fences are pending to ask that timeline for another
    cdef int64_t unbound            # the timeline that was asked for and is not there, else -1
    cdef TimelineCore *attended[TIMELINES]
    cdef uint32_t attended_count

    def __init__(self, CoreRef ref not None, poisoned, create_blob, destroy_blob):
        self.ref = ref
        self.stream = ref.stream
        self.poisoned = poisoned
        self.python_create_blob = create_blob or no_blobs
        self.python_destroy_blob = destroy_blob or no_blobs
        self.unbound = -1
        self.polling = &ref.core.polling
        ref.core.runs_ahead = True

    cdef int submit(self, const uint8_t *data, uint64_t size) noexcept nogil:
        self.failed = stream_run(self.stream, data, size) != 0
        return -1 if self.failed else 0

    cdef int fence(self, uint32_t ring_idx, retired_fn retired, void *data) noexcept nogil:
        cdef Core *core = self.stream.core
        cdef TimelineCore *held = NULL
        cdef bint hold = (self.attended_count < TIMELINES
                          and polling_patience(&core.polling, hesper_now_ns()) != 0)
        cdef int result = context_fence(core, ring_idx, retired, data, &held if hold else NULL)
        if result:
            self.unbound = ring_idx
            self.too_many = result == -2
            return -1
        if held != NULL:
            self.attended[self.attended_count] = held
            self.attended_count += 1
        return 0

    cdef int create_blob(self, uint32_t id, uint64_t memory, uint64_t size,
                         uint32_t flags) noexcept nogil:
        cdef Core *core = self.stream.core
        cdef bint apart = (flags & ~<uint32_t>BLOB_USE_MAPPABLE) != 0
        cdef int fd = -1
        context_catch_up(core)
        if id and memory and not flags & ~<uint32_t>BLOB_FLAGS:
            fd = context_create_blob(core, id, memory, size, apart)
        if fd < 0:
            fd = Port.create_blob(self, id, memory, size, flags)
        if fd >= 0 and core.tape != NULL:
            context_taped_blob(core, id, memory, size, flags, apart)
        return fd

    cdef int destroy_blob(self, uint32_t id) noexcept nogil:
        context_catch_up(self.stream.core)
        if self.stream.core.tape != NULL:
            context_taped_gone(self.stream.core, id)
        if context_destroy_blob(self.stream.core, id):
            return 0
        return Port.destroy_blob(self, id)

    cdef object refusal(self):
        if self.unbound >= 0:
            ring_idx, self.unbound = self.unbound, -1
            return too_many(self.ref) if self.too_many else unbound(ring_idx)
        if self.failed:
            self.failed = False
            return self.poisoned()
        return Port.refusal(self)

    cdef void catch_up(self) noexcept nogil:
        context_catch_up(self.stream.core)

    cdef bint attend(self) noexcept nogil:
        cdef uint32_t i = 0
        while i < self.attended_count:
            if timeline_attend(self.attended[i]):
                i += 1
            else:
                self.attended_count -= 1
                self.attended[i] = self.attended[self.attended_count]
        return self.attended_count != 0

    cdef void leave(self) noexcept nogil:
        while self.attended_count:
            self.attended_count -= 1
            timeline_leave(self.attended[self.attended_count])


cdef object unbound(ring_idx):
    return InvalidParameterError(f"timeline {ring_idx} is bound to no queue")


cdef object too_many(CoreRef ref):
    """What to say when no fence more may be pending."""
    most = ref.core.pool.ledger.most[LIMIT_FENCES]
    return InvalidParameterError(f"more than {most} fences are pending (--limit fences)")


def no_blobs(*_):
    raise InvalidParameterError("this context has no blobs")


cdef class Retired:
    cdef retired_fn retired
    cdef void *data

    def __call__(self, bint lost=False):
        cdef void *data = self.data
        if data != NULL:
            self.data = NULL
            with nogil:
                self.retired(data, lost)


cdef int ask_fence(Port port, uint32_t ring_idx, retired_fn retired, void *data) noexcept:
    cdef Retired function = Retired.__new__(Retired)
    function.retired = retired
    function.data = data
    try:
        port.python_fence(ring_idx, function)
    except BaseException as error:
        function.data = NULL
        port.error = error
        return -1
    return 0


# For Python.

def submit(Port port not None, data):
    cdef const uint8_t[::1] view = data
    cdef const uint8_t *start
    cdef uint64_t size = view.shape[0]
    cdef int result
    if size == 0:
        return
    start = &view[0]
    with nogil:
        result = port.submit(start, size)
        port.catch_up()
    if result:
        raise port.refusal()


def fence(Port port not None, ring_idx, retired):
    cdef uint32_t timeline
    cdef int result
    if not 0 <= ring_idx < MAX_TIMELINES:
        raise unbound(ring_idx)
    timeline = ring_idx
    Py_INCREF(retired)
    with nogil:
        result = port.fence(timeline, call_retired, <void *>retired)
        port.leave()
    if result:
        Py_DECREF(retired)
        raise port.refusal()


def create_blob(Port port not None, resource_id, blob_id, size, flags):
    cdef int fd
    cdef uint32_t id = in_range(resource_id, TO_32_BITS, InvalidResourceError, "resource id")
    cdef uint64_t memory = in_range(blob_id, TO_64_BITS, InvalidParameterError, "blob id")
    cdef uint64_t wanted = in_range(size, TO_64_BITS, InvalidParameterError, "blob size")
    cdef uint32_t asked = in_range(flags, TO_32_BITS, InvalidParameterError, "blob flags")
    with nogil:
        fd = port.create_blob(id, memory, wanted, asked)
    if fd < 0:
        raise port.refusal()
    return fd


def destroy_blob(Port port not None, resource_id):
    cdef uint32_t id = in_range(resource_id, TO_32_BITS, InvalidResourceError, "resource id")
    cdef int result
    with nogil:
        result = port.destroy_blob(id)
    if result:
        raise port.refusal()


cdef object in_range(value, object limit, error, what):
    """`value`, which must be a number from 0 to below `limit`."""
    if not 0 <= value < limit:
        raise error(f"{what} {value} is out of range")
    return value


cdef void call_retired(void *data, bint lost) noexcept nogil:
    """Call a Python function that was kept alive for this; nobody there could tell of a loss."""
    with gil:
        call_and_drop(data)


cdef int call_and_drop(void *data) except -1:
    cdef object function = <object>data
    Py_DECREF(function)
    function()
    return 0
