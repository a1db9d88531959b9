"""A stream socket, and how the thread that serves it waits for the next message."""

class TruncatedError(Exception):
    """The stream ended in the middle of a message."""

class Connection:
    """What compiled frontends derive from; declared in `connection.pxd`."""

    def __init__(self, fd: int) -> None:
        """Read from and write to `fd`, a blocking stream socket, which the caller keeps open."""
