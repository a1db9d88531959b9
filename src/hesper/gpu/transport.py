"""What the GPU and whoever brings it its guest have to do with each other.

A *transport* is how a guest's requests come to this process: vhost-user, or a VMM around it.  It
attaches itself to a `GpuDevice` and calls it, always on the device's loop:

    attach, detach                  a VM comes and goes
    features, negotiated            what the device offers, what the driver has chosen
    QUEUE_COUNT, request            a queue element of either queue
    refuse_long                     one that is longer than any request has to be
    read_config, write_config       the configuration space
    window                          bytes of the shared memory region `wire.SHM_ID_HOST_VISIBLE`
    starved                         no request gets in any more, for want of answers
    reset                           the driver starts over; what was mapped is gone by then

The device calls it by the two protocols of this file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

Known: TypeAlias = Callable[[], None]
"""Called, on the device's loop, when something is known."""
Done: TypeAlias = Callable[[bool], None]
"""Told, on the device's loop, whether it was done."""


class GuestRegion(NamedTuple):
    """A piece of the guest's memory."""

    address: int
    """Where the guest has it."""
    view: memoryview
    """Its bytes; they stay for as long as anybody has them."""


class QueueElement(Protocol):
    """One request of a driver, a descriptor chain: what it has written, and room for an answer."""

    def read(self) -> bytes:
        """Copy the request out of guest memory; called once."""

    def respond(self, data: bytes) -> None:
        """Write as much of `data` as there is room for, and give the element back to the driver.

        Called once, at any time after the request, but not after a `reset` or `detach`.
        """


class Transport(Protocol):
    """What a device asks of its VM.  Calls come on the device's loop and never wait."""

    def guest_memory(self) -> Sequence[GuestRegion]:
        """Return all of the guest's memory as it is now, by addresses; regions do not overlap."""

    def queue_addresses(self) -> Sequence[int]:
        """Return the guest addresses of the queues' descriptor tables, as far as they are known."""

    def map(self, offset: int, fd: int, size: int, done: Done) -> None:
        """Show the first `size` bytes of `fd` to the guest at `offset` of the host-visible region.

        Offset and size are multiples of the host's page.  `fd` stays the caller's; it is open until
        the answer or a reset, so a transport that may map it after a reset takes a copy.  `done` is
        told no where the place is taken; it may be told after a reset, the device then unmaps.
        """

    def unmap(self, offset: int, size: int, done: Done) -> None:
        """Take away exactly what a `map` has shown."""

    def config_changed(self) -> None:
        """Make the driver read the configuration space again."""

    def ask_sizes(self, known: Known) -> None:
        """Bring the sizes that scanouts are wanted in up to date, where the VMM has windows.

        `known` is called once, soon in any case; perhaps after a reset.
        """


class NoTransport:
    """The `Transport` of a device without a VM: there is no memory, and nothing can be mapped."""

    def guest_memory(self) -> Sequence[GuestRegion]:
        """See `Transport`."""
        return ()

    def queue_addresses(self) -> Sequence[int]:
        """See `Transport`."""
        return ()

    def map(self, offset: int, fd: int, size: int, done: Done) -> None:  # noqa: ARG002
        """See `Transport`."""
        done(False)

    def unmap(self, offset: int, size: int, done: Done) -> None:  # noqa: ARG002
        """See `Transport`."""
        done(False)

    def config_changed(self) -> None:
        """See `Transport`."""

    def ask_sizes(self, known: Known) -> None:
        """See `Transport`."""
        known()
