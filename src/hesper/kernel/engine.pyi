"""One guest context's side of the kernel.

The kernel decodes Venus commands, calls the host's Vulkan driver and encodes the replies.  A
command that needs policy is handed to a Python *handler* as a `Call`; all others never leave the
kernel.
"""

from collections.abc import Callable, Sequence
from typing import Any

from hesper.kernel.devices import Devices
from hesper.kernel.handlers import Call
from hesper.kernel.ledger import Ledger
from hesper.kernel.objects import ObjectTable
from hesper.kernel.port import Port
from hesper.kernel.resources import ResourceTable
from hesper.kernel.rings import Rings
from hesper.kernel.shares import Shares
from hesper.kernel.shm import Pool
from hesper.kernel.tape import Tape
from hesper.kernel.timelines import Timelines
from hesper.kernel.vulkan import Vulkan
from hesper.kernel.watch import Watch

class Engine:
    """A context's own stream and fences; its parts are attributes."""

    objects: ObjectTable
    resources: ResourceTable
    devices: Devices
    rings: Rings
    timelines: Timelines
    watch: Watch
    shares: Shares
    pool: Pool
    """The context's shared memory."""
    ledger: Ledger
    """What the context has taken of its limits."""

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
        most: dict[str, int] | None = None,
        asleep: Sequence[str] = (),
        on_notice: Callable[[str, dict[str, Any]], None] | None = None,
        tape: Tape | None = None,
    ) -> None:
        """`handlers`: command name to handler.  Commands the kernel serves itself need none.

        asleep: commands whose handlers are not asked until `wake`.

        arena_limit: bytes that one command may decode to, besides the size of the stream in a
        resource that it stands in.  object_limit: live guest objects.  resource_limit: resources.
        memory_limit: bytes of all that is kept for the guest, see `ledger`.
        most: limits of what is counted there: devices, threads, descriptors, fences.
        on_fatal: called once, from any thread, with one line that says what the guest did wrong
        (command, offset, reason), or what went wrong in a handler.
        on_notice: called, from any thread, with what whoever runs this should know, and facts about
        it: "device lost" with `device` (a guest id) and the `command` that said so; "command
        failed", once for each command, with `command`, `result`, `reason` and, for allocations,
        `size` and `memory_type`.
        "limit reached", once for each limit, with its name (`limit`), what it is (`most`) and the
        `option` that changes it.
        tape: what everything is noted on, see `tape`.
        Raises `KeyError` for a name that is no command, or no limit.
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
    def poison(self, reason: str) -> None:
        """Poison the context: FATAL on all rings, `on_fatal` called."""
    def submit(self, data: bytes | bytearray | memoryview) -> None:
        """Run the commands in `data` on the context's own stream.

        Raises `ProtocolError` (the context is poisoned by then).
        """
    def port(
        self,
        *,
        create_blob: Callable[[int, int, int, int], int] | None = None,
        destroy_blob: Callable[[int], None] | None = None,
    ) -> Port:
        """What frontends submit to and ask for fences and blobs; one thread at a time may use it.

        create_blob, destroy_blob: for what the kernel cannot do by itself, see `Port`; without them
        that is refused.
        """
    def set_patience(self, nanoseconds: int) -> None:
        """Let threads look out so long for what may come next before they block.

        It saves their waking up, and takes a processor meanwhile; they stop by themselves when
        others want it.  0, as at first: hardly at all.
        """
    def fence(self, ring_idx: int, retired: Callable[[], None]) -> None:
        """Call `retired`, which must not raise, when a timeline is through with what it has so far.

        It is called in order, from any thread: at once on the CPU's timeline (0), and when the
        context is poisoned.  Raises `KeyError` for a timeline that is bound to no queue.
        """
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

def commands() -> list[tuple[int, str, str]]:
    """Every command of the wire tables: number, name, how it is served without handlers.

    That is `kernel`, `python` (only by a handler) or `refused`.
    """
