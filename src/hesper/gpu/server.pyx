"""Serves a device: the loop over its messages, and those that need no Python; `server.pyi`."""

from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport EAGAIN, EINTR, EMSGSIZE, errno
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove

from hesper_context_wire cimport (
    DOWN_CREATE_BLOB, DOWN_DESTROY, DOWN_FENCE, DOWN_SUBMIT, MAX_FDS, MAX_MESSAGE, OK_NODATA,
    UP_BLOB, Frame)
from hesper_context_wire cimport Blob as WireBlob
from hesper_context_wire cimport CreateBlob as WireCreateBlob
from hesper_context_wire cimport Destroy as WireDestroy
from hesper_context_wire cimport Fence as WireFence
from hesper_virtgpu cimport MAP_CACHE_CACHED

from hesper.gpu.sender cimport (
    Fence, Sender, fence_new, fence_retired, sender_close, sender_new, sender_release, sender_say,
    sender_send)
from hesper.kernel.core.platform cimport hesper_precise_sleep
from hesper.kernel.port cimport Port
from hesper.sockets.connection cimport (
    DONE, HESPER_MOST_PASSED, INTERRUPTED, LEFT, MSG_DONTWAIT, NO_MEMORY, TRUNCATED,
    WRONG, Connection, Outcome, close, hesper_receive)

from hesper.gpu.context_wire import KIND
from hesper.portable import FRAME

cdef extern from "Python.h":
    enum:
        PyBUF_READ

cdef enum:
    ROOM = 65536                # of the buffer, as long as messages are no longer


cdef enum Fault:
    TOO_LARGE                   # a: bytes or descriptors, b: the most there may be
    TOO_SHORT                   # a: bytes
    MISFIT                      # a: kind, b: bytes
    MISSING                     # a: descriptors announced, b: those that came
    UNANNOUNCED                 # a: descriptors
    LOST


FAULTS = {
    TOO_LARGE: "{0} are too many, {1} at most",
    TOO_SHORT: "a message of {0} bytes has no kind",
    MISFIT: "message {0} has {1} bytes",
    MISSING: "{0} descriptors are announced, {1} came",
    UNANNOUNCED: "{0} descriptors belong to no message",
    LOST: f"a descriptor was lost: more than {HESPER_MOST_PASSED} came, or none was free",
}


