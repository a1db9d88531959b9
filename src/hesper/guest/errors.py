"""What goes wrong in a context, short of breaking the protocol (`kernel.engine.ProtocolError`)."""

from __future__ import annotations


class ResourceError(Exception):
    """A frontend asked for something that a context cannot do; the text says what and why.

    The context stays usable.
    """


class InvalidResourceError(ResourceError):
    """A resource id that is unknown, or taken already."""


class InvalidParameterError(ResourceError):
    """A size, blob id, flag or timeline that makes no sense here."""


class OutOfMemoryError(ResourceError, MemoryError):
    """The context's memory limit is reached, or the host has no more."""


class UnfitDeviceError(Exception):
    """A physical device that cannot serve a guest; the text says why."""


class VulkanError(Exception):
    """Raised by a handler to answer the guest with a VkResult."""

    def __init__(self, result: int, reason: str) -> None:
        """Remember `result`, a negative VkResult, and a `reason` for the log."""
        super().__init__(reason)
        self.result = result
