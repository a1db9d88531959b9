"""What the guest calls resources: 2D pictures and blobs, and the guest memory behind them."""

from __future__ import annotations

import bisect
import mmap
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from hesper.gpu.request import GpuError
from hesper.gpu.transport import AddressError
from hesper.gpu.wire import MEM_ENTRY, BlobMemory, Response

if TYPE_CHECKING:
    from hesper.display.formats import PixelFormat
    from hesper.gpu.transport import Transport


MAX_EDGE = 16384
"""Longest edge of a 2D resource in pixels: several scanouts may show parts of one."""


class Backing:
    """Guest memory in several pieces, one after the other."""

    def __init__(self, pieces: Sequence[memoryview]) -> None:
        """`pieces`: none of them empty."""
        self.pieces = pieces
        self._ends = list(accumulate(len(piece) for piece in pieces))
        self.size = self._ends[-1] if self._ends else 0

    @classmethod
    def from_entries(cls, transport: Transport, body: memoryview, count: int) -> Backing:
        """Read `count` memory entries from `body`; pieces that touch become one.

        Raises `GpuError` (invalid parameter) when there are fewer, or one is not guest memory.
        """
        if len(body) != count * MEM_ENTRY.size:
            raise GpuError(
                Response.ERR_INVALID_PARAMETER,
                f"{count} memory entries in {len(body)} bytes",
            )
        pieces: list[memoryview] = []
        try:
            for address, length in _merged(MEM_ENTRY.iter_unpack(body)):
                pieces += transport.guest_memory(address, length)
        except AddressError as error:
            raise GpuError(Response.ERR_INVALID_PARAMETER, f"backing: {error}") from error
        return cls(pieces)

    def copy_to(self, start: int, out: memoryview) -> None:
        """Fill `out` with the bytes from `start` on; they must all be there."""
        index = bisect.bisect_right(self._ends, start)
        done = 0
        while done < len(out):
            piece = self.pieces[index]
            skip = start + done - (self._ends[index] - len(piece))
            count = min(len(piece) - skip, len(out) - done)
            out[done : done + count] = piece[skip : skip + count]
            done += count
            index += 1


