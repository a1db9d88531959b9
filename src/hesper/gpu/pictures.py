"""2D resources: making them, their backing, and transfers.

Source: VIRTIO 1.3, section 5.7.6.8 "Device Operation: controlq", 2D commands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hesper.display.formats import BY_VIRTIO
from hesper.gpu.request import GpuError
from hesper.gpu.resources import Backing, Blob, Picture, ResourceTable
from hesper.gpu.wire import RESOURCE_ATTACH_BACKING, Response

if TYPE_CHECKING:
    from hesper.gpu.request import Request
    from hesper.gpu.transport import Transport
    from hesper.gpu.wire import (
        AttachBacking,
        ResourceCreate2d,
        ResourceId,
        TransferToHost2d,
    )


class Pictures:
    """The 2D commands."""

    def __init__(self, resources: ResourceTable, transport: Callable[[], Transport]) -> None:
        """`transport` returns what the guest is reached by now."""
        self._resources = resources
        self._transport = transport

    def create(self, _request: Request, asked: ResourceCreate2d) -> None:
        """`RESOURCE_CREATE_2D`."""
        pixel_format = BY_VIRTIO.get(asked.format)
        if pixel_format is None:
            raise GpuError(Response.ERR_INVALID_PARAMETER, f"pixel format {asked.format}")
        size = asked.width * asked.height * pixel_format.bytes_per_pixel
        self._resources.reserve(asked.resource_id, size)
        self._resources.add(Picture(asked.resource_id, asked.width, asked.height, pixel_format))

    def attach_backing(self, request: Request, asked: AttachBacking) -> None:
        """`RESOURCE_ATTACH_BACKING`; the entries follow."""
        resource = self._resources.find(asked.resource_id)
        if resource.backing is not None:
            raise GpuError(Response.ERR_UNSPEC, f"resource {resource.id} has a backing already")
        entries = request.body[RESOURCE_ATTACH_BACKING.size :]
        resource.backing = Backing.from_entries(self._transport(), entries, asked.entries)

    def detach_backing(self, _request: Request, asked: ResourceId) -> None:
        """`RESOURCE_DETACH_BACKING`."""
        resource = self._resources.find(asked.resource_id)
        if resource.backing is None or isinstance(resource, Blob):
            raise GpuError(Response.ERR_UNSPEC, f"resource {resource.id} has no backing to detach")
        resource.backing = None

    def transfer(self, _request: Request, asked: TransferToHost2d) -> None:
        """`TRANSFER_TO_HOST_2D`: copy a rectangle from the backing."""
        picture = self._resources.picture(asked.resource_id)
        backing = picture.backing
        if backing is None:
            raise GpuError(Response.ERR_UNSPEC, f"resource {picture.id} has no backing")
        x, y, width, height, offset, _ = asked
        if x + width > picture.width or y + height > picture.height or not (width and height):
            raise GpuError(
                Response.ERR_INVALID_PARAMETER,
                f"transfer of {width}x{height} at {x},{y} of {picture.width}x{picture.height}",
            )
        stride, pixel = picture.stride, picture.format.bytes_per_pixel
        row = width * pixel
        if offset + (height - 1) * stride + row > backing.size:
            raise GpuError(
                Response.ERR_INVALID_PARAMETER,
                f"transfer ends outside the backing of {backing.size} bytes",
            )
        first = y * stride + x * pixel
        if row == stride:
            backing.copy_to(offset, picture.pixels[first : first + height * stride])
            return
        for line in range(height):
            start = first + line * stride
            backing.copy_to(offset + line * stride, picture.pixels[start : start + row])
