"""What a vhost-user back-end and the device behind it have to do with each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from hesper.vhost.backend import Session
    from hesper.vhost.virtqueue import VirtQueue


class Device(Protocol):
    """What a back-end needs of its device.  All calls come on the loop's thread."""

    features: int
    """Device features offered, below bit 24."""
    queue_count: int
    shared_memory: Mapping[int, int]
    """Size in bytes of every shared memory region by its id."""

    def connected(self, session: Session) -> None:
        """A front-end is there; `session` is valid until `disconnected`."""

    def disconnected(self) -> None:
        """It is gone, and the guest's memory with it."""

    def is_mapped(self, fd: int) -> bool:
        """Whether `fd` is memory that the device itself has mapped into the guest."""

    def read_config(self) -> bytes:
        """Return the whole config space."""

    def write_config(self, offset: int, data: bytes) -> None:
        """Take what the driver wrote there."""

    def negotiated(self, features: int) -> None:
        """Learn what the driver has chosen."""

    def available(self, queue: VirtQueue) -> bool:
        """Pop what `queue` has; `Session` notifies the driver afterwards.

        Returns whether there may be more: a driver that never pauses must not keep the loop busy.
        Raises `QueueError`.
        """

    def reset(self) -> None:
        """Forget everything that the driver has set up."""
