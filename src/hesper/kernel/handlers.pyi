"""Commands that Python decides about."""

from collections.abc import Sequence

from hesper.kernel.rings import Ring
from hesper.kernel.shm import Region
from hesper.kernel.views import View
from hesper.kernel.vulkan import ProcTable

CACHE_TAG: int
"""Bytes behind the data of a pipeline cache, counted where a guest asks for their size alone."""

class Call:
    """One command handed to a handler; valid only until the handler returns.

    When the handler returns, the reply (if the guest wants one) is encoded from `args`, `result`
    and the guest ids of created objects.  Handle fields inside output structs
    (`VkPhysicalDeviceGroupProperties`) hold guest ids by then, put there by the handler.
    """

    args: View
    """The command's parameters, by name.  Input handles are host handles."""
    result: int
    """The command's return value as the guest will see it (0 at first)."""
    ring: Ring | None
    """The ring it came over; None when it came by `Engine.submit`."""
    reason: str | None
    """Why the handler has refused the command, for whoever hears of failures (None at first)."""

    @property
    def name(self) -> str: ...
    @property
    def table(self) -> ProcTable:
        """Functions of the instance or device that the first parameter belongs to."""
    @property
    def device(self) -> int:
        """Guest id of the device that the first parameter belongs to; 0 without one."""
    def id(self, parameter: str) -> int:
        """The guest id that came for a handle parameter (`device`, `memory`); 0 for null."""
    @property
    def new_ids(self) -> list[int]:
        """Guest ids that came for the output handles of this command, in order."""
    def invoke(self) -> int:
        """Call the host's function with `args`, without the GIL; sets and returns `result`.

        Output handles hold host handles afterwards (see `new_handles`).
        """
    @property
    def new_handles(self) -> list[int]:
        """Host handles the driver has created, in the order of `new_ids`; 0 where it has not."""
    def set_new_handles(self, handles: Sequence[int]) -> None:
        """Say what host handles stand for `new_ids` (when `invoke` is not used)."""
    def finish(self, region: Region | None = None) -> None:
        """What the kernel does after an ordinary call.

        region: that of the VkDeviceMemory made, which owns it from then on: it is released after
        vkFreeMemory.  Where `ProtocolError` is raised the ownership stays.

        Registers created objects under `new_ids`, forgets destroyed ones (and the children of a
        destroyed pool).  Where `result` is an error, dead objects stand under `new_ids`; a handler
        that fails need not call this for that.
        """
    def run(self) -> int:
        """`invoke`, then `finish`: exactly what the kernel would have done by itself."""
