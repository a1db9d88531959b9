"""Serves a device: the loop over its messages, and those that need no Python.

They are SUBMIT, FENCE, CREATE_BLOB and DESTROY of `context_wire`.
"""

from typing import Protocol

from hesper.kernel.port import Port
from hesper.sockets.connection import Connection

class Owner(Protocol):
    """Is told what the context will not do.  Called by the thread that calls `next`."""

    def blob_refused(self, error: Exception) -> int:
        """Return the `Response` of virtio-gpu that the device is to get."""

    def resource_refused(self, error: Exception) -> None:
        """Take note that a resource was not destroyed."""

    def timeline_refused(self, error: Exception) -> None:
        """End the context: the guest has asked for a fence of a timeline that is not there."""

class Server(Connection):
    """The worker's end of a device's socket.  Its messages are those of `portable.send_message`."""

    destroying: bool
    """Whether a resource is being destroyed: its memory may be in use."""

    def __init__(self, fd: int, owner: Owner) -> None:
        """Read from and write to `fd`, a blocking stream socket, which the caller closes."""
    def attach(self, port: Port) -> None:
        """Serve this context; called by the thread that calls `next`."""
    def next(self) -> tuple[int, memoryview, list[int]] | None:
        """Return the next message that is not served here: kind, body, descriptors.

        The body is valid until the next call; the descriptors belong to the caller.  None when the
        device has hung up.
        Raises `ConnectionError` for a message that is wrong or not whole, and `OSError`.
        """
    def send(self, kind: int, body: bytes) -> None:
        """Send a message from any thread; nothing happens when the device has hung up."""
    def close(self) -> None:
        """Send nothing any more, whatever fences retire; call it before the socket is closed.

        Not while `next` is called.
        """
