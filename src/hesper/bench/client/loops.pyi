"""The loops that are timed.  Handles and addresses are integers, times are nanoseconds."""

from typing import Final, TypeAlias

PUSH: Final = 0
"""Push constants, 64 bytes."""
DRAW: Final = 1
"""A draw of no instance."""
DISPATCH: Final = 2
"""A dispatch of no workgroup."""
COPY: Final = 3
"""A copy of 64 bytes between two buffers."""
MIXED: Final = 4
"""By turns: bind a pipeline, bind descriptor sets, push constants, draw."""
BARE: Final = 5
"""No command at all: an empty command buffer."""

Kind: TypeAlias = int
"""One of those."""

class VulkanError(Exception):
    """The driver has refused something; the text names it and the VkResult."""

class Scene:
    """What a command stream works on: handles, and addresses of C structs that stay alive."""

    command_buffer: int
    layout: int
    """VkPipelineLayout with 64 bytes of push constants for all stages."""
    set: int
    graphics: int
    compute: int
    source: int
    target: int
    """Buffers of 64 KiB."""
    begin: int
    """Address of a VkCommandBufferBeginInfo."""
    render_pass: int
    """Address of a VkRenderPassBeginInfo."""
    submit: int
    """Address of a VkSubmitInfo that submits `command_buffer`."""

class Loops:
    """Loops on one device.  Every method raises `VulkanError`."""

    def __init__(self, get_proc_addr: int, device: int, queue: int, fence: int) -> None:
        """Take the device's functions.

        get_proc_addr: address of vkGetDeviceProcAddr; fence: unsignalled, used by all loops.
        """
    def stream(self, kind: Kind, count: int, scene: Scene) -> tuple[int, int]:
        """Record `count` commands, submit, wait; returns the time to record, and all of it."""
    def record_only(self, kind: Kind, count: int, scene: Scene) -> None:
        """Record `count` commands."""
    def run(self, submit: int) -> int:
        """Submit and wait.  submit: address of a VkSubmitInfo."""
    def submits(self, count: int, submit: int) -> tuple[list[int], list[int]]:
        """Submit and wait, again and again: times of vkQueueSubmit, and from there to the fence.

        submit: address of a VkSubmitInfo, or 0 to submit nothing but the fence.
        """
    def round_trips(self, count: int, cache: int) -> list[int]:
        """Ask for the size of a VkPipelineCache's data, which only the host knows."""
    def layouts(self, count: int, image: int) -> list[int]:
        """Ask for a linear image's layout."""
    def allocations(self, count: int, size: int, memory_type: int, touch: bool) -> list[int]:
        """Allocate memory, map it and write a byte (if `touch`), free it."""
    def buffers(self, count: int, info: int, cache: int) -> int:
        """Create and destroy buffers, then wait until the host has done it; time of all."""
    def descriptors(self, count: int, write: int, buffer_info: int, cache: int) -> int:
        """Update a descriptor set, then wait until the host has done it; time of all.

        write, buffer_info: addresses of a VkWriteDescriptorSet and of the VkDescriptorBufferInfo
        it names.
        """

def copy_bytes(target: int, source: int, size: int) -> int:
    """Copy memory."""

def cut() -> int:
    """Call `hesper_bench_cut`, at which a profiler can cut what it counts; how often it was."""
