"""Serves a client: the loop over its messages, and what needs no session; `server.pyi`."""

from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from hesper_vtest_wire cimport (
    BATCH_RING_IDX, BLOB_GUEST, BLOB_HOST3D, COMMAND_RESOURCE_CREATE_BLOB, COMMAND_RESOURCE_UNREF,
    COMMAND_SUBMIT_CMD2, COMMAND_SYNC_CREATE, COMMAND_SYNC_READ, COMMAND_SYNC_UNREF,
    COMMAND_SYNC_WAIT, COMMAND_SYNC_WRITE, LONG_BATCH, WAIT_EITHER, Header, ReplyU32, ReplyU64)
from hesper_vtest_wire cimport Batch as WireBatch
from hesper_vtest_wire cimport CreateBlob as WireBlob
from hesper_vtest_wire cimport Point as WirePoint
from hesper_vtest_wire cimport Wait as WireWait
from hesper_virtgpu cimport MAX_TIMELINES

from hesper.kernel.core.platform cimport (
    hesper_precise_sleep, pthread_mutex_lock, pthread_mutex_unlock)
from hesper.kernel.core.polling cimport POLL_ANSWER, Poll, poll_begin, poll_step
from hesper.kernel.port cimport Port
from hesper.sockets.connection cimport (
    DONE, INTERRUPTED, LEFT, NO_MEMORY, REFUSED, TRUNCATED, WRONG, Outcome, close,
    hesper_send_before_descriptor)
from hesper.vtest.ids cimport (
    CLIENT, CONTEXT, MOST_IDS, NOBODY, Ids, Owner, ids_free, ids_give, ids_owner, ids_take)
from hesper.vtest.reader cimport Reader
from hesper.vtest.syncs cimport (
    MOST_BATCHES, MOST_SIGNALS, MOST_SYNCS, MOST_WAITS, Batch, Point, Syncs, Wait, batch_new,
    batch_retired, points_are_reached, points_read, sync_create, sync_find, sync_forget,
    syncs_close, syncs_new, syncs_provide, syncs_signal, syncs_unpark, syncs_wake, wait_begin)

from hesper.isolation.service import ClientError
from hesper.sockets.connection import TruncatedError
from hesper.vtest import wire

cdef extern from "Python.h":
    enum:
        PyBUF_READ


cdef enum Fault:
    NO_SYNC                     # a: id
    SYNCS_FULL
    WAITS_FULL
    BATCHES_FULL
    IDS_FULL
    WAIT_FLAGS                  # a: flags
    WAIT_LIST                   # a: bytes
    BATCHES                     # a: how many, b: bytes
    BATCH_FLAGS                 # a: batch, b: flags
    BATCH_END                   # a: batch
    BATCH_TIMELINE              # a: batch, b: timeline
    NO_RESOURCE                 # a: id
    BLOB_TYPE                   # a: type, b: blob id
    BLOB_SIZE


FAULTS = {
    NO_SYNC: "no sync {0}",
    SYNCS_FULL: f"more than {MOST_SYNCS} syncs, or no memory for another",
    WAITS_FULL: f"more than {MOST_WAITS} unfinished waits, or no descriptors for another",
    BATCHES_FULL: (
        f"more than {MOST_BATCHES} batches whose fence is pending, or {MOST_SIGNALS} syncs in"
        " them, or no memory for another"),
    IDS_FULL: f"more than {MOST_IDS} resources, or no memory for another",
    WAIT_FLAGS: "unknown flags {0:#x}",
    WAIT_LIST: "{0} bytes are no list of syncs",
    BATCHES: "{0} batches in {1} bytes",
    BATCH_FLAGS: "batch {0}: flags {1:#x} are not in protocol version 3",
    BATCH_END: "batch {0} ends outside the message",
    BATCH_TIMELINE: "batch {0}: no timeline {1}",
    NO_RESOURCE: "no resource {0}",
    BLOB_TYPE: "blob type {0} with blob id {1}",
    BLOB_SIZE: "size 0",
}