cdef class Server(Connection):
    cdef object owner
    cdef Port port
    cdef Sender *sender
    cdef readonly bint destroying
    # What was received and is not done with.
    cdef uint8_t *buffer
    cdef size_t room
    cdef size_t start
    cdef size_t end
    cdef int passed[HESPER_MOST_PASSED]
    cdef uint32_t passed_count
    cdef bint lost              # a descriptor
    # The current message.
    cdef Frame frame
    cdef const uint8_t *body
    cdef uint32_t size

    def __cinit__(self, int fd, *_, **__):
        self.sender = sender_new(fd)

    def __init__(self, int fd, owner):
        self.owner = owner

    def __dealloc__(self):
        self.drop_passed(self.passed_count)
        if self.sender != NULL:
            sender_close(self.sender)
            sender_release(self.sender)
        free(self.buffer)

    def attach(self, Port port not None):
        self.port = port
        hesper_precise_sleep()      # this thread is the one that polls

    def close(self):
        with nogil:
            sender_close(self.sender)
            self.drop_passed(self.passed_count)

    def send(self, uint32_t kind, bytes body not None):
        cdef bytes message = FRAME.pack(KIND.size + len(body), 0) + KIND.pack(kind) + body
        cdef const char *data = message
        cdef size_t size = len(message)
        with nogil:
            sender_send(self.sender, data, size, -1)

    def next(self):
        cdef Port port = self.port
        cdef Outcome outcome
        cdef uint32_t i
        with nogil:
            outcome = self.loop(port)
            port.leave()
            if outcome == DONE:
                port.catch_up()
        if outcome == LEFT:
            return None
        if outcome != DONE:
            self.complain(outcome)
        fds = [self.passed[i] for i in range(self.frame.descriptors)]
        self.forget_passed(self.frame.descriptors)
        return self.frame.kind, PyMemoryView_FromMemory(
            <char *>self.body, self.size, PyBUF_READ), fds

    cdef int complain(self, Outcome outcome) except -1:
        """Raise what `outcome` stands for."""
        if outcome == TRUNCATED:
            raise ConnectionError(f"the stream ended after {self.have} of {self.want} bytes")
        if outcome == INTERRUPTED:
            raise self.interrupt
        if outcome == WRONG:
            raise ConnectionError(FAULTS[self.fault].format(self.a, self.b))
        if outcome == NO_MEMORY:
            raise MemoryError
        raise OSError(self.error, "the device's socket failed")

    cdef void forget_passed(self, uint32_t count) noexcept nogil:
        """Have the first `count` descriptors no more."""
        self.passed_count -= count
        memmove(self.passed, self.passed + count, self.passed_count * sizeof(int))

    cdef void drop_passed(self, uint32_t count) noexcept nogil:
        """Close the first `count` descriptors."""
        cdef uint32_t i
        for i in range(count):
            close(self.passed[i])
        self.forget_passed(count)

    # Reading.

    cdef Outcome next_message(self, Port port) noexcept nogil:
        """Have the next message in `frame`, `body` and `size`."""
        cdef Outcome outcome
        cdef bint found = False
        while True:
            outcome = self.find(&found)
            if outcome != DONE or found:
                return outcome
            outcome = self.receive_more(port)
            if outcome != DONE:
                return outcome

    cdef Outcome find(self, bint *found) noexcept nogil:
        """Take the next message out of the buffer, if it is there as a whole."""
        cdef size_t there = self.end - self.start
        cdef size_t size
        if there < sizeof(self.frame):
            return DONE
        memcpy(&self.frame, self.buffer + self.start, sizeof(self.frame))
        if self.frame.length > MAX_MESSAGE:
            return self.wrong(TOO_LARGE, self.frame.length, MAX_MESSAGE)
        if self.frame.descriptors > MAX_FDS:
            return self.wrong(TOO_LARGE, self.frame.descriptors, MAX_FDS)
        if self.frame.length < sizeof(self.frame.kind):
            return self.wrong(TOO_SHORT, self.frame.length)
        self.size = self.frame.length - <uint32_t>sizeof(self.frame.kind)
        size = sizeof(self.frame) + self.size
        if there < size:
            return DONE
        if self.passed_count < self.frame.descriptors:
            return self.wrong(MISSING, self.frame.descriptors, self.passed_count)
        if there == size and self.passed_count > self.frame.descriptors:
            return self.wrong(UNANNOUNCED, self.passed_count - self.frame.descriptors)
        if self.start & 3:
            # Commands are read by words.
            memmove(self.buffer, self.buffer + self.start, there)
            self.end = there
            self.start = 0
        self.body = self.buffer + self.start + sizeof(self.frame)
        self.start += size
        found[0] = True
        return DONE

    cdef Outcome make_room(self) noexcept nogil:
        """Have room behind what is in the buffer, for the message that is to come at least."""
        cdef size_t there = self.end - self.start
        cdef size_t wanted = sizeof(self.frame)
        cdef uint8_t *buffer
        if there >= sizeof(self.frame):
            wanted += self.size
        if there == 0 or wanted > self.room - self.start or self.end == self.room:
            if there:
                memmove(self.buffer, self.buffer + self.start, there)
            self.start = 0
            self.end = there
        if wanted < ROOM:
            wanted = ROOM
        if wanted > self.room:
            buffer = <uint8_t *>realloc(self.buffer, wanted)
            if buffer == NULL:
                return NO_MEMORY
            self.buffer = buffer
            self.room = wanted
        return DONE

    cdef Outcome receive_more(self, Port port) noexcept nogil:
        """Wait for more bytes, and receive them."""
        cdef ssize_t count
        cdef size_t before
        cdef Outcome outcome = self.make_room()
        if outcome != DONE:
            return outcome
        count = self.receive_some(MSG_DONTWAIT)
        if count < 0 and errno == EAGAIN:
            before = self.end
            if self.poll_message(port) and (self.lost or self.end > before):
                return self.wrong(LOST) if self.lost else DONE
            port.leave()
            count = self.receive_some(0)
        while count < 0 and errno == EINTR:
            if self.interrupted():
                return INTERRUPTED
            count = self.receive_some(0)
        if count > 0:
            return DONE
        if count < 0:
            return self.wrong(LOST) if self.lost else self.failed()
        self.have = self.end - self.start
        self.want = sizeof(self.frame)
        if self.have >= self.want:
            self.want += self.size
        return TRUNCATED if self.have else LEFT

    cdef ssize_t receive_some(self, int flags) noexcept nogil:
        cdef ssize_t count = hesper_receive(
            self.fd, self.buffer + self.end, self.room - self.end, flags, self.passed,
            &self.passed_count)
        if count > 0:
            self.end += <size_t>count
        elif count < 0 and errno == EMSGSIZE:
            self.lost = True
        return count

    cdef bint look_for_message(self) noexcept nogil:
        """Whether something has come; also when the device has gone, or the socket has failed."""
        cdef ssize_t count = self.receive_some(MSG_DONTWAIT)
        return count >= 0 or (errno != EAGAIN and errno != EINTR)

    # Serving.

    cdef Outcome loop(self, Port port) noexcept nogil:
        """Serve messages until there is one for Python, or none any more."""
        cdef uint32_t kind
        cdef Outcome outcome
        while True:
            outcome = self.next_message(port)
            if outcome != DONE:
                return outcome
            kind = self.frame.kind
            if (kind != DOWN_SUBMIT and kind != DOWN_FENCE and kind != DOWN_CREATE_BLOB
                    and kind != DOWN_DESTROY):
                return DONE
            self.drop_passed(self.frame.descriptors)
            if kind == DOWN_SUBMIT:
                outcome = self.submit(port)
            elif kind == DOWN_FENCE:
                outcome = self.fence(port)
            elif kind == DOWN_CREATE_BLOB:
                outcome = self.create_blob(port)
            else:
                outcome = self.destroy(port)
            if outcome != DONE:
                return outcome

    cdef Outcome misfit(self) noexcept nogil:
        return self.wrong(MISFIT, self.frame.kind, self.frame.length)

    cdef Outcome submit(self, Port port) noexcept nogil:
        if self.size and port.submit(self.body, self.size):
            return self.refuse_commands(port)
        return DONE

    cdef Outcome refuse_commands(self, Port port) noexcept with gil:
        """End the context.  The device is told so by whoever poisons it, and hangs up."""
        try:
            port.refusal()
        except BaseException as error:
            self.interrupt = error
            return INTERRUPTED
        return DONE

    cdef Outcome fence(self, Port port) noexcept nogil:
        cdef const WireFence *asked = <const WireFence *>self.body
        cdef Fence *fence
        cdef Outcome outcome = DONE
        if self.size != sizeof(asked[0]):
            return self.misfit()
        fence = fence_new(self.sender, asked.serial)
        if fence == NULL:
            return NO_MEMORY
        if port.fence(asked.ring_idx, fence_retired, fence):
            outcome = self.refuse_timeline(port)
            fence_retired(fence, False)
        return outcome

    cdef Outcome refuse_timeline(self, Port port) noexcept with gil:
        try:
            self.owner.timeline_refused(port.refusal())
        except BaseException as error:
            self.interrupt = error
            return INTERRUPTED
        return DONE

    cdef Outcome create_blob(self, Port port) noexcept nogil:
        cdef const WireCreateBlob *asked = <const WireCreateBlob *>self.body
        cdef WireBlob answer
        cdef Outcome outcome = DONE
        cdef int fd
        if self.size != sizeof(asked[0]):
            return self.misfit()
        answer.serial = asked.serial
        answer.response = OK_NODATA
        answer.map_info = MAP_CACHE_CACHED
        fd = port.create_blob(asked.resource_id, asked.blob_id, asked.size, asked.flags)
        if fd < 0:
            answer.map_info = 0
            outcome = self.refuse_blob(port, &answer)
        sender_say(self.sender, UP_BLOB, &answer, sizeof(answer), fd)
        return outcome

    cdef Outcome refuse_blob(self, Port port, WireBlob *answer) noexcept with gil:
        try:
            answer.response = self.owner.blob_refused(port.refusal())
        except BaseException as error:
            self.interrupt = error
            return INTERRUPTED
        return DONE

    cdef Outcome destroy(self, Port port) noexcept nogil:
        cdef const WireDestroy *asked = <const WireDestroy *>self.body
        cdef Outcome outcome = DONE
        if self.size != sizeof(asked[0]):
            return self.misfit()
        self.destroying = True
        if port.destroy_blob(asked.resource_id):
            outcome = self.refuse_resource(port)
        self.destroying = False
        return outcome

    cdef Outcome refuse_resource(self, Port port) noexcept with gil:
        try:
            self.owner.resource_refused(port.refusal())
        except BaseException as error:
            self.interrupt = error
            return INTERRUPTED
        return DONE
