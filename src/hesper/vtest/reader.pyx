"""A client's messages, one after the other; `reader.pyi`."""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from hesper_vtest_wire cimport COMMAND_SUBMIT_CMD2

from hesper.kernel.core.polling cimport POLL_MESSAGE_REST, Polling, poll_begin, poll_step
from hesper.kernel.port cimport Port
from hesper.sockets.connection cimport (
    DONE, INTERRUPTED, LEFT, MSG_DONTWAIT, MSG_PEEK, NO_MEMORY, TRUNCATED, Outcome, recv)

from hesper.vtest import wire

cdef enum:
    ROOM = 65536                # of the buffer; longer messages get one of their own
    # Bytes that stay in the socket.  A few fill the account of a sender of small pieces, which is
    # charged some hundred bytes for each.
    MOST_SERVED = 2048


cdef class Reader(Connection):
    def __cinit__(self, *_, **__):
        self.buffer = <uint8_t *>malloc(ROOM)
        if self.buffer == NULL:
            raise MemoryError

    def __init__(self, int fd):
        for number, request in wire.REQUESTS.items():
            self.shapes[number].unit = request.unit
            self.shapes[number].shortest = request.shortest
            self.shapes[number].longest = request.longest
            self.shapes[number].first = request.first
            self.shapes[number].last = request.last
        self.in_header = True

    def __dealloc__(self):
        free(self.buffer)
        free(self.large)

    cdef Outcome next_message(self, Port port) noexcept nogil:
        """Have the next message in `header`, `data` and `size`, when the last one is done with.

        Taking messages off the socket wakes whoever waits on the other end, for nothing: a client
        does so until its last message is answered.
        """
        cdef Outcome outcome
        free(self.large)
        self.large = NULL
        self.served += self.current
        self.current = 0
        if self.served > self.seen:
            self.seen = self.served
        self.in_header = True
        # A client's name may have any length; other messages begin at whole dwords.
        if self.served >= MOST_SERVED or self.served & 3:
            outcome = self.take_served()
            if outcome != DONE:
                return outcome
        while not self.find():
            if self.seen == self.served:
                outcome = self.await_message(port)
                if outcome != DONE:
                    return outcome
            elif not self.await_rest(&self.own_polling if port is None else port.polling):
                return self.receive_message(port)
        return DONE

    cdef bint find(self) noexcept nogil:
        """Whether the next message lies in the buffer, or its header is wrong."""
        if self.seen < self.served + sizeof(self.header):
            return False
        if not self.take_header(self.served):
            return True
        if self.seen - self.served < sizeof(self.header) + self.size:
            return False
        self.in_header = False
        self.data = self.buffer + self.served + sizeof(self.header)
        self.current = sizeof(self.header) + self.size
        return True

    cdef bint take_header(self, uint64_t at) noexcept nogil:
        """Read the header at that place of the buffer; False: it is wrong, as Python will say."""
        cdef Shape *shape
        memcpy(&self.header, self.buffer + at, sizeof(self.header))
        self.data = NULL
        self.size = 0
        if self.header.command > COMMAND_SUBMIT_CMD2:
            return False
        shape = &self.shapes[self.header.command]
        self.size = self.header.length * <uint64_t>shape.unit
        return (shape.unit != 0 and shape.shortest <= self.size <= shape.longest
                and shape.first <= self.phase <= shape.last)

    cdef void peek(self) noexcept nogil:
        """Look at what the socket has, and leave it there."""
        cdef ssize_t count = recv(self.fd, self.buffer, ROOM, MSG_PEEK | MSG_DONTWAIT)
        if count > <ssize_t>self.seen:
            self.seen = <uint64_t>count

    cdef Outcome await_message(self, Port port) noexcept nogil:
        """Wait until something follows what is served."""
        cdef Outcome outcome
        cdef ssize_t count
        self.peek()
        if self.seen > self.served:
            return DONE
        outcome = self.take_served()
        # The end of the stream can be seen as well.
        if outcome != DONE or (self.poll_message(port) and self.seen):
            return outcome
        if port is not None:
            port.leave()
        while True:
            count = recv(self.fd, self.buffer, ROOM, MSG_PEEK)
            if count > 0:
                self.seen = <uint64_t>count
                return DONE
            if count == 0:
                return LEFT
            if errno != EINTR:
                return self.failed()
            if self.interrupted():
                return INTERRUPTED

    cdef bint look_for_message(self) noexcept nogil:
        """Whether there is a message that is whole as far as the buffer holds it."""
        cdef ssize_t count = recv(self.fd, self.buffer, ROOM, MSG_PEEK | MSG_DONTWAIT)
        if count < <ssize_t>sizeof(self.header):
            # The client has left, has just begun to write, or has not.
            if count > 0:
                self.seen = <uint64_t>count
            return count == 0 or (count < 0 and errno != EAGAIN and errno != EINTR)
        self.seen = <uint64_t>count
        return not self.take_header(0) or not self.is_begun()

    cdef Outcome take_served(self) noexcept nogil:
        """Take the messages that are served off the socket."""
        cdef uint64_t served = self.served
        self.served = 0
        self.seen = 0
        return self.receive(self.buffer, served) if served else DONE

    cdef bint await_rest(self, Polling *polling) noexcept nogil:
        """Let the client finish the message that it has begun to write; whether it has.

        It writes in many pieces.  To block for the next would mean to be woken for each, mostly in
        the client's place: Linux lets a thread that wakes up go first.
        """
        cdef uint64_t before = 0
        while self.is_begun():
            if self.seen != before:
                before = self.seen
                poll_begin(&self.rest_poll, POLL_MESSAGE_REST)
            if not poll_step(&self.rest_poll, polling):
                return False
            self.peek()
        return self.find()

    cdef bint is_begun(self) noexcept nogil:
        """Whether what is in the buffer, and not served, is the beginning of a message it holds."""
        cdef uint64_t rest = self.seen - self.served
        if rest < sizeof(self.header):
            return rest != 0
        return (self.take_header(self.served)
                and rest < sizeof(self.header) + self.size <= ROOM - self.served)

    cdef Outcome receive_message(self, Port port) noexcept nogil:
        """Wait for a message that is too long to be looked at in the socket, or slow to come.

        All but its last byte is taken off the socket.
        """
        cdef Outcome outcome = self.take_served()
        if outcome != DONE:
            return outcome
        if port is not None:
            port.leave()
        outcome = self.receive(self.buffer, sizeof(self.header))
        if outcome == TRUNCATED and self.have == 0:
            return LEFT
        if outcome != DONE or not self.take_header(0):
            return outcome
        self.in_header = False
        self.data = self.buffer
        if self.size > ROOM:
            self.large = <uint8_t *>malloc(self.size)
            if self.large == NULL:
                return NO_MEMORY
            self.data = self.large
        return self.receive_data(<uint8_t *>self.data) if self.size else DONE

    cdef Outcome receive_data(self, uint8_t *target) noexcept nogil:
        cdef ssize_t count
        cdef Outcome outcome = self.receive(target, self.size - 1)
        self.want = self.size
        while outcome == DONE:
            count = recv(self.fd, target + self.size - 1, 1, MSG_PEEK)
            if count == 1:
                self.current = 1
                return DONE
            if count == 0:
                return TRUNCATED
            if errno != EINTR:
                return self.failed()
            if self.interrupted():
                return INTERRUPTED
        return outcome
