"""What one guest context may use at most."""

from __future__ import annotations

import msgspec

from hesper.portable import physical_memory


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one context.  Past a limit, the guest gets an error, or loses its context.

    Raises `ValueError` for a limit below 1.
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
            if getattr(self, name) < 1:
                raise ValueError(f"limit {name}={getattr(self, name)} is below 1")
