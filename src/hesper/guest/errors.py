"""What goes wrong in a context, short of breaking the protocol (`kernel.errors.ProtocolError`)."""

from __future__ import annotations

from hesper.kernel.errors import (
    InvalidParameterError,
    InvalidResourceError,
    OutOfMemoryError,
    ResourceError,
)

__all__ = [
    "InvalidParameterError",
    "InvalidResourceError",
    "OutOfMemoryError",
    "ResourceError",
    "UnfitDeviceError",
    "VulkanError",
]


class UnfitDeviceError(Exception):
    """A physical device that cannot serve a guest; the text says why."""


class VulkanError(Exception):
    """Raised by a handler to answer the guest with a VkResult."""

    def __init__(self, result: int, reason: str) -> None:
        """Remember `result`, a negative VkResult, and a `reason` for the log."""
        super().__init__(reason)
        self.result = result