def _merged(entries: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join entries that follow each other in memory; drop empty ones."""
    first = length = 0
    for address, size in entries:
        if length and address == first + length:
            length += size
            continue
        if length:
            yield first, length
        first, length = address, size
    if length:
        yield first, length


class Resource:
    """Anything with a resource id."""

    def __init__(self, resource_id: int) -> None:
        """Make one that no context knows."""
        self.id = resource_id
        self.backing: Backing | None = None
        self.contexts: set[int] = set()
        """Contexts it is attached to."""
        self._uuid: uuid.UUID | None = None

    @property
    def uuid(self) -> uuid.UUID:
        """What other devices of the VM call it; the same whenever asked."""
        if self._uuid is None:
            self._uuid = uuid.uuid4()
        return self._uuid

    @property
    def footprint(self) -> int:
        """Bytes of host memory that the device itself holds for it."""
        return 0

    def close(self) -> None:
        """Release what it holds."""


class Picture(Resource):
    """A 2D resource: pixels of the host, filled from the backing by transfers."""

    def __init__(
        self, resource_id: int, width: int, height: int, pixel_format: PixelFormat
    ) -> None:
        """Raises `GpuError` for a size that is not 1 to `MAX_EDGE` in both directions."""
        if not (1 <= width <= MAX_EDGE and 1 <= height <= MAX_EDGE):
            raise GpuError(Response.ERR_INVALID_PARAMETER, f"2D resource of {width}x{height}")
        super().__init__(resource_id)
        self.width = width
        self.height = height
        self.format = pixel_format
        self.stride = width * pixel_format.bytes_per_pixel
        # Anonymous memory costs nothing before it is written, and goes with its last user.
        self.pixels = memoryview(mmap.mmap(-1, self.stride * height))

    @property
    def footprint(self) -> int:
        """See `Resource.footprint`."""
        return len(self.pixels)


class Blob(Resource):
    """A blob: bytes of the guest, of the host, or both."""

    def __init__(self, resource_id: int, memory: BlobMemory, flags: int, size: int) -> None:
        """`size` in bytes, `flags` of `BlobFlag`."""
        super().__init__(resource_id)
        self.memory = memory
        self.flags = flags
        self.size = size
        self.fd = -1
        """The host's memory, owned; -1 where there is none that can be mapped."""
        self.host = False
        """Whether a context has made it."""
        self.map_info = 0
        self.offset: int | None = None
        """Where in the host-visible region it is mapped."""
        self.mapped_length = 0
        self._view: memoryview | None = None

    def pieces(self) -> Sequence[memoryview]:
        """Return its bytes as memory of this process.

        Raises `GpuError` when there is no such memory.
        """
        if self.fd >= 0:
            if self._view is None:
                try:
                    self._view = memoryview(mmap.mmap(self.fd, self.size, access=mmap.ACCESS_READ))
                except (OSError, ValueError) as error:
                    raise GpuError(
                        Response.ERR_OUT_OF_MEMORY, f"blob {self.id} cannot be mapped: {error}"
                    ) from error
            return [self._view]
        if self.backing is not None:
            return self.backing.pieces
        raise GpuError(Response.ERR_UNSPEC, f"blob {self.id} has no memory that can be read")

    def close(self) -> None:
        """Release the host's memory; pictures that are still shown keep their mapping."""
        self._view = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class ResourceTable:
    """All resources of a device, by id."""

    def __init__(self, *, count_limit: int, memory_limit: int) -> None:
        """`memory_limit`: bytes of host memory that 2D resources may take together."""
        self._resources: dict[int, Resource] = {}
        self._count_limit = count_limit
        self._memory_limit = memory_limit
        self._memory = 0

    def __len__(self) -> int:
        """Count them."""
        return len(self._resources)

    def __iter__(self) -> Iterator[Resource]:
        """Go through them."""
        return iter(tuple(self._resources.values()))

    def reserve(self, resource_id: int, memory: int = 0) -> None:
        """Check that a resource of that id and size may be made.

        Raises `GpuError`: invalid id (0 or taken), or out of memory.
        """
        if resource_id == 0 or resource_id in self._resources:
            raise GpuError(
                Response.ERR_INVALID_RESOURCE_ID, f"resource id {resource_id} is 0 or taken"
            )
        if len(self._resources) >= self._count_limit:
            raise GpuError(Response.ERR_OUT_OF_MEMORY, f"{self._count_limit} resources are live")
        if self._memory + memory > self._memory_limit:
            raise GpuError(
                Response.ERR_OUT_OF_MEMORY,
                f"2D resources would take more than {self._memory_limit} bytes",
            )

    def add(self, resource: Resource) -> None:
        """Add one that `reserve` was asked for."""
        self._resources[resource.id] = resource
        self._memory += resource.footprint

    def find(self, resource_id: int) -> Resource:
        """Return the resource.  Raises `GpuError` (invalid resource id)."""
        resource = self._resources.get(resource_id)
        if resource is None:
            raise GpuError(Response.ERR_INVALID_RESOURCE_ID, f"no resource {resource_id}")
        return resource

    def blob(self, resource_id: int) -> Blob:
        """Return the blob.  Raises `GpuError` (invalid resource id)."""
        resource = self.find(resource_id)
        if not isinstance(resource, Blob):
            raise GpuError(
                Response.ERR_INVALID_RESOURCE_ID, f"resource {resource_id} is not a blob"
            )
        return resource

    def picture(self, resource_id: int) -> Picture:
        """Return the 2D resource.  Raises `GpuError` (invalid resource id)."""
        resource = self.find(resource_id)
        if not isinstance(resource, Picture):
            raise GpuError(
                Response.ERR_INVALID_RESOURCE_ID, f"resource {resource_id} is not a 2D resource"
            )
        return resource

    def remove(self, resource: Resource) -> None:
        """Forget it and release what it holds."""
        del self._resources[resource.id]
        self._memory -= resource.footprint
        resource.close()

    def clear(self) -> None:
        """Forget all."""
        for resource in self:
            self.remove(resource)
