"""A context as frontends see it: its own stream, its fences, its blobs.

Each operation is there once.  What the kernel can do it does without Python; the rest is done by
Python functions that are the context's.  Compiled frontends call a port's methods (`port.pxd`),
others the functions of this module.  One thread at a time uses a port.
"""

from collections.abc import Callable

class Port:
    """A context all of whose operations are Python's; see `Engine.port` for the kernel's."""

    def __init__(
        self,
        *,
        submit: Callable[[memoryview], None],
        fence: Callable[[int, Retired], None],
        create_blob: Callable[[int, int, int, int], int],
        destroy_blob: Callable[[int], None],
    ) -> None:
        """What these raise is what a frontend is told.

        submit: runs commands, valid only during the call.  fence: calls its second argument, from
        any thread, when a timeline is through; with `lost=True` if that is because its device was
        lost.  create_blob: makes a resource (id, blob id, bytes, flags) and returns its
        descriptor.  destroy_blob: forgets one.
        """

class Retired:
    """What a Python function is given to call when a timeline is through."""

    def __call__(self, lost: bool = False) -> None:
        """Signal what waits for it; lost: tell who waits that the device is."""

def submit(port: Port, data: bytes | bytearray | memoryview) -> None:
    """Run commands.  Raises what the context refuses them with: `ProtocolError`."""

def fence(port: Port, ring_idx: int, retired: Callable[[], None]) -> None:
    """Call `retired`, which must not raise, when a timeline is through with what it has so far.

    It is called in order, from any thread; at once on the CPU's timeline (0), and when the context
    is poisoned.  Raises `InvalidParameterError` for a timeline that is bound to no queue.
    """

def create_blob(port: Port, resource_id: int, blob_id: int, size: int, flags: int) -> int:
    """Make a resource; its descriptor, which stays the context's.

    blob_id: 0 for plain shared memory, else the guest id of a VkDeviceMemory that the resource is
    to share.  Raises `ResourceError`.
    """

def destroy_blob(port: Port, resource_id: int) -> None:
    """Forget a resource.  Raises `ResourceError`."""
