"""What a context raises: the guest broke the protocol, or was refused something."""


class ProtocolError(Exception):
    """The guest broke the protocol; the stream it came from is poisoned.

    A handler raises it with a reason; the kernel adds command and byte offset.
    """


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


class VulkanLoadError(Exception):
    """The Vulkan library cannot be opened, or lacks `vkGetInstanceProcAddr`."""
