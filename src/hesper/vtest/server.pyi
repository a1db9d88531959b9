"""Serves a client: the loop over its messages, and what needs no session.

Those are SUBMIT_CMD2 and the SYNC commands, four of which Mesa sends for a submission and the wait
for it, and RESOURCE_CREATE_BLOB and RESOURCE_UNREF.  All others are the session's.
"""

from collections.abc import Callable

from hesper.kernel.port import Port
from hesper.vtest.reader import Reader

class Server(Reader):
    """One client's messages, syncs and ids of resources."""

    def __init__(
        self, fd: int, *, unmappable: int, no_room: Callable[[int, Exception], None]
    ) -> None:
        """Read from and write to `fd`, which the caller keeps open and closes.

        unmappable: a descriptor that clients are given for a blob for which the context has no
        room.  no_room: is told of such blobs: bytes, and what the context has raised.
        Raises `OSError` without descriptors for the syncs.
        """
    def attach(self, port: Port) -> None:
        """Serve the context's commands from now on; called by the thread that calls `next`."""
    def next(self) -> tuple[int, int, memoryview | None] | None:
        """Return the next message that is not served here: command, length of its header, data.

        The data is valid until the next call.  A message whose header is wrong has none; nothing
        can come after it.  None when the client has left between two messages, or without waiting
        for its answer.
        Raises `ClientError` for a message that is wrong, `TruncatedError`, `OSError`, and what the
        context refuses something with.
        """
    @property
    def what(self) -> str:
        """Name of the command that is being served; `header` between two."""
    def close(self) -> None:
        """Drop all syncs; fences that are still pending signal nothing."""
