"""The object table: guest ids to host handles."""

from collections.abc import Sequence

from hesper.kernel.shm import Region
from hesper.kernel.vulkan import ProcTable

class Object:
    """What the object table knows of one guest object (a snapshot)."""

    id: int
    type: str
    """Vulkan handle type, `VkBuffer`."""
    handle: int
    """The host's handle."""
    device: int
    """Guest id of the device it belongs to; 0 for instance-level objects."""
    parent: int
    """Guest id of its parent (pool, device, instance); 0 for the instance."""

class Taken:
    """An object that nobody else can name or destroy any more."""

class ObjectTable:
    """The objects of one context."""

    def add(
        self,
        id: int,
        type: str,
        handle: int,
        *,
        device: int = 0,
        parent: int = 0,
        table: ProcTable | None = None,
        region: Region | None = None,
        extent: int = 2**64 - 1,
        facts: Sequence[int] = (),
    ) -> None:
        """Register a guest object.

        `table` is required for VkInstance, VkPhysicalDevice (its instance's) and VkDevice; VkQueue
        and others take their device's.  region: of a VkDeviceMemory, which owns it from then on:
        it is released after vkFreeMemory, or `remove`.  extent: how large it is, as
        `core/extents.pxd` has it; all ones: nobody knows.  facts: what relations know of it.

        Raises `ProtocolError` when the id is 0 or taken, or the object limit is reached.
        """
    def mark_staged(self, id: int) -> None:
        """Leave it to `guest.staging.Stage.bind` whether a VkImage fits into its memory."""
    def size_of(self, type: str, handle: int, device: int) -> int:
        """How large the object with that host handle of a device (by guest id) is; 0: none.

        Bytes of a VkDeviceMemory or VkBuffer.  A search, for what is rare.
        """
    def remove(self, id: int) -> None:
        """Forget an object and what hangs on it (a pool's children); no driver call."""
    def take(self, object: Object) -> Taken | None:
        """Forget an object that is to be destroyed; None when it is gone or another by now.

        What it holds of shared memory is released with what this returns: after the driver's call.
        """
    def lookup(self, id: int, type: str | None = None) -> Object | None:
        """The object with that guest id, if it exists (and has that type) and is not dead."""
    def failure(self, id: int) -> int | None:
        """What the command that was to make an object has failed with; None if `id` is not dead.

        A dead object is one that the guest may believe in: mostly nobody can tell it of that.
        """
    def all(self, *, device: int | None = None, type: str | None = None) -> list[Object]:
        """All live objects, optionally of one device or type."""
