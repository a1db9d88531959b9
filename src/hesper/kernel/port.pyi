"""A context as a compiled transport sees it."""

class Port:
    """A context's own stream, its fences and blobs; declared in `port.pxd`."""
