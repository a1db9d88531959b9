"""A worker that dies says which command it was in."""

def report_crashes(fd: int) -> None:
    """Say over the socket `fd` when a fatal signal comes: JSON, one line, then die of it.

    Its keys: `is`, which is "crashed"; `thread`, the name of the thread; `command`, what was being
    run there, or by everyone where it is no ring's thread.  Engines made later are in it.
    """
