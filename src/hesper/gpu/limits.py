"""What one guest may use of the device's own process."""

from __future__ import annotations

from dataclasses import dataclass, field

from hesper.gpu.descriptors import default_limit

DEFAULT_CONTEXTS = 64
"""Each is a process with the host's driver in it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one guest may use of the device at most.

    A desktop on several screens of 4K comes nowhere near the defaults.
    """

    resources: int = 1 << 15
    picture_memory: int = 1 << 30
    """Bytes of host memory in 2D resources; a screen of 4K takes 32 MiB."""
    contexts: int = DEFAULT_CONTEXTS
    pieces: int = 1 << 22
    """Pieces of guest memory that all resources may lie in; each takes 18 bytes here.

    So many pages are 16 GiB, with no two of them side by side.
    """
    attachments: int = 1 << 17
    """Resources that contexts know, each counted for every context."""
    waiting: int = 64 << 20
    """Bytes of requests that wait for their turn."""
    descriptors: int = field(default_factory=default_limit)
    """Descriptors of resources; what the process has, but for a reserve."""
