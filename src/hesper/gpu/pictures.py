"""2D resources: making them, their backing, and transfers.

Source: VIRTIO 1.3, section 5.7.6.8 "Device Operation: controlq", 2D commands.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hesper.display.formats import BY_VIRTIO
from hesper.gpu.backing import BYTES_A_STEP, Backing, Bytes, Rows, read_entries
from hesper.gpu.request import GpuError
from hesper.gpu.resources import Blob, Picture, ResourceTable
from hesper.gpu.wire import RESOURCE_ATTACH_BACKING, Response

if TYPE_CHECKING:
    from hesper.gpu.guest_pages import GuestPages
    from hesper.gpu.long_work import LongWork, Work
    from hesper.gpu.request import Answer, Pending, Request
    from hesper.gpu.resources import Resource
    from hesper.gpu.wire import (
        AttachBacking,
        ResourceCreate2d,
        ResourceId,
        TransferToHost2d,
    )


class Pictures:
    """The 2D commands."""

    def __init__(self, resources: ResourceTable, work: LongWork, pages: GuestPages) -> None:
        """`pages` knows what the guest is reached by now, too."""
        self._pages = pages
        self._resources = resources
        self._work = work
        self._transport = pages.transport

    def create(self, _request: Request, asked: ResourceCreate2d) -> None:
        """`RESOURCE_CREATE_2D`."""
        pixel_format = BY_VIRTIO.get(asked.format)
        if pixel_format is None:
            raise GpuError(Response.ERR_INVALID_PARAMETER, f"pixel format {asked.format}")
        size = asked.width * asked.height * pixel_format.bytes_per_pixel
        self._resources.reserve(asked.resource_id, size)
        self._resources.add(Picture(asked.resource_id, asked.width, asked.height, pixel_format))

    def attach_backing(self, request: Request, asked: AttachBacking) -> Answer | Pending | None:
        """`RESOURCE_ATTACH_BACKING`; the entries follow."""
        resource = self._resources.find(asked.resource_id)
        if resource.backing is not None:
            raise GpuError(Response.ERR_UNSPEC, f"resource {resource.id} has a backing already")
        entries = request.body[RESOURCE_ATTACH_BACKING.size :]
        return self._work.run(self._attach(resource, entries, asked.entries))

    def _attach(self, resource: Resource, entries: memoryview, count: int) -> Work:
        regions = self._transport().guest_memory()
        backing = yield from read_entries(regions, entries, count, resource.size, self._pages)
        self._resources.attach(resource, backing)
        return None

    def detach_backing(self, _request: Request, asked: ResourceId) -> None:
        """`RESOURCE_DETACH_BACKING`."""
        resource = self._resources.find(asked.resource_id)
        if resource.backing is None or isinstance(resource, Blob):
            raise GpuError(Response.ERR_UNSPEC, f"resource {resource.id} has no backing to detach")
        self._resources.detach(resource)

    def transfer(self, _request: Request, asked: TransferToHost2d) -> Answer | Pending | None:
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
        out = picture.pixels[first : first + (height - 1) * stride + row]
        return self._work.run(_transfer(backing, offset, out, Rows(height, stride, row)))


def _transfer(backing: Backing, start: int, out: Bytes, rows: Rows) -> Work:
    """Copy rows from `start` of `backing` to `out`, where they lie as far apart."""
    yield from _copy_rows(backing, start, out, rows)
    return None


def _copy_rows(backing: Backing, start: int, out: Bytes, rows: Rows) -> Iterator[None]:
    if rows.size == rows.stride:
        yield from backing.steps(start, out)
        return
    if rows.size * 2 < rows.stride:
        yield from backing.row_steps(start, out, rows)
        return
    # Most of every row is wanted: one run over several costs fewer steps than a run a row.
    a_time = max(BYTES_A_STEP // rows.stride, 1)
    between = np.empty(a_time * rows.stride, np.uint8)
    for index in range(0, rows.number, a_time):
        part = rows._replace(number=min(a_time, rows.number - index))
        at, span = index * rows.stride, (part.number - 1) * rows.stride + rows.size
        yield from backing.steps(start + at, between[:span])
        part.of(out[at : at + span])[:] = part.of(between[:span])
        yield
