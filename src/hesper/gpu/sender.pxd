"""What goes to a device, from whichever thread: its socket, while it is open, and who may send."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from hesper_context_wire cimport UP_RETIRED, Frame
from hesper_context_wire cimport Retired as WireRetired

from hesper.kernel.core.platform cimport (
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t,
    pthread_mutex_unlock)
from hesper.sockets.connection cimport hesper_send_whole


cdef enum:
    MOST_SAID = 64              # bytes of a message of `sender_say`


cdef struct Sender:
    pthread_mutex_t lock        # held while a message is sent, so that it stays in one piece
    int fd                      # -1: closed
    uint32_t owners             # the server, and fences that are pending; atomic? the lock


cdef struct Fence:
    Sender *sender
    uint64_t serial


cdef inline Sender *sender_new(int fd) except NULL:
    cdef Sender *sender = <Sender *>calloc(1, sizeof(Sender))
    if sender == NULL or pthread_mutex_init(&sender.lock, NULL):
        free(sender)
        raise MemoryError
    sender.fd = fd
    sender.owners = 1
    return sender


cdef inline void sender_release(Sender *sender) noexcept nogil:
    """Give up one ownership."""
    cdef uint32_t left
    pthread_mutex_lock(&sender.lock)
    sender.owners -= 1
    left = sender.owners
    pthread_mutex_unlock(&sender.lock)
    if left == 0:
        pthread_mutex_destroy(&sender.lock)
        free(sender)


cdef inline void sender_close(Sender *sender) noexcept nogil:
    """Send nothing any more."""
    pthread_mutex_lock(&sender.lock)
    sender.fd = -1
    pthread_mutex_unlock(&sender.lock)


cdef inline void sender_send(Sender *sender, const void *frame, size_t size,
                             int passed) noexcept nogil:
    """Send a message, with a copy of a descriptor unless that is -1.

    Waits while the socket is full.  A device that has hung up is no error: the server sees it.
    """
    pthread_mutex_lock(&sender.lock)
    if sender.fd >= 0:
        hesper_send_whole(sender.fd, frame, size, passed)
    pthread_mutex_unlock(&sender.lock)


cdef inline void sender_say(Sender *sender, uint32_t kind, const void *body, uint32_t size,
                            int passed) noexcept nogil:
    """Send a short message."""
    cdef char message[MOST_SAID]
    cdef Frame frame
    frame.length = <uint32_t>sizeof(kind) + size
    frame.descriptors = passed >= 0
    frame.kind = kind
    memcpy(message, &frame, sizeof(frame))
    if size:
        memcpy(message + sizeof(frame), body, size)
    sender_send(sender, message, sizeof(frame) + size, passed)


cdef inline Fence *fence_new(Sender *sender, uint64_t serial) noexcept nogil:
    """What a device waits for; null without memory."""
    cdef Fence *fence = <Fence *>calloc(1, sizeof(Fence))
    if fence == NULL:
        return NULL
    fence.sender = sender
    fence.serial = serial
    pthread_mutex_lock(&sender.lock)
    sender.owners += 1
    pthread_mutex_unlock(&sender.lock)
    return fence


cdef inline void fence_retired(void *data, bint lost) noexcept nogil:
    """Tell the device; that its own device is lost a guest hears on its ring."""
    cdef Fence *fence = <Fence *>data
    cdef Sender *sender = fence.sender
    cdef WireRetired body
    body.serial = fence.serial
    free(fence)
    sender_say(sender, UP_RETIRED, &body, sizeof(body), -1)
    sender_release(sender)
