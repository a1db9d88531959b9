"""A VkDeviceMemory of the guest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hesper.guest.regions import Budget, Region


@dataclass(frozen=True)
class DeviceMemory:
    """One allocation.  It owns `region`."""

    region: Region | None
    """Shared memory that it lies in; None for memory the guest cannot map."""
    budget: Budget
    charged: int
    """Bytes charged to `budget` besides those of `region`."""

    def release(self) -> None:
        """Give everything back.  Call it after vkFreeMemory."""
        if self.region is not None:
            self.region.release()
        self.budget.give(self.charged)
