"""Whether the guest's pages are smaller than the host's, and whether Venus can work all the same.

What is mapped into the guest lies on the host's pages.  A driver that has negotiated
`Feature.BLOB_ALIGNMENT` knows how large they are; one that has not makes blobs of its own pages,
and where those are smaller, Mesa's Venus fails with all of `vkCreateInstance`: the guest's other
Vulkan drivers, llvmpipe among them, are lost with it.  Better to have no Venus then.

Nothing in virtio says how large a guest's pages are.  They show in what it shares of its memory,
which a driver allocates in whole pages: where its queues begin, and the pieces that resources have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hesper.log import get_logger
from hesper.portable import page_size

if TYPE_CHECKING:
    from hesper.gpu.transport import Transport

_log = get_logger(__name__)

LEAST_PAGE = 4096
"""The smallest page that a guest has."""

REMEDY = "give it Linux 7.2 and Mesa 26.2.4, or an older kernel with pages as large as this host's"
REMEDY_FOR_MESA = "give it a newer one, or start the machine with --no-blob-alignment"


class GuestPages:
    """What is known of the pages of a guest.  For the loop's thread."""

    def __init__(self, transport: Callable[[], Transport]) -> None:
        """`transport` returns what the guest is reached by now."""
        self.transport = transport
        self._mask = page_size() - 1
        self._small = False
        self._wants_venus = False
        self._told = False
        self.aligned = False
        """Whether the driver keeps to our blob alignment."""

    def reset(self) -> None:
        """Forget the guest: another kernel may start now.  What is negotiated stays."""
        self._small = self._wants_venus = self._told = False

    def saw(self, bits: int) -> None:
        """Learn addresses and lengths, or-ed together, of memory that the guest shares in pages."""
        if self.undecided and bits & self._mask:
            self._small = True
            self._tell()

    @property
    def undecided(self) -> bool:
        """Whether it matters how large they are, and is not known that they are smaller."""
        return self._mask >= LEAST_PAGE and not self._small

    def unfit(self) -> bool:
        """Whether Venus cannot work, as far as is known; asked when the guest asks for Venus."""
        self._wants_venus = True
        if self.undecided:
            for address in self.transport().queue_addresses():
                self.saw(address)
        self._tell()
        return self._small and not self.aligned

    def why_no_ring(self, refused: str, *, has_made: bool) -> str:
        """What has kept Mesa from making its first ring; empty if it is not known.

        refused: what the context was refused last, or empty.  has_made: whether it has made a blob.
        The guest's kernel itself refuses blobs that are not aligned: where one has come here, it
        was not that.
        """
        if self._small and not self.aligned:
            return f"the guest's pages are smaller than {page_size()} bytes"
        if refused or has_made or self._mask < LEAST_PAGE or not self.aligned:
            return refused
        return (
            f"the guest's Mesa is older than 26.2.4: its kernel insists on blobs of {page_size()}"
            f" bytes; {REMEDY_FOR_MESA}"
        )

    def _tell(self) -> None:
        """Say once what the guest lacks."""
        if self._small and self._wants_venus and not (self.aligned or self._told):
            self._told = True
            _log.warning(
                "no Venus for this guest: its pages are smaller than this host's",
                bytes=page_size(),
                remedy=REMEDY,
            )
