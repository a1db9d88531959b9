"""Blob resources: making them, mapping them into the guest, and their UUIDs.

Source: VIRTIO 1.3, section 5.7.6.8 "Device Operation: controlq", blob resources, and section 5.7.7
"Device Operation: host visible memory region".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hesper.gpu.backing import read_entries
from hesper.gpu.request import OK, Answer, GpuError, Pending
from hesper.gpu.resources import Blob, Resource, ResourceTable
from hesper.gpu.wire import (
    MAP_INFO,
    RESOURCE_CREATE_BLOB,
    BlobMemory,
    Response,
)
from hesper.portable import close_apart, is_fixed, object_size, page_size, round_to_page
from hesper.protocol.virtgpu import BLOB_FLAGS, BlobFlag

if TYPE_CHECKING:
    from hesper.event_loop import EventLoop
    from hesper.gpu.context_client import NewBlob
    from hesper.gpu.contexts import Contexts
    from hesper.gpu.descriptors import Descriptor, Descriptors
    from hesper.gpu.guest_pages import GuestPages
    from hesper.gpu.long_work import LongWork, Work
    from hesper.gpu.request import Request
    from hesper.gpu.wire import CreateBlob, MapBlob, ResourceId


LOOK_AFTER = 1.0
"""Seconds between two looks at blobs that are being made."""
LOOKS = 3
"""After so many that somebody else has waited for a blob, it is given up.

