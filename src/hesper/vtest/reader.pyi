"""A client's messages, one after the other.

A message stays in the socket until it is served, or at least its last byte does: Mesa's client
takes the end of the stream for an empty read and tries again for ever, but where bytes of its own
are lost it gets ECONNRESET and gives up.
"""

from hesper.sockets.connection import Connection

class Reader(Connection):
    """Reads messages whose shape `wire.REQUESTS` allows; declared in `reader.pxd`."""

    phase: int
    """How far the client has come, a `wire.Phase`: messages of another are wrong."""
