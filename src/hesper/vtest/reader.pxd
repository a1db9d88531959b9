"""A client's messages, one after the other."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from hesper_vtest_wire cimport COMMAND_SUBMIT_CMD2, Header

from hesper.kernel.core.polling cimport Poll, Polling
from hesper.kernel.port cimport Port
from hesper.sockets.connection cimport Connection, Outcome


cdef struct Shape:
    # What a message may look like; see `wire.Request`.
    uint32_t unit               # 0: no command that a Venus client sends
    uint64_t shortest
    uint64_t longest
    uint32_t first
    uint32_t last


cdef class Reader(Connection):
    cdef Shape shapes[COMMAND_SUBMIT_CMD2 + 1]
    cdef public uint32_t phase
    cdef Header header          # of the message that was read last
    cdef bint in_header         # no message was read since the last one was done with
    cdef const uint8_t *data    # behind it; null: it is wrong
    cdef uint64_t size
    # The buffer holds what the socket has, from its front on.
    cdef uint8_t *buffer
    cdef uint8_t *large         # of a message that it does not hold
    cdef uint64_t seen          # bytes in it
    cdef uint64_t served        # of them, bytes of messages that are done with
    cdef uint64_t current       # bytes of the current message that are in the socket
    cdef Poll rest_poll
    cdef Polling own_polling    # before there is a context

    cdef Outcome next_message(self, Port port) noexcept nogil
    cdef bint find(self) noexcept nogil
    cdef bint take_header(self, uint64_t at) noexcept nogil
    cdef void peek(self) noexcept nogil
    cdef Outcome await_message(self, Port port) noexcept nogil
    cdef Outcome take_served(self) noexcept nogil
    cdef bint await_rest(self, Polling *polling) noexcept nogil
    cdef bint is_begun(self) noexcept nogil
    cdef Outcome receive_message(self, Port port) noexcept nogil
    cdef Outcome receive_data(self, uint8_t *target) noexcept nogil
