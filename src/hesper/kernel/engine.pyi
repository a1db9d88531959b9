"""What the compiled kernel offers to Python.

The kernel decodes Venus commands, calls the host's Vulkan driver and encodes the replies.  A
command that needs policy is handed to a Python *handler* as a `Call`; all others never leave the
kernel.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

class ProtocolError(Exception):
    """The guest broke the protocol; the stream it came from is poisoned.

    A handler raises it with a reason; the kernel adds command and byte offset.
    """

class VulkanLoadError(Exception):
    """The Vulkan library cannot be opened, or lacks `vkGetInstanceProcAddr`."""

class Vulkan:
    """The opened Vulkan library: loader or driver, whatever exports `vkGetInstanceProcAddr`."""

    def __init__(self, path: str) -> None:
        """Open the library at `path` (a file, or a name that `dlopen` searches for).

        Raises `VulkanLoadError`.
        """
    @property
    def globals(self) -> ProcTable:
        """Functions that need no instance (`vkCreateInstance`, `vkEnumerateInstance*`)."""
    def instance_table(self, instance: int) -> ProcTable:
        """Functions of `instance`, a host `VkInstance`."""
    def device_table(self, instance_table: ProcTable, device: int) -> ProcTable:
        """Functions of `device`, a host `VkDevice`, from `vkGetDeviceProcAddr`."""

class ProcTable:
    """Host function pointers by command."""

    def __contains__(self, name: str) -> bool:
        """Whether the driver has the command."""
    def call(self, name: str, /, *args: int | float | View | Array | None) -> int:
        """Call the command `name` with its parameters in order, without the GIL.

        Pointers are given as a `View`, an `Array` or an address; `None` is a null pointer.
        Returns the command's return value (a `VkResult`, an address, ...), 0 for void commands.
        Raises `KeyError` when the driver lacks the command, `TypeError` on a wrong count.
        """

class Scratch:
    """Owns memory for C structs that Python fills and passes to `ProcTable.call`.

    Views stay valid as long as the Scratch they come from.
    """

    def new(self, struct: str, /, **fields: Any) -> View:
        """A zeroed struct with its sType set and `fields` assigned."""
    def array(self, struct: str, count: int) -> Array:
        """`count` zeroed structs, sTypes set; or scalars for a C type such as `uint32_t`."""

class View:
    """A C struct (or a command's parameters) in memory, described by the wire tables.

    Fields are attributes named as in the registry.  Reading gives: an int or float for scalars,
    enums, flags and handles (host handles); `str` for strings and fixed `char` arrays (reads as
    str); `bytes` for fixed `uint8_t` arrays and blobs; `View` for nested structs and pointers to
    structs; `Array` for pointers to arrays and fixed arrays; `None` for null pointers.
    Writing converts the same types back: an int (an address where the field is a pointer), `str`,
    `bytes`, `View`, `Array`, or a sequence (of ints, floats, strs), which is copied into the memory
    the View belongs to and, where the registry names a length field, sets that too.
    """

    @property
    def struct_(self) -> str:
        """The struct's or command's name in the registry."""
    @property
    def address_(self) -> int:
        """Where it lies."""
    def fields_(self) -> list[str]:
        """Names of its fields, in order."""
    def pointer_(self, name: str) -> int:
        """The address that a pointer field holds; 0 for a null pointer."""
    def copy_(self, source: View) -> None:
        """Copy every byte of `source`, a view of the same struct, here (pNext kept)."""
    def chain_(self) -> Iterator[View]:
        """The structs of its pNext chain, in order (itself not included)."""
    def find_(self, struct: str) -> View | None:
        """The struct of that name in the pNext chain."""
    def remove_(self, struct: str) -> View | None:
        """Unlink the struct of that name from the pNext chain and return it."""
    def push_(self, struct: str, /, **fields: Any) -> View:
        """Put a new struct at the front of the pNext chain."""
    def __getattr__(self, name: str) -> Any: ...
    def __setattr__(self, name: str, value: Any) -> None: ...

class Array:
    """A C array in memory: `len`, indexing, iteration.  Elements as `View` gives fields."""

    @property
    def address_(self) -> int: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...
    def __setitem__(self, index: int, value: Any) -> None: ...
    def __iter__(self) -> Iterator[Any]: ...

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

class Call:
    """One command handed to a handler; valid only until the handler returns.

    When the handler returns, the reply (if the guest wants one) is encoded from `args`, `result`
    and the guest ids of created objects.  Handle fields inside output structs
    (`VkPhysicalDeviceGroupProperties`) hold guest ids by then, put there by the handler.
    """

    args: View
    """The command's parameters, by name.  Input handles are host handles."""
    result: int
    """The command's return value as the guest will see it (0 at first)."""
    engine: Engine
    ring: Ring | None
    """The ring it came over; None when it came by `Engine.submit`."""
    reason: str | None
    """Why the handler has refused the command, for whoever hears of failures (None at first)."""

    @property
    def name(self) -> str: ...
    @property
    def table(self) -> ProcTable:
        """Functions of the instance or device that the first parameter belongs to."""
    @property
    def device(self) -> int:
        """Guest id of the device that the first parameter belongs to; 0 without one."""
    def id(self, parameter: str) -> int:
        """The guest id that came for a handle parameter (`device`, `memory`); 0 for null."""
    @property
    def new_ids(self) -> list[int]:
        """Guest ids that came for the output handles of this command, in order."""
    def invoke(self) -> int:
        """Call the host's function with `args`, without the GIL; sets and returns `result`.

        Output handles hold host handles afterwards (see `new_handles`).
        """
    @property
    def new_handles(self) -> list[int]:
        """Host handles the driver has created, in the order of `new_ids`; 0 where it has not."""
    def set_new_handles(self, handles: Sequence[int]) -> None:
        """Say what host handles stand for `new_ids` (when `invoke` is not used)."""
    def finish(self) -> None:
        """What the kernel does after an ordinary call.

        Registers created objects under `new_ids`, forgets destroyed ones (and the children of a
        destroyed pool).  Where `result` is an error, dead objects stand under `new_ids`; a handler
        that fails need not call this for that.
        """
    def run(self) -> int:
        """`invoke`, then `finish`: exactly what the kernel would have done by itself."""

class Engine:
    """One guest context's side of the kernel: objects, resources, streams and rings."""

    def __init__(
        self,
        vulkan: Vulkan,
        handlers: dict[str, Callable[[Call], None]],
        *,
        arena_limit: int,
        object_limit: int,
        resource_limit: int,
        memory_limit: int,
        on_fatal: Callable[[str], None],
        asleep: Sequence[str] = (),
        on_notice: Callable[[str, dict[str, Any]], None] | None = None,
    ) -> None:
        """`handlers`: command name to handler.  Commands the kernel serves itself need none.

        asleep: commands whose handlers are not asked until `wake`.

        arena_limit: bytes that one command may decode to, besides the size of the stream in a
        resource that it stands in.  object_limit: live guest objects.  resource_limit: resources.
        memory_limit: bytes of device memory and resources.
        on_fatal: called once, from any thread, with one line that says what the guest did wrong
        (command, offset, reason), or what went wrong in a handler.
        on_notice: called, from any thread, with what whoever runs this should know, and facts about
        it: "device lost" with `device` (a guest id) and the `command` that said so; "command
        failed", once for each command, with `command`, `result`, `reason` and, for allocations,
        `size` and `memory_type`.
        Raises `KeyError` for a name that is no command.
        """
    def change_layouts(self) -> None:
        """Make barriers from VK_IMAGE_LAYOUT_PREINITIALIZED ones from UNDEFINED, from now on.

        Not those of commands whose handlers are awake.
        """
    def wake(self, names: Sequence[str]) -> None:
        """Ask the handlers of these commands from now on.  Raises `KeyError` without one."""
    @property
    def fatal(self) -> bool:
        """Whether the context is poisoned."""
    def is_lost(self, device: int) -> bool:
        """Whether a VkDevice, by its guest id, is lost.  Raises `KeyError`."""
    def lose_device(self, device: int, command: str) -> None:
        """Lose a VkDevice, for which the guest could not be told of a failure in `command`.

        From now on all that waits for it or submits to it is answered VK_ERROR_DEVICE_LOST, and
        what the guest looks at in memory says so, too.  The same happens when the driver says it.
        Raises `KeyError`.
        """
    def set_lookout(self, nanoseconds: int) -> None:
        """Set how long a queue may work before its timeline asks the driver whether it lives.

        Without that a guest that asks for no fence would not hear that its device is lost.  A
        quarter of a second at first.
        """
    def poison(self, reason: str) -> None:
        """Poison the context: FATAL on all rings, `on_fatal` called."""
    def submit(self, data: bytes | bytearray | memoryview) -> None:
        """Run the commands in `data` on the context's own stream.

        Raises `ProtocolError` (the context is poisoned by then).
        """
    def sink(self) -> Sink:
        """What a compiled frontend submits to and asks for fences, see `engine.pxd`.

        It stands for `submit` and `fence`; only one thread may use it, or `submit`, at a time.
        """
    def set_patience(self, nanoseconds: int) -> None:
        """Let threads look out so long for what may come next before they block.

        It saves their waking up, and takes a processor meanwhile; they stop by themselves when
        others want it.  0, as at first: hardly at all.
        """
    # Fences.
    def bind_timeline(
        self, ring_idx: int, queue: int, on_refused: Callable[[int], None]
    ) -> Timeline:
        """Bind timeline `ring_idx` (1 to 63) to the queue with guest id `queue`.

        on_refused: called once, from a thread, with the VkResult for which the queue takes no
        fence; from then on it counts as through with whatever it was given.
        Raises `KeyError` for an unknown queue, `ProtocolError` for a timeline that is out of range
        or bound.
        """
    def fence(self, ring_idx: int, retired: Callable[[], None]) -> None:
        """Call `retired`, which must not raise, when a timeline is through with what it has so far.

        It is called in order, from any thread: at once on the CPU's timeline (0), and when the
        context is poisoned.  Raises `KeyError` for a timeline that is bound to no queue.
        """
    # Resources: shared memory the guest names by a 32-bit id.
    def add_resource(self, resource_id: int, address: int, size: int) -> None:
        """Make `size` bytes mapped at `address` known for streams, replies and rings.

        Raises `ValueError` for an id in use, or beyond the limit.  The memory must stay mapped
        until `remove_resource` has returned.
        """
    def add_blob(self, resource_id: int, region: Region, size: int, *, is_stream: bool) -> None:
        """Make a resource of `size` bytes that takes over the ownership of `region`.

        is_stream: whether streams, replies and rings may lie in it.
        Raises `ValueError` for an id in use, or beyond the limit; the ownership is released then.
        """
    def has_resource(self, resource_id: int) -> bool:
        """Whether the id is in use."""
    def share_resource(self, resource_id: int) -> Region:
        """The region of a resource, with one owner more.  Raises `KeyError` without one."""
    @property
    def resource_count(self) -> int: ...
    @property
    def resource_limit(self) -> int: ...
    def resources(self) -> list[int]:
        """The ids in use."""
    def remove_resource(self, resource_id: int) -> None:
        """Forget it; waits until no stream is reading it.

        A ring or a reply stream that still lies in it poisons the context.  Raises `KeyError` for
        an unknown id.
        """
    # Device memory: the region of a VkDeviceMemory goes with the object.
    @property
    def store(self) -> Store:
        """The context's shared memory."""
    def unreferenced(self) -> int:
        """Bytes of the memory limit that resources hold whose VkDeviceMemory is gone."""
    def keep_memory(self, id: int, region: Region) -> None:
        """Hand the ownership of `region` to the VkDeviceMemory with that guest id.

        It is released after vkFreeMemory.
        Raises `KeyError`, and leaves the ownership, when there is none or it has a region.
        """
    def share_memory(self, id: int, *, apart: bool = False) -> Region:
        """The mapped region of the VkDeviceMemory with that guest id, with one owner more.

        apart: somebody besides the guest may map it, it must not be used again.
        Raises `KeyError` when there is none.
        """
    def set_memory_types(
        self,
        device: int,
        types: Sequence[tuple[int, int]],
        *,
        shared: int,
        native: int,
        sparse: int,
    ) -> None:
        """Say what the memory types are of the device with that guest id.

        types: the driver's memory type and the heap of each.  shared, native: those that lie in
        shared memory, and those that are the driver's own, a bit each.  sparse: those that sparse
        buffers can be bound to.  Answers about buffers name these types; those about images are
        left to handlers.
        """
    def set_host_memory(
        self, device: int, *, handle_type: int, alignment: int, granule: int
    ) -> None:
        """Let the kernel allocate shared memory of the device with that guest id.

        It does so from spare regions, with `VkImportMemoryHostPointerInfoEXT` and `handle_type`.
        The size of an allocation is rounded up to `alignment`, that of its region to `granule`
        (powers of two).  Allocations for which there is no spare region, or to which structs are
        chained that need a decision, go to the handler.
        """
    # Objects.
    def add_object(
        self,
        id: int,
        type: str,
        handle: int,
        *,
        device: int = 0,
        parent: int = 0,
        table: ProcTable | None = None,
    ) -> None:
        """Register a guest object.

        `table` is required for VkInstance, VkPhysicalDevice (its instance's) and VkDevice; VkQueue
        and others take their device's.

        Raises `ProtocolError` when the id is 0 or taken, or the object limit is reached.
        """
    def remove_object(self, id: int) -> None:
        """Forget an object and what hangs on it (a pool's children); no driver call."""
    def lookup(self, id: int, type: str | None = None) -> Object | None:
        """The object with that guest id, if it exists (and has that type) and is not dead."""
    def failure(self, id: int) -> int | None:
        """What the command that was to make an object has failed with; None if `id` is not dead.

        A dead object is one that the guest may believe in: mostly nobody can tell it of that.
        """
    def objects(self, *, device: int | None = None, type: str | None = None) -> list[Object]:
        """All live objects, optionally of one device or type."""
    def queue_call(self, queue: int, name: str, /, *args: int | float | View | Array | None) -> int:
        """`ProcTable.call` of a queue command on the queue with guest id `queue`.

        Its handle is put in front of `args`.  The call holds the lock that the kernel itself holds
        when it submits to that queue.  Raises `KeyError` for an unknown queue or a command the
        driver lacks.
        """
    def set_external_buffers(self, device: int, handle_types: int, *, always: bool) -> None:
        """Say what external buffers are to the device with guest id `device`.

        A `VkExternalMemoryBufferCreateInfo` that the guest chains to a `VkBufferCreateInfo`
        (vkCreateBuffer, vkGetDeviceBufferMemoryRequirements) gets `handle_types` instead of what
        it says.  With `always`, a buffer without one gets one too, unless its flags ask for
        sparse binding.
        """
    def create_ring(self, ring_id: int, info: View, *, alive_interval_us: int = 0) -> Ring:
        """Make a ring from a checked-by-the-kernel `VkRingCreateInfoMESA` and start its thread.

        Raises `ProtocolError` for a bad layout, an id in use, an unknown resource.
        """
    def destroy_ring(self, ring_id: int) -> None:
        """Stop the ring's thread and forget it.

        Raises `ProtocolError` for an unknown id or when called from that ring.
        """
    def rings(self) -> list[Ring]: ...
    def stop(self) -> None:
        """Stop all rings and join their threads.  Objects stay, for the owner to destroy."""
    def sample(self, interval_ns: int) -> dict[str, dict[str, dict[str, int]]]:
        """Look every `interval_ns` at what rings and the own stream do, until `stop`.

        Returns samples by `rings` or `socket`, by stage, by command.  Stages: `asleep` (until the
        guest notifies), `wait` (for the next command, awake), `decode`, `driver`, `reply`,
        `handler` (Python's); the first two know no command and have `""`.
        """
    def statistics(self) -> dict[str, int]:
        """Counters: commands, bytes, replies, objects, object_pages, rings, handler_calls."""

class Region:
    """One ownership of shared memory; `release` or the object's end gives it up.

    The last owner's end frees the memory, or leaves it to be used again.  After `release`, and once
    it was given away, everything raises `ValueError`.
    """

    @property
    def address(self) -> int:
        """Where it is mapped; 0 for memory that is only charged for."""
    @property
    def size(self) -> int:
        """Bytes mapped: whole pages."""
    @property
    def fd(self) -> int:
        """Its descriptor, valid as long as it has an owner."""
    def share(self) -> Region:
        """Another ownership of the same memory."""
    def release(self) -> None:
        """Give the ownership up."""

class Memory(Protocol):
    """Shared memory that is mapped, as `portable.SharedMemory` is."""

    address: int
    size: int
    fd: int

    def close(self) -> None: ...

class Store:
    """The shared memory of one context: a limit, and spare regions to be used again."""

    def __init__(self, limit: int) -> None:
        """Allow for `limit` bytes."""
    @property
    def limit(self) -> int: ...
    @property
    def left(self) -> int:
        """Bytes of the limit that are not taken."""
    @property
    def used(self) -> int:
        """Bytes of the limit that are taken."""
    def heap_used(self, heap: int) -> int:
        """Bytes of the limit that are taken for a memory heap.  Raises `ValueError`."""
    def take_spare(self, size: int, charged: int, heap: int | None = None) -> Region | None:
        """A region of exactly `size` bytes that was used before, cleared; None without one.

        `charged` bytes are taken of the limit, and count for `heap`; None, too, when they are not
        left.
        """
    def add(
        self, memory: Memory | None, charged: int, *, heap: int | None = None, reusable: bool
    ) -> Region:
        """A region of `memory`, which it closes in the end; None: it is only charged for.

        heap: the memory heap that `charged` counts for, if it is device memory.
        reusable: it becomes a spare region in the end, if there are not too many.
        Raises `MemoryError` when `charged` bytes are not left; `memory` stays the caller's then.
        """
    def close(self) -> None:
        """Free the spare regions; from now on none is kept."""

class Sink:
    """A context's own stream and its fences, for compiled frontends."""

class Timeline:
    """A queue's fences, and the thread that waits for them."""

    @property
    def ring_idx(self) -> int: ...
    def stop(self, timeout: float) -> bool:
        """Unbind it, retire what is pending, and end the thread; call it once.

        After `timeout` seconds, fences that are still pending are retired all the same.  Returns
        whether the queue was through by then; if not, the driver still has the fences.
        """

class Ring:
    """One ring and the thread that serves it."""

    @property
    def id(self) -> int: ...
    @property
    def head(self) -> int: ...

def report_crashes(fd: int) -> None:
    """Say over the socket `fd` when a fatal signal comes: JSON, one line, then die of it.

    Its keys: `is`, which is "crashed"; `thread`, the name of the thread; `command`, what was being
    run there, or by everyone where it is no ring's thread.  Engines made later are in it.
    """

def commands() -> list[tuple[int, str, str]]:
    """Every command of the wire tables: number, name, how it is served without handlers.

    That is `kernel`, `python` (only by a handler) or `refused`.
    """

def struct_names() -> list[str]: ...

__all__: list[str]
