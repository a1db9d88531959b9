# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, embedsignature=False, freethreading_compatible=False
"""A client's messages; those that every submission needs are served here, without Python.

`pump.pyi` says what it offers.
"""

from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport EINTR, ECONNRESET, EPIPE, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy

from hesper.kernel.port cimport Port, retired_fn

from hesper.isolation.service import ClientError
from hesper.vtest import wire

cdef extern from "Python.h":
    enum:
        PyBUF_READ
    int PyErr_CheckSignals() except -1

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *mutex, void *attributes)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_DONTWAIT
        MSG_PEEK
        MSG_WAITALL
    ssize_t recv(int fd, void *data, size_t size, int flags)
    ssize_t send(int fd, const void *data, size_t size, int flags)

cdef extern from "<unistd.h>" nogil:
    int close(int fd)
    ssize_t write(int fd, const void *data, size_t size)

cdef extern from "threads.h" nogil:
    uint64_t hesper_now_ns()
    void hesper_pause()
    void hesper_precise_sleep()

cdef extern from "sockets.h" nogil:
    int hesper_pipe(int *ends)
    int hesper_send_with_descriptor(int fd, const void *data, size_t size, int passed,
                                    size_t *done)
    void hesper_await(int fd, uint64_t ns)
    bint hesper_is_left(int fd)

include "ids.pxi"
include "syncs.pxi"


class TruncatedError(Exception):
    pass


cdef enum:
    ROOM = 65536                # of the buffer; longer messages get one of their own
    # While a fence is pending: for how long the next message is looked out for all the time, and
    # until when between naps, a share of what it has taken so far.  To be woken by the driver, and
    # to wake the pump for the client's next question, takes longer.
    ATTENTION_NS = 1000000
    NAPPING_NS = 100000000
    NAP_SHARE = 64
    # How long the answer to a wait is held back for what is waited for, and how many waits are
    # answered at once after one for which that was too short.
    HOLD_NS = 300000
    HOLD_AGAIN = 16
    # While a client is writing a message.
    PAUSES = 16                 # between two looks
    MOST_YIELDS = 4             # when it has not gone on between them
    HELD_UP_NS = 100000         # by a yield: whoever ran instead computes, and was given its slice
    CROWDED_NS = 50000000       # for how long nobody is yielded to after that
    HEADER_SIZE = 8
    # Bytes that stay in the socket.  A few fill the account of a sender of small pieces, which is
    # charged some hundred bytes for each.
    MOST_SERVED = 2048
    RESOURCE_UNREF = 3
    RESOURCE_CREATE_BLOB = 18
    FIRST_HOT = 19              # SYNC_CREATE to SUBMIT_CMD2
    SYNC_CREATE = 19
    SYNC_UNREF = 20
    SYNC_READ = 21
    SYNC_WRITE = 22
    SYNC_WAIT = 23
    SUBMIT_CMD2 = 24
    WAIT_EITHER = 1             # flag of SYNC_WAIT
    BATCH_RING_IDX = 1          # flag of a batch
    BLOB_HOST3D = 2             # type of a blob
    BLOB_MAPPABLE = 1           # and its flags
    BLOB_FLAGS = 7
    SHORT_BATCH = 24
    LONG_BATCH = 32


cdef enum Outcome:
    SERVED
    COLD                        # a message that Python has to look at
    LEFT                        # the client, between messages or without its answer
    TRUNCATED                   # the client left inside a message
    INTERRUPTED                 # a signal handler has raised
    REFUSED                     # by the context
    WRONG                       # the message, see Fault
    FAILED                      # a call of the socket


cdef enum Fault:
    NO_SYNC                     # a: id
    SYNCS_FULL
    WAITS_FULL
    WAIT_FLAGS                  # a: flags
    WAIT_LIST                   # a: bytes
    BATCHES                     # a: how many, b: bytes
    BATCH_FLAGS                 # a: batch, b: flags
    BATCH_END                   # a: batch
    BATCH_TIMELINE              # a: batch, b: timeline
    NO_MEMORY


