"""Blob resources: making them, mapping them into the guest, and their UUIDs.

Source: VIRTIO 1.3, section 5.7.6.8 "Device Operation: controlq", blob resources, and section 5.7.7
"Device Operation: host visible memory region".
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from hesper.gpu.request import OK, Answer, GpuError, Pending
from hesper.gpu.resources import Backing, Blob, Resource, ResourceTable
from hesper.gpu.wire import (
    MAP_INFO,
    RESOURCE_CREATE_BLOB,
    BlobMemory,
    Response,
)
from hesper.portable import page_size, round_to_page
from hesper.protocol.virtgpu import BLOB_FLAGS, BlobFlag

if TYPE_CHECKING:
    from hesper.gpu.context_client import NewBlob
    from hesper.gpu.contexts import Contexts
    from hesper.gpu.request import Request
    from hesper.gpu.transport import Transport
    from hesper.gpu.wire import CreateBlob, MapBlob, ResourceId


class Blobs:
    """The blob commands."""

    def __init__(
        self,
        resources: ResourceTable,
        contexts: Contexts,
        *,
        transport: Callable[[], Transport],
        window: int,
    ) -> None:
        """`transport` returns what the guest is reached by now.

        window: bytes of the host-visible region.
        """
        self._resources = resources
        self._contexts = contexts
        self._transport = transport
        self._window = window
        self._generation = 0
        self.aligned = False
        """Whether the driver keeps to our blob alignment."""

    def create(self, request: Request, asked: CreateBlob) -> Pending | None:
        """`RESOURCE_CREATE_BLOB`; memory entries may follow."""
        size = asked.size
        if asked.memory not in BlobMemory.__members__.values():
            raise GpuError(Response.ERR_INVALID_PARAMETER, f"blob memory {asked.memory}")
        if asked.flags & ~BLOB_FLAGS or size == 0 or (self.aligned and size % page_size()):
            raise GpuError(
                Response.ERR_INVALID_PARAMETER, f"blob of {size} bytes with flags {asked.flags:#x}"
            )
        blob = Blob(asked.resource_id, BlobMemory(asked.memory), asked.flags, size)
        if (blob.memory == BlobMemory.HOST3D) != (asked.entries == 0):
            raise GpuError(
                Response.ERR_INVALID_PARAMETER, f"{blob.memory.name} blob, {asked.entries} pieces"
            )
        self._resources.reserve(blob.id)
        if asked.entries:
            entries = request.body[RESOURCE_CREATE_BLOB.size :]
            blob.backing = Backing.from_entries(self._transport(), entries, asked.entries)
            if blob.backing.size < size:
                raise GpuError(
                    Response.ERR_INVALID_PARAMETER,
                    f"blob of {size} bytes has a backing of {blob.backing.size}",
                )
        if blob.memory == BlobMemory.GUEST:
            self._resources.add(blob)
            return None
        return self._create_on_host(blob, request.header.ctx_id, asked.blob_id)

    def _create_on_host(self, blob: Blob, ctx_id: int, blob_id: int) -> Pending:
        """Have a context make the blob's memory."""
        client = self._contexts.client(ctx_id)
        pending = Pending()
        generation = self._generation

        def done(new: NewBlob | None) -> None:
            if new is None or generation != self._generation:
                if new is not None and new.fd >= 0:
                    os.close(new.fd)
                pending.finish(GpuError(Response.ERR_UNSPEC, f"context {ctx_id} was lost"))
                return
            try:
                self._take(blob, ctx_id, new)
            except GpuError as error:
                pending.finish(error)
            else:
                pending.finish(OK)

        client.create_blob(blob.id, blob.flags, blob_id, blob.size, done)
        return pending

    def _take(self, blob: Blob, ctx_id: int, new: NewBlob) -> None:
        """Take over what a worker has made, or refused."""
        blob.fd = new.fd
        blob.map_info = new.map_info
        try:
            if new.response != Response.OK_NODATA:
                known = new.response in Response.__members__.values()
                response = Response(new.response) if known else Response.ERR_UNSPEC
                raise GpuError(response, f"context {ctx_id} refuses blob {blob.id}")
            if blob.fd >= 0 and _size_of(blob.fd) < blob.size:
                raise GpuError(Response.ERR_UNSPEC, f"memory of blob {blob.id} is too small")
            self._resources.reserve(blob.id)
        except GpuError:
            blob.close()
            raise
        blob.host = True
        blob.contexts.add(ctx_id)
        self._resources.add(blob)

    def map(self, _request: Request, asked: MapBlob) -> Pending:
        """`RESOURCE_MAP_BLOB`: show a blob at `offset` of the host-visible region."""
        blob = self._resources.blob(asked.resource_id)
        offset = asked.offset
        if blob.fd < 0 or not blob.flags & BlobFlag.USE_MAPPABLE:
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
        transport.map(offset, blob.fd, length, answered)
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
        self._generation += 1


def _size_of(fd: int) -> int:
    """Bytes of a memory object; a dma-buf tells them only to lseek."""
    return os.fstat(fd).st_size or os.lseek(fd, 0, os.SEEK_END)
