"""What the guest calls resources: 2D pictures and blobs."""

from __future__ import annotations

import collections
import contextlib
import mmap
import uuid
from typing import TYPE_CHECKING

import numpy as np

from hesper.gpu.request import GpuError
from hesper.gpu.wire import BlobMemory, Response
from hesper.portable import drop_apart
from hesper.portable.letting_go import LARGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hesper.display.formats import PixelFormat
    from hesper.gpu.backing import Backing, Bytes
    from hesper.gpu.descriptors import Descriptor


MAX_EDGE = 16384
"""Longest edge of a 2D resource in pixels: several scanouts may show parts of one."""


class Resource:
    """Anything with a resource id."""

    def __init__(self, resource_id: int) -> None:
        """Make one that no context knows."""
        self.id = resource_id
        self.backing: Backing | None = None
        self._uuid: uuid.UUID | None = None

    @property
    def uuid(self) -> uuid.UUID:
        """What other devices of the VM call it; the same whenever asked."""
        if self._uuid is None:
            self._uuid = uuid.uuid4()
        return self._uuid

    @property
    def size(self) -> int:
        """Bytes."""
        raise NotImplementedError

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
        self.pixels = _pixels(self.stride * height)

    @property
    def size(self) -> int:
        """See `Resource.size`."""
        return len(self.pixels)

    @property
    def footprint(self) -> int:
        """See `Resource.footprint`."""
        return len(self.pixels)

    def close(self) -> None:
        """Release the pixels, which go with their last user."""
        _let_go(self.pixels)
        self.pixels = _pixels(0)


def _pixels(size: int) -> Bytes:
    """Memory of a picture: it costs next to nothing before it is written."""
    if size <= LARGE:
        # Not a mapping each: a process has 65,530 of those, and a guest may make as many pictures.
        return np.zeros(size, np.uint8)
    # Python unmaps it without its lock, which `numpy` holds while it frees.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel may be without
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


def _let_go(memory: Bytes) -> None:
    """Let go of memory; the kernel frees what is large on another thread's time."""
    if len(memory) > LARGE:
        drop_apart(memory)


class Blob(Resource):
    """A blob: bytes of the guest, of the host, or both."""

    def __init__(self, resource_id: int, memory: BlobMemory, flags: int, size: int) -> None:
        """`size` in bytes, `flags` of `BlobFlag`."""
        super().__init__(resource_id)
        self.memory = memory
        self.flags = flags
        self._size = size
        self.descriptor: Descriptor | None = None
        """The host's memory, held; None where there is none that can be mapped."""
        self.host = False
        """Whether a context has made it."""
        self.map_info = 0
        self.offset: int | None = None
        """Where in the host-visible region it is mapped."""
        self.mapped_length = 0

    @property
    def size(self) -> int:
        """See `Resource.size`."""
        return self._size

    def close(self) -> None:
        """Release the host's memory; pictures that are still shown keep their mapping."""
        if self.descriptor is not None:
            self.descriptor.release()
            self.descriptor = None


MAPPED_BLOBS = 64
"""Blobs that stay mapped here because they were shown: some for each of 16 scanouts."""


class BlobViews:
    """Blobs of the host as memory of this process, for scanouts: those that were shown last.

    To map one for every frame takes longer than to show it; each mapping holds a descriptor.
    """

    def __init__(self) -> None:
        """Nothing is mapped."""
        self._views: collections.OrderedDict[Blob, Bytes] = collections.OrderedDict()

    def view(self, blob: Blob) -> Bytes:
        """Return the bytes of a blob that has a descriptor.

        Nobody can shrink what it is mapped from (`portable.is_fixed`).  Raises `GpuError`.
        """
        if blob.descriptor is None:
            raise GpuError(Response.ERR_UNSPEC, f"blob {blob.id} has no memory that can be read")
        view = self._views.get(blob)
        if view is None:
            try:
                mapping = mmap.mmap(blob.descriptor.fd, blob.size, access=mmap.ACCESS_READ)
            except (OSError, ValueError, OverflowError) as error:
                raise GpuError(
                    Response.ERR_OUT_OF_MEMORY, f"blob {blob.id} cannot be mapped: {error}"
                ) from error
            view = self._views[blob] = np.frombuffer(mapping, np.uint8)
        self._views.move_to_end(blob)
        if len(self._views) > MAPPED_BLOBS:
            _let_go(self._views.popitem(last=False)[1])
        return view

    def forget(self, resource: Resource) -> None:
        """Let go of a resource that is about to go; what is shown keeps its mapping."""
        if isinstance(resource, Blob) and resource in self._views:
            _let_go(self._views.pop(resource))

    def clear(self) -> None:
        """Let go of all."""
        while self._views:
            _let_go(self._views.popitem()[1])


class ResourceTable:
    """All resources of a device, by id."""

    def __init__(self, *, count_limit: int, memory_limit: int, pieces_limit: int) -> None:
        """`memory_limit`: bytes of host memory that 2D resources may take together.

        pieces_limit: pieces of guest memory that all of them may lie in.
        """
        self._resources: dict[int, Resource] = {}
        self._count_limit = count_limit
        self._memory_limit = memory_limit
        self._pieces_limit = pieces_limit
        self._memory = 0
        self._pieces = 0

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

    def attach(self, resource: Resource, backing: Backing) -> None:
        """Put guest memory behind a resource that has none.

        Raises `GpuError` (out of memory) when all resources together have it in too many pieces.
        """
        pieces = self._pieces + len(backing)
        if pieces > self._pieces_limit:
            raise GpuError(
                Response.ERR_OUT_OF_MEMORY,
                f"resources lie in more than {self._pieces_limit} pieces of guest memory",
            )
        self._pieces = pieces
        resource.backing = backing

    def detach(self, resource: Resource) -> None:
        """Take it away again, if there is any."""
        if resource.backing is not None:
            self._pieces -= len(resource.backing)
            resource.backing = None

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
        self.detach(resource)
        resource.close()

    def clear(self) -> list[Resource]:
        """Forget all; the caller closes them, which takes time."""
        forgotten = list(self._resources.values())
        self._resources = {}
        self._memory = self._pieces = 0
        return forgotten
