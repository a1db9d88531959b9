"""A stream socket, and how the thread that serves it waits for the next message."""

from libc.errno cimport EINTR, ECONNRESET, EPIPE, errno
from libc.stdint cimport uint8_t, uint64_t

from hesper.kernel.core.platform cimport hesper_now_ns
from hesper.kernel.core.polling cimport (
    POLL_MESSAGE, POLL_MESSAGE_OR_FENCE, poll_begin, poll_step, polling_patience)
from hesper.kernel.port cimport Port

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1


class TruncatedError(Exception):
    pass


cdef class Connection:
    def __cinit__(self, int fd, *_, **__):
        self.fd = fd

    cdef Outcome receive(self, uint8_t *target, uint64_t size) noexcept nogil:
        """Receive `size` bytes.

        The other side may write a message in many small pieces; this waits in the kernel for the
        last byte instead of coming back for each piece.
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
        return DONE

    cdef Outcome answer(self, const void *data, size_t size) noexcept nogil:
        """Send `size` bytes."""
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
        return DONE

    cdef Outcome failed(self) noexcept nogil:
        """What a failed call of the socket means."""
        self.error = errno
        return LEFT if errno == EPIPE or errno == ECONNRESET else FAILED

    cdef Outcome wrong(self, int fault, uint64_t a=0, uint64_t b=0) noexcept nogil:
        """Note what is wrong with a message."""
        self.fault = fault
        self.a = a
        self.b = b
        return WRONG

    cdef bint interrupted(self) noexcept with gil:
        """Let Python handle signals; whether a handler has raised."""
        try:
            PyErr_CheckSignals()
        except BaseException as error:
            self.interrupt = error
            return True
        return False

    cdef bint look_for_message(self) noexcept nogil:
        """Whether the socket has something to be served, without waiting."""
        return True

    cdef bint poll_message(self, Port port) noexcept nogil:
        """Stay awake for the next message, and for fences; whether there may be one to serve.

        The end of the stream, or an error, counts as one.
        """
        cdef bint pending
        cdef bint was_pending
        if port is None or polling_patience(port.polling, hesper_now_ns()) == 0:
            return False
        pending = port.attend()
        self.poll.fd = self.fd
        if not poll_begin(&self.poll, POLL_MESSAGE_OR_FENCE if pending else POLL_MESSAGE):
            return False
        while not self.look_for_message():
            was_pending = pending
            pending = port.attend()
            if was_pending and not pending:
                poll_begin(&self.poll, POLL_MESSAGE)
            if not poll_step(&self.poll, port.polling):
                return False
        return True
