"""What the compiled kernel raises."""


class ProtocolError(Exception):
    """The guest broke the protocol; the stream it came from is poisoned.

    A handler raises it with a reason; the kernel adds command and byte offset.
    """


class VulkanLoadError(Exception):
    """The Vulkan library cannot be opened, or lacks `vkGetInstanceProcAddr`."""