A program that is stuck may have handed a blob to the compositor before there is any.
"""


@dataclass(slots=True)
class _Making:
    """A blob that a context is making."""

    resource_id: int
    ctx_id: int
    looks: int = 0
    given_up: bool = False
    give_up: Callable[[], None] = lambda: None


class Blobs:
    """The blob commands."""

    def __init__(
        self,
        resources: ResourceTable,
        contexts: Contexts,
        work: LongWork,
        loop: EventLoop,
        *,
        awaited: Callable[[int, int], bool],
        descriptors: Descriptors,
        pages: GuestPages,
        window: int,
    ) -> None:
        """`pages` knows what the guest is reached by now, too.

        window: bytes of the host-visible region.  awaited: whether a request that is not of a
        context (the second) waits for a resource (the first).
        """
        self._resources = resources
        self._contexts = contexts
        self._work = work
        self._loop = loop
        self._awaited = awaited
        self._made: dict[int, _Making] = {}
        """Blobs that contexts are making, by resource."""
        self._looking = False
        self._descriptors = descriptors
        self._transport = pages.transport
        self._window = window
        self._generation = 0
        self._pages = pages

    def create(self, request: Request, asked: CreateBlob) -> Answer | Pending | None:
        """`RESOURCE_CREATE_BLOB`; memory entries may follow."""
        size = asked.size
        if asked.memory not in BlobMemory.__members__.values():
            raise GpuError(Response.ERR_INVALID_PARAMETER, f"blob memory {asked.memory}")
        if asked.flags & ~BLOB_FLAGS or size == 0 or (self._pages.aligned and size % page_size()):
            raise GpuError(
                Response.ERR_INVALID_PARAMETER, f"blob of {size} bytes with flags {asked.flags:#x}"
            )
        blob = Blob(asked.resource_id, BlobMemory(asked.memory), asked.flags, size)
        if (blob.memory == BlobMemory.HOST3D) != (asked.entries == 0):
            raise GpuError(
                Response.ERR_INVALID_PARAMETER, f"{blob.memory.name} blob, {asked.entries} pieces"
            )
        self._resources.reserve(blob.id)
        if not asked.entries:
            return self._create_on_host(blob, request.header.ctx_id, asked.blob_id)
        entries = request.body[RESOURCE_CREATE_BLOB.size :]
        return self._work.run(self._create_scattered(blob, entries, asked, request.header.ctx_id))

    def _create_scattered(
        self, blob: Blob, entries: memoryview, asked: CreateBlob, ctx_id: int
    ) -> Work:
        """Make a blob that lies in guest memory, perhaps in a context's as well."""
        regions = self._transport().guest_memory()
        backing = yield from read_entries(regions, entries, asked.entries, blob.size, self._pages)
        if backing.size < blob.size:
            raise GpuError(
                Response.ERR_INVALID_PARAMETER,
                f"blob of {blob.size} bytes has a backing of {backing.size}",
            )
        # Others may have been made since.
        self._resources.reserve(blob.id)
        self._resources.attach(blob, backing)
        if blob.memory == BlobMemory.GUEST:
            self._resources.add(blob)
            return None
        try:
            pending = self._create_on_host(blob, ctx_id, asked.blob_id)
        except GpuError:
            self._resources.detach(blob)
            raise
        pending.in_order = False
        return pending

    def _create_on_host(self, blob: Blob, ctx_id: int, blob_id: int) -> Pending:
        """Have a context make the blob's memory."""
        client = self._contexts.client(ctx_id)
        # A driver makes them of whole pages of its own.
        self._pages.saw(blob.size)
        pending = Pending(in_order=True)
        generation = self._generation

        making = _Making(blob.id, ctx_id)

        def done(new: NewBlob | None) -> None:
            if making.given_up or generation != self._generation:
                if new is not None and new.fd >= 0:
                    close_apart(new.fd)
                pending.finish(GpuError(Response.ERR_UNSPEC, "the driver has started over"))
                return
            del self._made[blob.id]
            try:
                if new is None:
                    raise GpuError(Response.ERR_UNSPEC, f"context {ctx_id} was lost")
                self._take(blob, ctx_id, new)
            except GpuError as error:
                self._resources.detach(blob)
                blob.close()
                pending.finish(error)
            else:
                pending.finish(OK)

        def give_up() -> None:
            making.given_up = True
            del self._made[blob.id]
            self._resources.detach(blob)
            client.destroy_resource(blob.id)
            reason = f"context {ctx_id} does not make blob {blob.id}, for which others wait"
            pending.finish(GpuError(Response.ERR_UNSPEC, reason))

        making.give_up = give_up
        self._made[blob.id] = making
        self._look_later()
        client.create_blob(blob.id, blob.flags, blob_id, blob.size, done)
        return pending

    def _look_after(self) -> None:
        """Give up blobs that other programs, or screens, have waited for too long."""
        self._looking = False
        for making in tuple(self._made.values()):
            if self._awaited(making.resource_id, making.ctx_id):
                making.looks += 1
                if making.looks > LOOKS:
                    making.give_up()
        self._look_later()

    def _look_later(self) -> None:
        if self._made and not self._looking:
            self._looking = True
            self._loop.call_after(LOOK_AFTER, self._look_after)

    def _take(self, blob: Blob, ctx_id: int, new: NewBlob) -> None:
        """Take over what a worker has made, or refused.  Nothing of it is trusted."""
        if new.fd >= 0:
            blob.descriptor = self._descriptors.take(new.fd)
        if new.response != Response.OK_NODATA:
            known = new.response in _REFUSALS
            response = Response(new.response) if known else Response.ERR_UNSPEC
            raise GpuError(response, f"context {ctx_id} refuses blob {blob.id}")
        if blob.descriptor is not None:
            _check_memory(blob, blob.descriptor)
        self._resources.reserve(blob.id)
        blob.map_info = new.map_info
        blob.host = True
        self._contexts.note_attached(ctx_id, blob)
        self._resources.add(blob)

    def map(self, _request: Request, asked: MapBlob) -> Pending:
        """`RESOURCE_MAP_BLOB`: show a blob at `offset` of the host-visible region."""
        blob = self._resources.blob(asked.resource_id)
        offset = asked.offset
        if blob.descriptor is None or not blob.flags & BlobFlag.USE_MAPPABLE:
            raise GpuError(Response.ERR_UNSPEC, f"blob {blob.id} cannot be mapped")
        if blob.offset is not None:
            raise GpuError(Response.ERR_INVALID_PARAMETER, f"blob {blob.id} is mapped already")
        length = round_to_page(blob.size)
        if offset % page_size() or offset + length > self._window:
            raise GpuError(
                Response.ERR_INVALID_PARAMETER,
                f"map of {length:#x} bytes at {offset:#x}: the region has {self._window:#x} bytes"
                f" in pages of {page_size()}",
            )
        pending = Pending()
        transport = self._transport()
        generation = self._generation

        def answered(accepted: bool) -> None:
            if generation != self._generation:
                # Mapped for a driver that has started over meanwhile.
                if accepted:
                    transport.unmap(offset, length, lambda _: None)
                pending.finish(GpuError(Response.ERR_UNSPEC, "the driver has started over"))
            elif accepted:
                pending.finish(Answer(Response.OK_MAP_INFO, MAP_INFO.pack(blob.map_info)))
            else:
                blob.offset = None
                pending.finish(
                    GpuError(
                        Response.ERR_OUT_OF_MEMORY,
                        f"the VMM does not map {length:#x} bytes at {offset:#x}",
                    )
                )

        blob.offset = offset
        blob.mapped_length = length
        transport.map(offset, blob.descriptor.fd, length, answered)
        return pending

    def unmap(self, _request: Request, asked: ResourceId) -> Pending:
        """`RESOURCE_UNMAP_BLOB`."""
        blob = self._resources.blob(asked.resource_id)
        if blob.offset is None:
            raise GpuError(Response.ERR_INVALID_PARAMETER, f"blob {blob.id} is not mapped")
        return self._unmap(blob, blob.offset)

    def _unmap(self, blob: Blob, offset: int) -> Pending:
        pending = Pending()
        blob.offset = None
        self._transport().unmap(offset, blob.mapped_length, lambda _: pending.finish(OK))
        return pending

    def release(self, resource: Resource) -> Pending | None:
        """Take a blob out of the guest's address space before it goes; None when it is not in."""
        if isinstance(resource, Blob) and resource.offset is not None:
            return self._unmap(resource, resource.offset)
        return None

    def assign_uuid(self, _request: Request, asked: ResourceId) -> Answer:
        """`RESOURCE_ASSIGN_UUID`."""
        return Answer(Response.OK_RESOURCE_UUID, self._resources.find(asked.resource_id).uuid.bytes)

    def reset(self) -> None:
        """Forget what is on its way: nobody waits for it any more."""
        self._made.clear()
        self._generation += 1


_REFUSALS = frozenset(int(response) for response in Response if response.name.startswith("ERR_"))


def _check_memory(blob: Blob, descriptor: Descriptor) -> None:
    """Raise `GpuError` unless all of a blob can be touched for as long as it is there.

    The device's process, the VMM's and other contexts' map it.
    """
    try:
        if not is_fixed(descriptor.fd):
            reason = "could be made smaller"
        elif object_size(descriptor.fd) < round_to_page(blob.size):
            reason = "is too small"
        else:
            return
    except OSError as error:
        reason = f"is none: {error.strerror}"
    raise GpuError(Response.ERR_UNSPEC, f"memory of blob {blob.id} {reason}")
