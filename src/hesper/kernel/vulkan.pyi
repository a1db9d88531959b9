"""The host's Vulkan library and its functions."""

from collections.abc import Iterable, Mapping

from hesper.kernel.views import Array, View

class Vulkan:
    """The opened Vulkan library: loader or driver, whatever exports `vkGetInstanceProcAddr`."""

    def __init__(self, path: str) -> None:
        """Open the library at `path` (a file, or a name that `dlopen` searches for).

        Raises `VulkanLoadError`.
        """
    @property
    def globals(self) -> ProcTable:
        """Functions that need no instance (`vkCreateInstance`, `vkEnumerateInstance*`)."""
    def instance_table(self, instance: int) -> ProcTable:
        """Functions of `instance`, a host `VkInstance`."""
    def device_table(self, instance_table: ProcTable, device: int) -> ProcTable:
        """Functions of `device`, a host `VkDevice`, from `vkGetDeviceProcAddr`."""

class ProcTable:
    """Host function pointers by command."""

    def __contains__(self, name: str, /) -> bool:
        """Whether the driver has the command."""
    def without(self, names: Iterable[str]) -> ProcTable:
        """The same, as if the driver had none of those commands."""
    def know_limits(self, limits: View, numbers: Mapping[str, int]) -> None:
        """Let relations look at the limits of the device that the functions are of.

        limits: VkPhysicalDeviceLimits.  numbers: of each of `protocol.relations.DEVICE_NUMBERS`;
        0 where the driver says nothing.
        """
    def call(self, name: str, /, *args: int | float | View | Array | None) -> int:
        """Call the command `name` with its parameters in order, without the GIL.

        Pointers are given as a `View`, an `Array` or an address; `None` is a null pointer.
        Returns the command's return value (a `VkResult`, an address, ...), 0 for void commands.
        Raises `ProtocolError` when the device has no such command, which is a guest's fault that
        has led there, and `TypeError` on a wrong count.
        """
