"""A context's devices: their memory, their queues, and whether they are lost."""

from collections.abc import Mapping, Sequence

from hesper.kernel.shm import Region
from hesper.kernel.views import Array, View

class Devices:
    """The devices of one context, by their guest ids."""

    def describe_memory(
        self,
        device: int,
        types: Sequence[tuple[int, int]],
        *,
        shared: int,
        native: int,
        sparse: int,
        handle_types: int,
        states_buffers: bool,
    ) -> None:
        """Say what the memory types of a device are, and how buffers are made for them.

        types: the driver's memory type and the heap of each.  shared, native: those that lie in
        shared memory, and those that are the driver's own, a bit each.  sparse: those that sparse
        buffers can be bound to.  Answers about buffers name these types; those about images are
        left to handlers.

        A `VkExternalMemoryBufferCreateInfo` that the guest chains to a `VkBufferCreateInfo`
        (vkCreateBuffer, vkGetDeviceBufferMemoryRequirements) gets `handle_types` instead of what
        it says.  With `states_buffers`, a buffer without one gets one too, unless its flags ask
        for sparse binding.
        Raises `KeyError` without such a device.
        """
    def import_host_memory(
        self, device: int, *, handle_type: int, alignment: int, granule: int
    ) -> None:
        """Let the kernel allocate shared memory of a device.

        It does so from free regions, with `VkImportMemoryHostPointerInfoEXT` and `handle_type`.
        The size of an allocation is rounded up to `alignment`, that of its region to `granule`
        (powers of two).  Allocations for which there is no free region, or to which structs are
        chained that need a decision, go to the handler.
        """
    def describe_nulls(
        self,
        device: int,
        *,
        descriptors: bool,
        indices: bool,
        stand_ins: Mapping[str, int] | None = None,
    ) -> None:
        """Say where a guest may name nothing on a device; until then it may nowhere.

        descriptors: in descriptors and as vertex buffers (nullDescriptor).  indices: as index
        buffer (maintenance6).  stand_ins: what the driver gets instead, where it has no
        nullDescriptor: host handles and numbers, by their names in `core/state.pxd`'s StandIns.
        Raises `KeyError` without such a device, or for a name that is missing.
        """
    def share_memory(self, id: int, *, apart: bool = False) -> Region:
        """The mapped region of the VkDeviceMemory with that guest id, with one owner more.

        apart: somebody besides the guest may map it, it must not be used again.
        Raises `KeyError` when there is none.
        """
    def queue_call(self, queue: int, name: str, /, *args: int | float | View | Array | None) -> int:
        """`ProcTable.call` of a queue command on the queue with guest id `queue`.

        Its handle is put in front of `args`.  The call holds the lock that the kernel itself holds
        when it submits to that queue.  Raises `KeyError` for an unknown queue or a command the
        driver lacks.
        """
    def is_lost(self, device: int) -> bool:
        """Whether a VkDevice, by its guest id, is lost.  Raises `KeyError`."""
    def lose(self, device: int, command: str) -> None:
        """Lose a VkDevice, for which the guest could not be told of a failure in `command`.

        From now on all that waits for it or submits to it is answered VK_ERROR_DEVICE_LOST, and
        what the guest looks at in memory says so, too.  The same happens when the driver says it.
        Raises `KeyError`.
        """
