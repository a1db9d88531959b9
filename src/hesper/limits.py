"""What one guest context may use at most."""

from __future__ import annotations

import msgspec

from hesper.errors import OptionError
from hesper.portable import physical_memory


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one client, or of one program in a virtual machine.

    Past a limit, the guest gets an error, or loses its context.  Raises `errors.OptionError` for a
    limit below 1.
    """

    memory: int = msgspec.field(default_factory=physical_memory)
    """Bytes in shared memory and device memory together; all of the host's unless asked for."""
    objects: int = 1 << 20
    """Live Vulkan objects."""
    rings: int = 1024
    """Command rings; a Mesa client has one, and one more a thread that makes pipelines.

    Each is a thread here, some 100 KB of memory, and a descriptor.
    """
    arena: int = 128 << 20
    """Bytes that one command may decode to, besides the size of the stream that it stands in."""
    resources: int = 1 << 16
    """Blob resources.  Each holds a descriptor, so the process's own limit may come first."""

    def __post_init__(self) -> None:
        """Check every limit."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise OptionError(name, value, "must be a whole number, 1 or more")
