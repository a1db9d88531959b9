"""What one guest context may use at most."""

from __future__ import annotations

import msgspec

from hesper.errors import OptionError
from hesper.portable import physical_memory

KEPT_PART = 8
"""Of the total of all clients, a part that is for those who have less than it."""


def _share_of_memory() -> int:
    """Three quarters of the host's memory, which one client alone may have."""
    return physical_memory() // 4 * 3


def _total_of_memory() -> int:
    """Seven eighths of the host's memory, which all clients together may have."""
    return physical_memory() // 8 * 7


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one client, or of one program in a virtual machine, and one of all together.

    Past a limit, the guest gets an error, or loses its context; the log names the limit, once.
    Raises `errors.OptionError` for a limit below 1.
    """

    memory: int = msgspec.field(default_factory=_share_of_memory)
    """Bytes of all that is kept for the guest: device memory and blobs, what commands decode to,
    rings, and what the driver is taken to keep for objects and recorded commands.

    Three quarters of the host's memory unless asked for.  Heaps are no larger than this, and their
    budgets are what is left of it.  Not counted is what every client costs: its process, and the
    driver's first device.
    """
    objects: int = 1 << 20
    """Live Vulkan objects."""
    devices: int = 16
    """Live VkDevices; few programs have more than one."""
    rings: int = 1024
    """Command rings; a Mesa client has one, and one more a thread that makes pipelines.

    Each is a thread here, some 100 KB of memory, and a descriptor.
    """
    fences: int = 1 << 16
    """Fences of queues' timelines that are asked for and not through."""
    arena: int = 128 << 20
    """Bytes that one command may decode to, besides the size of the stream that it stands in."""
    resources: int = 1 << 16
    """Blob resources.  Each holds a descriptor, so the process's own limit may come first."""
    threads: int = 2048
    """Threads: of rings, and of those who wait for queues."""
    descriptors: int = 1 << 17
    """Descriptors of shared memory: a resource's, or mappable device memory's."""
    total_memory: int = msgspec.field(default_factory=_total_of_memory)
    """Bytes that all clients of a server, or all programs in a virtual machine, may have together,
    counted as for `memory`.

    Seven eighths of the host's memory unless asked for, or of the control group's that the server
    runs in.  The last eighth of it is for clients that have less than that: no client may have more
    than the rest, whatever `memory` says.
    """

    @property
    def most_memory(self) -> int:
        """Bytes that one client may have: `memory`, or what the total leaves to one."""
        return min(self.memory, max(1, self.total_memory - self.total_memory // KEPT_PART))

    def __post_init__(self) -> None:
        """Check every limit."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise OptionError(name, value, "must be a whole number, 1 or more")