FAULTS = {
    NO_SYNC: "no sync {0}",
    SYNCS_FULL: f"more than {MOST_SYNCS} syncs, or no memory for another",
    WAITS_FULL: f"more than {MOST_WAITS} unfinished waits, or no descriptors for another",
    WAIT_FLAGS: "unknown flags {0:#x}",
    WAIT_LIST: "{0} bytes are no list of syncs",
    BATCHES: "{0} batches in {1} bytes",
    BATCH_FLAGS: "batch {0}: flags {1:#x} are not in protocol version 3",
    BATCH_END: "batch {0} ends outside the message",
    BATCH_TIMELINE: "batch {0}: no timeline {1}",
    NO_MEMORY: "out of memory",
}


cdef struct Shape:
    uint32_t unit               # 0: no command that a Venus client sends
    uint64_t shortest
    uint64_t longest
    bint answered


cdef class Pump:
    cdef int fd
    cdef Port port              # None before there is a context
    cdef object interrupt
    cdef Syncs *syncs
    cdef Ids ids
    cdef uint8_t *buffer
    cdef uint8_t *large
    cdef Shape shapes[SUBMIT_CMD2 + 1]
    cdef uint32_t timelines
    cdef uint32_t held          # bytes of the last message that are still in the socket
    cdef uint64_t served        # bytes in the socket of messages that are served
    cdef bint whole             # what follows them is a message for Python, all of it in the buffer
    cdef uint32_t unheld        # waits to be answered at once before one is held back again
    cdef uint64_t crowded_until  # ns; a yield would take long before that
    cdef uint64_t have          # of `want` bytes when the client left
    cdef uint64_t want
    cdef uint32_t length        # of the header read last
    cdef uint32_t number
    cdef bint in_header
    cdef Fault fault
    cdef uint64_t a
    cdef uint64_t b
    cdef int error              # errno of FAILED

    def __cinit__(self, int fd):
        self.fd = fd
        self.buffer = <uint8_t *>malloc(ROOM)
        if self.buffer == NULL:
            raise MemoryError
        self.syncs = syncs_new()

    def __init__(self, int fd):
        for number, request in wire.REQUESTS.items():
            self.shapes[number].unit = request.unit
            self.shapes[number].shortest = request.shortest
            self.shapes[number].longest = request.longest
            self.shapes[number].answered = number in wire.ANSWERED
        self.timelines = wire.MAX_TIMELINES

    def __dealloc__(self):
        if self.syncs != NULL:
            syncs_close(self.syncs)
        ids_free(&self.ids)
        free(self.buffer)
        free(self.large)

    def attach(self, Port port not None):
        self.port = port
        hesper_precise_sleep()      # this thread is the one that looks out

    def close(self):
        if self.syncs != NULL:
            syncs_close(self.syncs)
            self.syncs = NULL
        self.port = None

    @property
    def what(self):
        return "header" if self.in_header else wire.Command(self.number).name

    def header(self):
        cdef Outcome outcome
        cdef Port port = self.port
        with nogil:
            outcome = self.pump(port)
            if port is not None:
                port.leave()
                if outcome == COLD:
                    port.catch_up()
        if outcome == COLD:
            return self.length, self.number
        if outcome == LEFT:
            return None
        self.complain(outcome)

    def data(self, uint64_t size, *, bint hold):
        cdef Outcome outcome = SERVED
        cdef uint8_t *data
        if self.whole:
            self.whole = False
            data = self.buffer + self.served + HEADER_SIZE
            self.served += HEADER_SIZE + size
        else:
            with nogil:
                outcome = self.take_data(size, hold)
            data = self.large if self.large != NULL else self.buffer
        if outcome != SERVED:
            self.complain(outcome)
        return PyMemoryView_FromMemory(<char *>data, size, PyBUF_READ)

    def new_resource(self):
        cdef uint32_t id = ids_take(&self.ids)
        if id == 0:
            raise MemoryError
        return id

    def drop_resource(self, uint32_t resource_id):
        return ids_give(&self.ids, resource_id)

    cdef int complain(self, Outcome outcome) except -1:
        """Raise what `outcome` stands for."""
        if outcome == TRUNCATED:
            raise TruncatedError(f"the client left after {self.have} of {self.want} bytes")
        if outcome == INTERRUPTED:
            raise self.interrupt
        if outcome == REFUSED:
            raise self.port.refusal()
        if outcome == WRONG:
            raise ClientError(f"{self.what}: {FAULTS[self.fault].format(self.a, self.b)}")
        raise OSError(self.error, "the client's socket failed")

    cdef Outcome wrong(self, Fault fault, uint64_t a=0, uint64_t b=0) noexcept nogil:
        self.fault = fault
        self.a = a
        self.b = b
        return WRONG

    # Reading.

    cdef Outcome fill(self, uint8_t *target, uint64_t size) noexcept nogil:
        """Receive `size` bytes.

        A client writes a message in many small pieces; this waits in the kernel for the last byte
        instead of coming back for each piece.
        """
        cdef ssize_t count
        self.have = 0
        self.want = size
        while self.have < size:
            count = recv(self.fd, target + self.have, size - self.have, MSG_WAITALL)
            if count > 0:
                self.have += <uint64_t>count
            elif count == 0:
                return TRUNCATED
            elif errno == EINTR:
                if self.interrupted():
                    return INTERRUPTED
            else:
                return self.failed()
        return SERVED

    cdef Outcome failed(self) noexcept nogil:
        """What a failed call of the socket means."""
        self.error = errno
        return LEFT if errno == EPIPE or errno == ECONNRESET else FAILED

    cdef bint interrupted(self) noexcept with gil:
        """Let Python handle signals; whether a handler has raised."""
        try:
            PyErr_CheckSignals()
        except BaseException as error:
            self.interrupt = error
            return True
        return False

    cdef Outcome take_header(self) noexcept nogil:
        cdef uint32_t held = self.held
        cdef Outcome outcome
        cdef uint32_t words[2]
        self.held = 0
        self.in_header = True
        free(self.large)
        self.large = NULL
        outcome = self.fill(self.buffer, held + HEADER_SIZE)
        if outcome == TRUNCATED:
            self.have -= held if self.have > held else self.have
            self.want -= held
            return TRUNCATED if self.have else LEFT
        if outcome != SERVED:
            return outcome
        memcpy(words, self.buffer + held, HEADER_SIZE)
        self.length = words[0]
        self.number = words[1]
        return SERVED

    cdef Outcome take_data(self, uint64_t size, bint hold) noexcept nogil:
        """Read what stands behind a header; with `hold`, leave the last byte in the socket."""
        cdef uint8_t *target = self.buffer
        cdef uint64_t rest = 1 if hold and size else 0
        cdef Outcome outcome
        cdef ssize_t count
        self.in_header = False
        if size > ROOM:
            self.large = <uint8_t *>malloc(size)
            if self.large == NULL:
                return self.wrong(NO_MEMORY)
            target = self.large
        outcome = self.fill(target, size - rest)
        if outcome != SERVED or not rest:
            self.want = size
            return outcome
        self.want = size
        while True:
            count = recv(self.fd, target + size - 1, 1, MSG_PEEK)
            if count == 1:
                self.held = 1
                return SERVED
            if count == 0:
                return TRUNCATED
            if errno != EINTR:
                return self.failed()
            if self.interrupted():
                return INTERRUPTED

    # Answering.

    cdef Outcome answer(self, const void *data, size_t size) noexcept nogil:
        cdef const uint8_t *at = <const uint8_t *>data
        cdef ssize_t count
        while size:
            count = send(self.fd, at, size, 0)
            if count >= 0:
                at += count
                size -= <size_t>count
            elif errno == EINTR:
                if self.interrupted():
                    return INTERRUPTED
            else:
                return self.failed()
        return SERVED

    cdef Outcome answer_with(self, const void *data, size_t size, int passed) noexcept nogil:
        """Answer, and then pass a copy of a descriptor on a byte of its own.

        Clients read the answer with plain read(2), which would drop a descriptor attached to it.
        """
        cdef size_t done = 0
        while hesper_send_with_descriptor(self.fd, data, size, passed, &done):
            if errno != EINTR:
                return self.failed()
            if self.interrupted():
                return INTERRUPTED
        return SERVED

    # Serving.

    cdef Outcome pump(self, Port port) noexcept nogil:
        """Serve messages until there is one for Python, or none any more."""
        cdef Outcome outcome
        cdef uint64_t size
        cdef ssize_t have
        cdef bint any = False
        while True:
            if port is not None:
                have = self.peek(MSG_DONTWAIT)
                self.await_rest(&have)
                outcome = self.serve_whole(port, have, &any)
                if outcome != SERVED:
                    return outcome
                if any:
                    continue
                outcome = self.take_served()
                if outcome != SERVED:
                    return outcome
                if self.look_out(port):
                    continue
                port.leave()
                outcome = self.await_message(&have)
                if outcome == SERVED:
                    outcome = self.serve_whole(port, have, &any)
                if outcome != SERVED:
                    return outcome
                if any:
                    continue
            outcome = self.take_header()
            if outcome != SERVED:
                return outcome
            if port is None or self.size_of_message() == 0 or not self.is_hot():
                return COLD
            size = self.length * <uint64_t>4
            outcome = self.take_data(size, self.shapes[self.number].answered)
            if outcome == SERVED:
                outcome = self.serve(
                    port, self.large if self.large != NULL else self.buffer, size)
            if outcome != SERVED:
                return outcome

    cdef ssize_t peek(self, int flags) noexcept nogil:
        """Copy what is in the socket, and leave it there; how many bytes, or -1 with errno set."""
        return 0 if self.held else recv(self.fd, self.buffer, ROOM, MSG_PEEK | flags)

    cdef Outcome await_message(self, ssize_t *have) noexcept nogil:
        """Block until the socket has something to be read; errors are left to `take_header`."""
        have[0] = self.peek(0)
        while have[0] < 0 and errno == EINTR:
            if self.interrupted():
                return INTERRUPTED
            have[0] = self.peek(0)
        self.await_rest(have)
        return SERVED

    cdef void await_rest(self, ssize_t *have) noexcept nogil:
        """Let the client finish the message that it has begun to write.

        It writes in many pieces.  To block for the next would mean to be woken for each, mostly in
        the client's place: Linux lets a thread that wakes up go first.
        """
        cdef uint32_t yields = 0
        cdef uint32_t _
        cdef ssize_t before
        cdef uint64_t now
        while self.is_begun(have[0]):
            before = have[0]
            for _ in range(PAUSES):
                hesper_pause()
            have[0] = self.peek(MSG_DONTWAIT)
            if have[0] != before:
                continue
            # The client does not run: it may want this processor.
            now = hesper_now_ns()
            if yields == MOST_YIELDS or now < self.crowded_until:
                return
            yields += 1
            sched_yield()
            if hesper_now_ns() - now >= HELD_UP_NS:
                self.crowded_until = now + CROWDED_NS
            have[0] = self.peek(MSG_DONTWAIT)

    cdef bint is_begun(self, ssize_t have) noexcept nogil:
        """Whether what is in the socket, and not served, is the beginning of a message."""
        cdef uint64_t rest
        if have <= <ssize_t>self.served:
            return False
        rest = <uint64_t>have - self.served
        return rest < HEADER_SIZE or (
            rest < self.size_at(self.served) <= ROOM - self.served)

    cdef uint64_t size_at(self, uint64_t at) noexcept nogil:
        """The size of the message whose header is in the buffer at `at`, which is read; or 0."""
        cdef uint32_t words[2]
        memcpy(words, self.buffer + at, HEADER_SIZE)
        self.length = words[0]
        self.number = words[1]
        return self.size_of_message()

    cdef uint64_t size_of_message(self) noexcept nogil:
        """The size of the message whose header was read; 0: it is wrong, as Python will say."""
        cdef Shape *shape
        cdef uint64_t size
        if self.number > SUBMIT_CMD2:
            return 0
        shape = &self.shapes[self.number]
        size = self.length * <uint64_t>shape.unit
        if shape.unit == 0 or not shape.shortest <= size <= shape.longest:
            return 0
        return HEADER_SIZE + size

    cdef bint is_hot(self) noexcept nogil:
        """Whether the message whose header was read is served here, once there is a port."""
        return self.number >= FIRST_HOT

    cdef Outcome serve_whole(self, Port port, ssize_t have, bint *any) noexcept nogil:
        """Serve the messages that were peeked at as a whole; they stay until `take_served`.

        Taking them off wakes whoever waits on the other end, for nothing: a client does so until
        its last message is answered.
        any: becomes whether there were any.  Returns COLD where one for Python follows.
        """
        cdef uint64_t size
        cdef const uint8_t *data
        cdef Outcome outcome
        any[0] = False
        while have >= <ssize_t>(self.served + HEADER_SIZE):
            size = self.size_at(self.served)
            if size == 0 or <uint64_t>have - self.served < size:
                break
            self.in_header = False
            data = self.buffer + self.served + HEADER_SIZE
            if self.is_hot():
                outcome = self.serve(port, data, size - HEADER_SIZE)
            else:
                outcome = self.serve_resource(port, data)
                self.whole = outcome == COLD
            if outcome != SERVED:
                return outcome
            self.served += size
            any[0] = True
        return self.take_served() if self.served >= MOST_SERVED else SERVED

    cdef Outcome take_served(self) noexcept nogil:
        """Take the messages that are served off the socket."""
        cdef uint64_t served = self.served
        self.served = 0
        return self.fill(self.buffer, served)

    cdef bint look_out(self, Port port) noexcept nogil:
        """Stay awake for the next message, and for fences; whether there is one to serve."""
        cdef uint64_t now = hesper_now_ns()
        cdef uint64_t start = now
        cdef uint64_t last = now
        cdef uint64_t patience
        cdef bint pending = True
        cdef bint was_pending
        cdef bint here = False
        if self.held or port.patience(now) == 0:
            return False
        while not self.is_there(&here):
            was_pending = pending
            pending = port.attend()
            if was_pending and not pending:
                start = now
            patience = port.patience(now)
            if now - start >= (NAPPING_NS if pending and patience else patience):
                return False
            last = now
            if pending and now - start >= ATTENTION_NS:
                hesper_await(self.fd, (now - start) // NAP_SHARE)
                now = hesper_now_ns()
                continue
            hesper_pause()
            now = hesper_now_ns()
            if port.held_up(last, now):
                return False
        return here

    cdef bint is_there(self, bint *whole) noexcept nogil:
        """Whether the socket has something to be read; `whole`: all of a message."""
        cdef uint64_t size
        cdef ssize_t count = recv(self.fd, self.buffer, ROOM, MSG_PEEK | MSG_DONTWAIT)
        if count < HEADER_SIZE:
            # The client has left, or has just begun to write.
            return count == 0
        size = self.size_at(0)
        if size == 0 or size > ROOM:
            return True
        whole[0] = <uint64_t>count >= size
        return whole[0]

    cdef Outcome serve(self, Port port, const uint8_t *data, uint64_t size) noexcept nogil:
        cdef const uint32_t *words = <const uint32_t *>data
        cdef uint64_t value = 0
        cdef uint32_t reply[4]
        cdef Point point
        cdef Wait *over = NULL
        if self.number == SUBMIT_CMD2:
            return self.submit(port, data, size)
        if self.number == SYNC_WAIT:
            return self.sync_wait(port, data, size)
        if self.number == SYNC_CREATE:
            reply[0] = 1
            reply[1] = SYNC_CREATE
            pthread_mutex_lock(&self.syncs.lock)
            reply[2] = sync_create(self.syncs, words[0] | <uint64_t>words[1] << 32)
            pthread_mutex_unlock(&self.syncs.lock)
            if reply[2] == 0:
                return self.wrong(SYNCS_FULL)
            return self.answer(reply, 12)
        point.sync = sync_find(self.syncs, words[0])
        if point.sync == NULL:
            return self.wrong(NO_SYNC, words[0])
        pthread_mutex_lock(&self.syncs.lock)
        if self.number == SYNC_UNREF:
            sync_forget(self.syncs, words[0])
        elif self.number == SYNC_WRITE:
            point.value = words[1] | <uint64_t>words[2] << 32
            over = syncs_signal(self.syncs, &point, 1, False)
        else:
            value = point.sync.value
        pthread_mutex_unlock(&self.syncs.lock)
        syncs_wake(self.syncs, over)
        if self.number != SYNC_READ:
            return SERVED
        reply[0] = 2
        reply[1] = SYNC_READ
        reply[2] = <uint32_t>value
        reply[3] = <uint32_t>(value >> 32)
        return self.answer(reply, 16)

    cdef Outcome serve_resource(self, Port port, const uint8_t *data) noexcept nogil:
        """Make or forget a resource of device memory; COLD: that, or another message, is Python's.

        A blob: its type, flags, size and the id of the memory.
        """
        cdef const uint32_t *words = <const uint32_t *>data
        cdef uint64_t wide[2]
        cdef uint32_t reply[3]
        cdef uint32_t id
        cdef int fd
        if self.number == RESOURCE_UNREF:
            if not port.destroy_blob(words[0]):
                return COLD
            ids_give(&self.ids, words[0])
            return SERVED
        if (self.number != RESOURCE_CREATE_BLOB or words[0] != BLOB_HOST3D
                or words[1] & ~<uint32_t>BLOB_FLAGS):
            return COLD
        memcpy(wide, data + 8, sizeof(wide))
        id = ids_take(&self.ids)
        if id == 0:
            return self.wrong(NO_MEMORY)
        fd = port.create_blob(id, wide[1], wide[0], words[1] & ~<uint32_t>BLOB_MAPPABLE)
        if fd < 0:
            ids_give(&self.ids, id)
            return COLD
        reply[0] = 1
        reply[1] = RESOURCE_CREATE_BLOB
        reply[2] = id
        return self.answer_with(reply, sizeof(reply), fd)

    cdef Outcome sync_wait(self, Port port, const uint8_t *data, uint64_t size) noexcept nogil:
        """Flags and a time-out in ms, then points; answered with a descriptor to poll."""
        cdef const uint32_t *words = <const uint32_t *>data
        cdef uint32_t count = <uint32_t>((size - 8) // 12)
        cdef uint32_t reply[2]
        cdef int64_t unknown = -1
        cdef Point *points
        cdef bint owned
        cdef int fd
        cdef Outcome outcome
        if words[0] & ~<uint32_t>WAIT_EITHER:
            return self.wrong(WAIT_FLAGS, words[0])
        if size != 8 + 12 * <uint64_t>count:
            return self.wrong(WAIT_LIST, size - 8)
        points = <Point *>malloc((count + 1) * sizeof(Point))
        if points == NULL:
            return self.wrong(NO_MEMORY)
        if not points_read(self.syncs, data + 8, count, points, &unknown):
            free(points)
            return self.wrong(NO_SYNC, <uint64_t>unknown)
        if words[1]:
            self.hold(port, points, count, words[0])
        fd = wait_begin(self.syncs, points, count, words[0], words[1], &owned)
        if fd < 0:
            return self.wrong(WAITS_FULL)
        reply[0] = 0
        reply[1] = SYNC_WAIT
        outcome = self.answer_with(reply, 8, fd)
        if owned:
            close(fd)
            # The client need not wait for this.
            pthread_mutex_lock(&self.syncs.lock)
            syncs_unpark(self.syncs)
            syncs_provide(self.syncs)
            pthread_mutex_unlock(&self.syncs.lock)
        return outcome

    cdef void hold(self, Port port, const Point *points, uint32_t count,
                   bint either) noexcept nogil:
        """Look at the fences for a while before a wait is answered, if that has paid off lately.

        A client that is answered when its wait is over sleeps once: not for the answer and again
        for the descriptor.  No other thread of it can send anything until then.
        """
        cdef uint64_t now = hesper_now_ns()
        cdef uint64_t start = now
        cdef uint64_t last = now
        if self.unheld:
            self.unheld -= 1
            return
        while port.attend() and not points_are_reached(self.syncs, points, count, either):
            if now - start >= HOLD_NS or port.held_up(last, now):
                self.unheld = HOLD_AGAIN
                return
            hesper_pause()
            last = now
            now = hesper_now_ns()

    cdef Outcome submit(self, Port port, const uint8_t *data, uint64_t size) noexcept nogil:
        """Batches: commands for the context's own stream, and syncs that a fence signals.

        Mesa 25.0 sends batches of six words, 26.1 two more for DRM sync objects, which mean
        something from protocol version 4 on.
        """
        cdef uint32_t count = (<const uint32_t *>data)[0]
        cdef uint64_t stride = LONG_BATCH
        cdef uint32_t i
        cdef Outcome outcome
        # The first commands follow the last batch.
        if (count and size >= 4 + SHORT_BATCH
                and (<const uint32_t *>data)[2] * <uint64_t>4 == 4 + count * <uint64_t>SHORT_BATCH):
            stride = SHORT_BATCH
        if 4 + count * stride > size:
            return self.wrong(BATCHES, count, size)
        for i in range(count):
            outcome = self.submit_batch(port, data, size, i, data + 4 + i * stride)
            if outcome != SERVED:
                return outcome
        return SERVED

    cdef Outcome submit_batch(self, Port port, const uint8_t *data, uint64_t size,
                              uint32_t index, const uint8_t *at) noexcept nogil:
        # Flags, commands: offset and size, syncs: offset and count, ring_idx.  Offsets and sizes
        # are in words from the start of the message's data.
        cdef uint32_t f[6]
        cdef uint64_t commands
        cdef uint64_t command_size
        cdef uint64_t syncs
        cdef int64_t unknown = -1
        cdef Batch *batch
        memcpy(f, at, sizeof(f))
        commands = f[1] * <uint64_t>4
        command_size = f[2] * <uint64_t>4
        syncs = f[3] * <uint64_t>4
        if f[0] & ~<uint32_t>BATCH_RING_IDX:
            return self.wrong(BATCH_FLAGS, index, f[0])
        if commands + command_size > size or syncs + f[4] * <uint64_t>12 > size:
            return self.wrong(BATCH_END, index)
        if f[0] and f[5] >= self.timelines:
            return self.wrong(BATCH_TIMELINE, index, f[5])
        if command_size and port.submit(data + commands, command_size):
            return REFUSED
        if f[4] == 0:
            return SERVED
        batch = batch_new(self.syncs, data + syncs, f[4], &unknown)
        if batch == NULL:
            return self.wrong(NO_MEMORY) if unknown < 0 else self.wrong(NO_SYNC, <uint64_t>unknown)
        if port.fence(f[5] if f[0] else 0, batch_retired, batch):
            batch_retired(batch, False)
            return REFUSED
        return SERVED


cdef class CallbackPort(Port):
    cdef object submit_
    cdef object fence_
    cdef object error

    def __init__(self, submit, fence):
        self.submit_ = submit
        self.fence_ = fence

    cdef int submit(self, const uint8_t *data, uint64_t size) noexcept nogil:
        with gil:
            try:
                self.submit_(PyMemoryView_FromMemory(<char *>data, size, PyBUF_READ))
            except BaseException as error:
                self.error = error
                return -1
        return 0

    cdef int fence(self, uint32_t ring_idx, retired_fn retired, void *data) noexcept nogil:
        with gil:
            return self.ask_fence(ring_idx, retired, data)

    cdef int ask_fence(self, uint32_t ring_idx, retired_fn retired, void *data) noexcept:
        cdef Retired function = Retired.__new__(Retired)
        function.retired = retired
        function.data = data
        try:
            self.fence_(ring_idx, function)
        except BaseException as error:
            function.data = NULL
            self.error = error
            return -1
        return 0

    cdef object refusal(self):
        return self.error


cdef class Retired:
    # What a Python function is given to call when a timeline is through.
    cdef retired_fn retired
    cdef void *data

    def __call__(self, bint lost=False):
        cdef void *data = self.data
        if data != NULL:
            self.data = NULL
            with nogil:
                self.retired(data, lost)
