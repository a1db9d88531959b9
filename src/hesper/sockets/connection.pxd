"""A stream socket, and what a thread that serves it may come to."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from hesper.kernel.core.polling cimport Poll
from hesper.kernel.port cimport Port


cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_DONTWAIT
        MSG_PEEK
        MSG_WAITALL
    ssize_t recv(int fd, void *data, size_t size, int flags)
    ssize_t send(int fd, const void *data, size_t size, int flags)


cdef extern from "<unistd.h>" nogil:
    int close(int fd)


cdef extern from "sockets.h" nogil:
    enum:
        HESPER_MOST_PASSED
    int hesper_pipe(int *ends)
    int hesper_send_before_descriptor(int fd, const void *data, size_t size, int passed,
                                      size_t *done)
    int hesper_send_whole(int fd, const void *data, size_t size, int passed)
    ssize_t hesper_receive(int fd, void *data, size_t size, int flags, int *passed,
                           uint32_t *count)
    bint hesper_is_left(int fd)


cdef enum Outcome:
    DONE
    LEFT                        # the other side, between messages or without its answer
    TRUNCATED                   # it left inside a message
    INTERRUPTED                 # Python code has raised, a signal handler as a rule
    REFUSED                     # by the context
    WRONG                       # the message: see `Connection.fault`
    NO_MEMORY
    FAILED                      # a call of the socket


cdef class Connection:
    cdef int fd
    cdef Poll poll              # for the next message
    cdef object interrupt
    cdef int error              # errno of FAILED
    cdef uint64_t have          # of `want` bytes when the other side left
    cdef uint64_t want
    cdef int fault              # of WRONG, a number of the subclass, and what is to be said of it
    cdef uint64_t a
    cdef uint64_t b

    cdef Outcome receive(self, uint8_t *target, uint64_t size) noexcept nogil
    cdef Outcome answer(self, const void *data, size_t size) noexcept nogil
    cdef Outcome failed(self) noexcept nogil
    cdef Outcome wrong(self, int fault, uint64_t a=*, uint64_t b=*) noexcept nogil
    cdef bint interrupted(self) noexcept with gil
    cdef bint look_for_message(self) noexcept nogil
    cdef bint poll_message(self, Port port) noexcept nogil