cdef class Server(Reader):
    cdef Port port              # None before there is a context
    cdef object no_room         # told of blobs for which there is none
    cdef int unmappable         # what clients get for those
    cdef Syncs *syncs
    cdef Ids ids
    cdef Poll answer_poll

    def __cinit__(self, *_, **__):
        self.syncs = syncs_new()

    def __init__(self, int fd, *, int unmappable, no_room):
        Reader.__init__(self, fd)
        self.unmappable = unmappable
        self.no_room = no_room

    def __dealloc__(self):
        if self.syncs != NULL:
            syncs_close(self.syncs)
        ids_free(&self.ids)

    def attach(self, Port port not None):
        self.port = port
        hesper_precise_sleep()      # this thread is the one that polls

    def close(self):
        if self.syncs != NULL:
            syncs_close(self.syncs)
            self.syncs = NULL
        self.port = None

    @property
    def what(self):
        return "header" if self.in_header else wire.Command(self.header.command).name

    def next(self):
        cdef Outcome outcome
        cdef Port port = self.port
        with nogil:
            outcome = self.loop(port)
            if port is not None:
                port.leave()
                if outcome == DONE:
                    port.catch_up()
        if outcome == LEFT:
            return None
        if outcome != DONE:
            self.complain(outcome)
        if self.data == NULL:
            return self.header.command, self.header.length, None
        return self.header.command, self.header.length, PyMemoryView_FromMemory(
            <char *>self.data, self.size, PyBUF_READ)

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
        if outcome == NO_MEMORY:
            raise ClientError(f"{self.what}: out of memory")
        raise OSError(self.error, "the client's socket failed")

    cdef Outcome loop(self, Port port) noexcept nogil:
        """Serve messages until there is one for the session, or none any more."""
        cdef Outcome outcome
        while True:
            outcome = self.next_message(port)
            if outcome != DONE or self.data == NULL or not self.is_served_here():
                return outcome
            outcome = self.serve(port)
            if outcome != DONE:
                return outcome

    cdef bint is_served_here(self) noexcept nogil:
        return (COMMAND_SYNC_CREATE <= self.header.command <= COMMAND_SUBMIT_CMD2
                or self.header.command == COMMAND_RESOURCE_CREATE_BLOB
                or self.header.command == COMMAND_RESOURCE_UNREF)

    cdef Outcome answer_with(self, const void *data, size_t size, int passed) noexcept nogil:
        """Answer, and then pass a copy of a descriptor on a byte of its own.

        Clients read the answer with plain read(2), which would drop a descriptor attached to it.
        """
        cdef size_t done = 0
        while hesper_send_before_descriptor(self.fd, data, size, passed, &done):
            if errno != EINTR:
                return self.failed()
            if self.interrupted():
                return INTERRUPTED
        return DONE

    cdef Outcome serve(self, Port port) noexcept nogil:
        """Serve the message that was read."""
        cdef uint32_t command = self.header.command
        if command == COMMAND_SUBMIT_CMD2:
            return self.submit(port)
        if command == COMMAND_SYNC_WAIT:
            return self.wait_for_syncs(port)
        if command == COMMAND_SYNC_CREATE:
            return self.create_sync()
        if command == COMMAND_RESOURCE_CREATE_BLOB:
            return self.create_blob(port)
        if command == COMMAND_RESOURCE_UNREF:
            return self.unref_resource(port)
        return self.use_sync(<const WirePoint *>self.data)

    # Resources.

    cdef Outcome create_blob(self, Port port) noexcept nogil:
        cdef const WireBlob *asked = <const WireBlob *>self.data
        cdef ReplyU32 reply
        cdef int fd
        if asked.type != BLOB_HOST3D and (asked.type != BLOB_GUEST or asked.blob_id):
            return self.wrong(BLOB_TYPE, asked.type, asked.blob_id)
        if asked.size == 0:
            return self.wrong(BLOB_SIZE)
        reply.length = 1
        reply.command = COMMAND_RESOURCE_CREATE_BLOB
        reply.value = ids_take(&self.ids)
        if reply.value == 0:
            return self.wrong(IDS_FULL)
        fd = port.create_blob(reply.value, asked.blob_id, asked.size, asked.flags)
        if fd < 0:
            if not self.is_for_lack_of_room(port, asked.size):
                return INTERRUPTED
            # The protocol has no error reply, but a client whose mmap fails takes it for lack of
            # memory and reports that to its application.
            self.ids.owners[reply.value] = CLIENT
            fd = self.unmappable
        return self.answer_with(&reply, sizeof(reply), fd)

    cdef bint is_for_lack_of_room(self, Port port, uint64_t size) noexcept with gil:
        """Whether that is why the context has refused a blob; if not, that is to be raised."""
        try:
            error = port.refusal()
            if not isinstance(error, (MemoryError, OSError)):
                raise error
            self.no_room(size, error)
        except BaseException as error:
            self.interrupt = error
            return False
        return True

    cdef Outcome unref_resource(self, Port port) noexcept nogil:
        cdef uint32_t id = (<const uint32_t *>self.data)[0]
        cdef Owner owner = ids_owner(&self.ids, id)
        if owner == NOBODY:
            return self.wrong(NO_RESOURCE, id)
        if owner == CONTEXT and port.destroy_blob(id):
            return REFUSED
        ids_give(&self.ids, id)
        return DONE

    # Syncs.

    cdef Outcome create_sync(self) noexcept nogil:
        cdef ReplyU32 reply
        cdef uint64_t value
        memcpy(&value, self.data, sizeof(value))
        reply.length = 1
        reply.command = COMMAND_SYNC_CREATE
        pthread_mutex_lock(&self.syncs.lock)
        reply.value = sync_create(self.syncs, value)
        pthread_mutex_unlock(&self.syncs.lock)
        return self.answer(&reply, sizeof(reply)) if reply.value else self.wrong(SYNCS_FULL)

    cdef Outcome use_sync(self, const WirePoint *asked) noexcept nogil:
        """Read, write or forget a sync; the value is there for a write alone."""
        cdef ReplyU64 reply
        cdef Point point
        cdef Wait *over = NULL
        point.sync = sync_find(self.syncs, asked.sync)
        if point.sync == NULL:
            return self.wrong(NO_SYNC, asked.sync)
        reply.length = 2
        reply.command = COMMAND_SYNC_READ
        reply.value = 0
        pthread_mutex_lock(&self.syncs.lock)
        if self.header.command == COMMAND_SYNC_UNREF:
            sync_forget(self.syncs, asked.sync)
        elif self.header.command == COMMAND_SYNC_WRITE:
            point.value = asked.value
            over = syncs_signal(self.syncs, &point, 1, False)
        else:
            reply.value = point.sync.value
        pthread_mutex_unlock(&self.syncs.lock)
        syncs_wake(self.syncs, over)
        if self.header.command != COMMAND_SYNC_READ:
            return DONE
        return self.answer(&reply, sizeof(reply))

    cdef Outcome wait_for_syncs(self, Port port) noexcept nogil:
        """Answer with a descriptor to poll."""
        cdef const WireWait *asked = <const WireWait *>self.data
        cdef const WirePoint *wanted = <const WirePoint *>(self.data + sizeof(asked[0]))
        cdef uint64_t size = self.size - sizeof(asked[0])
        cdef uint32_t count = <uint32_t>(size // sizeof(wanted[0]))
        cdef bint either = asked.flags & WAIT_EITHER
        cdef Header reply
        cdef int64_t unknown = -1
        cdef Point *points
        cdef bint owned
        cdef int fd
        cdef Outcome outcome
        if asked.flags & ~<uint32_t>WAIT_EITHER:
            return self.wrong(WAIT_FLAGS, asked.flags)
        if size != count * sizeof(wanted[0]):
            return self.wrong(WAIT_LIST, size)
        points = <Point *>malloc((count + 1) * sizeof(Point))
        if points == NULL:
            return NO_MEMORY
        if not points_read(self.syncs, wanted, count, points, &unknown):
            free(points)
            return self.wrong(NO_SYNC, <uint64_t>unknown)
        if asked.timeout_ms:
            self.hold_answer(port, points, count, either)
        fd = wait_begin(self.syncs, points, count, either, asked.timeout_ms, &owned)
        if fd < 0:
            return self.wrong(WAITS_FULL)
        reply.length = 0
        reply.command = COMMAND_SYNC_WAIT
        outcome = self.answer_with(&reply, sizeof(reply), fd)
        if owned:
            close(fd)
            # The client need not wait for this.
            pthread_mutex_lock(&self.syncs.lock)
            syncs_unpark(self.syncs)
            syncs_provide(self.syncs)
            pthread_mutex_unlock(&self.syncs.lock)
        return outcome

    cdef void hold_answer(self, Port port, const Point *points, uint32_t count,
                          bint either) noexcept nogil:
        """Look at the fences for a while before a wait is answered, if that has paid off lately.

        A client that is answered when its wait is over sleeps once: not for the answer and again
        for the descriptor.  No other thread of it can send anything until then.
        """
        if not poll_begin(&self.answer_poll, POLL_ANSWER):
            return
        while port.attend() and not points_are_reached(self.syncs, points, count, either):
            if not poll_step(&self.answer_poll, port.polling):
                return

    # Submissions.

    cdef Outcome submit(self, Port port) noexcept nogil:
        """Batches: commands for the context's own stream, and syncs that a fence signals.

        Mesa 25.0 sends batches of six words, 26.1 two more for DRM sync objects, which mean
        something from protocol version 4 on.
        """
        cdef uint32_t count = (<const uint32_t *>self.data)[0]
        cdef const uint8_t *first = self.data + sizeof(count)
        cdef uint64_t stride = LONG_BATCH
        cdef uint32_t i
        cdef Outcome outcome
        # The first commands follow the last batch.
        if (count and self.size >= sizeof(count) + sizeof(WireBatch)
                and (<const WireBatch *>first).commands * <uint64_t>4
                == sizeof(count) + count * <uint64_t>sizeof(WireBatch)):
            stride = sizeof(WireBatch)
        if sizeof(count) + count * stride > self.size:
            return self.wrong(BATCHES, count, self.size)
        for i in range(count):
            outcome = self.submit_batch(port, i, <const WireBatch *>(first + i * stride))
            if outcome != DONE:
                return outcome
        return DONE

    cdef Outcome submit_batch(self, Port port, uint32_t index,
                              const WireBatch *asked) noexcept nogil:
        cdef uint64_t commands = asked.commands * <uint64_t>4
        cdef uint64_t command_size = asked.command_size * <uint64_t>4
        cdef uint64_t syncs = asked.syncs * <uint64_t>4
        cdef uint32_t ring_idx = asked.ring_idx if asked.flags else 0
        cdef int64_t unknown = -1
        cdef Batch *batch
        if asked.flags & ~<uint32_t>BATCH_RING_IDX:
            return self.wrong(BATCH_FLAGS, index, asked.flags)
        if (commands + command_size > self.size
                or syncs + asked.sync_count * <uint64_t>sizeof(WirePoint) > self.size):
            return self.wrong(BATCH_END, index)
        if ring_idx >= MAX_TIMELINES:
            return self.wrong(BATCH_TIMELINE, index, ring_idx)
        if command_size and port.submit(self.data + commands, command_size):
            return REFUSED
        if asked.sync_count == 0:
            return DONE
        batch = batch_new(
            self.syncs, <const WirePoint *>(self.data + syncs), asked.sync_count, &unknown)
        if batch == NULL:
            return self.wrong(BATCHES_FULL if unknown < 0 else NO_SYNC, <uint64_t>unknown)
        if port.fence(ring_idx, batch_retired, batch):
            batch_retired(batch, False)
            return REFUSED
        return DONE
