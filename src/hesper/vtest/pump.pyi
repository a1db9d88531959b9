"""Reads a client's messages, and serves without Python those that every submission needs.

These are SUBMIT_CMD2 and the SYNC commands: Mesa sends four of them for a submission and the wait
for it.  So are RESOURCE_CREATE_BLOB and RESOURCE_UNREF where the context can do it (`Port`).  All
others are the session's.
"""

from collections.abc import Callable

from hesper.kernel.port import Port

class TruncatedError(Exception):
    """The stream ended in the middle of a message."""

class Pump:
    """A blocking stream socket that brings messages: a header, then data; and the client's syncs.

    A message stays in the socket until it is served, or at least its last byte does where it wants
    an answer: Mesa's client takes the end of the stream for an empty read and tries again for ever,
    but where bytes of its own are lost it gets ECONNRESET and gives up.
    """

    def __init__(self, fd: int) -> None:
        """Read from and write to `fd`, which the caller keeps open and closes.

        Raises `OSError` without descriptors for the syncs.
        """
    def attach(self, port: Port) -> None:
        """Serve submissions and syncs from now on; called by the thread that calls `header`."""
    def header(self) -> tuple[int, int] | None:
        """Return the next header that is not served here, (length, command); see `data`.

        A header of a command that is served here comes back when its length is out of bounds.
        None when the client has left between two messages, or without waiting for its answer.
        Raises `ClientError` for a message that is wrong, `TruncatedError`, `OSError`, and what the
        context refuses a submission with.
        """
    def data(self, size: int, *, hold: bool) -> memoryview:
        """Return the `size` bytes behind a header; they are valid until the next call.

        hold: leave the last byte in the socket until the next header is read.
        Raises `TruncatedError` and `OSError`.
        """
    @property
    def what(self) -> str:
        """Name of the command that is being served; `header` between two."""
    def new_resource(self) -> int:
        """Take an id for a resource that the session makes.  Raises `MemoryError`."""
    def drop_resource(self, resource_id: int) -> bool:
        """Give the id of a resource back; whether it was one."""
    def close(self) -> None:
        """Drop all syncs; fences that are still pending signal nothing."""

class CallbackPort(Port):
    """A port that calls Python: for contexts that are not the kernel's."""

    def __init__(
        self,
        submit: Callable[[memoryview], None],
        fence: Callable[[int, Retired], None],
    ) -> None:
        """submit: runs commands, valid only during the call.

        fence: calls its second argument, from any thread, when a timeline is through; with
        `lost=True` if that is because its device was lost.
        What they raise goes to the caller of `Pump.header`.
        """

class Retired:
    """What a Python function is given to call when a timeline is through."""

    def __call__(self, lost: bool = False) -> None:
        """Signal what waits for it; lost: tell who waits that the device is."""
