"""What a device behind vhost-user has to be, and what it has; which it is, nobody here knows."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from hesper.vhost.channel import Answered
    from hesper.vhost.guest_memory import GuestMemory
    from hesper.vhost.virtqueue import Chain


class Vmm(Protocol):
    """What a device has of the front-end that is connected.  For the loop's thread."""

    @property
    def memory(self) -> GuestMemory:
        """The guest's memory, as it is now."""

    def queue_addresses(self) -> list[int]:
        """Return the guest addresses of the descriptor tables of the queues that are set up."""

    def map(self, region: int, fd: int, offset: int, length: int, answered: Answered) -> None:
        """Show the first `length` bytes of `fd` to the guest at `offset` of a region.

        `fd` stays the caller's, and open until the answer.  The VMM refuses what overlaps another
        map or leaves the region.
        """

    def unmap(self, region: int, offset: int, length: int, answered: Answered) -> None:
        """Take away exactly what a `map` has shown."""

    def config_changed(self) -> None:
        """Make the guest read the config space again."""


class Device(Protocol):
    """What a back-end needs of its device.  All calls come on the loop's thread."""

    @property
    def features(self) -> int:
        """Device features offered: bits 0 to 23."""

    @property
    def queue_count(self) -> int:
        """How many queues there are."""

    @property
    def shared_memory(self) -> Mapping[int, int]:
        """Size in bytes of every shared memory region by its id, 0 to 255."""

    def connected(self, vmm: Vmm) -> None:
        """A front-end is there; `vmm` is valid until `disconnected`."""

    def disconnected(self) -> None:
        """It is gone, and the guest's memory with it."""

    def read_config(self) -> bytes:
        """Return the whole config space."""

    def write_config(self, offset: int, data: bytes) -> None:
        """Take what the driver wrote there."""

    def negotiated(self, features: int) -> None:
        """Learn what the driver has chosen, of the device's features and of the queues'."""

    def handle(self, queue: int, chain: Chain) -> None:
        """Take a request; `chain.respond` gives it back, at once or later, once.

        Of one that is `chain.cut` only the beginning is there: it is to be refused.
        """

    def show(self, sock: socket.socket) -> None:
        """Show pictures at `sock`, which is the device's now: the front-end has a display.

        Called again, the display is another one.  QEMU's documentation, "Vhost-user-gpu Protocol",
        says what is spoken there; a device without pictures closes it.  Raises `OSError`, with
        `sock` closed, where it cannot be.
        """

    def starved(self) -> None:
        """Give some answers: a queue is full of requests that wait for theirs, and stays so."""

    def reset(self) -> None:
        """Forget everything that the driver has set up; the VMM has taken away what was mapped."""
