"""Scanouts and cursors: which resource is shown where, and what the monitors say of themselves.

Source: VIRTIO 1.3, sections 5.7.6.8 and 5.7.6.10.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hesper.display.formats import BY_NAME, BY_VIRTIO
from hesper.display.scanout import Cursor, MemorySurface, Rect, ScatteredSurface, Size, Surface
from hesper.gpu.backing import Backing, Bytes, most_pieces
from hesper.gpu.edid import make_edid
from hesper.gpu.request import Answer, GpuError, Pending
from hesper.gpu.resources import Blob, BlobViews, Picture, Resource, ResourceTable
from hesper.gpu.wire import DISPLAY_ONE, EDID, EDID_SIZE, MAX_SCANOUTS, Response

if TYPE_CHECKING:
    from hesper.display.formats import PixelFormat
    from hesper.display.scanout import Display, Scanout
    from hesper.gpu.request import Request
    from hesper.gpu.transport import Transport
    from hesper.gpu.wire import (
        GetEdid,
        NoFields,
        ResourceFlush,
        SetScanout,
        SetScanoutBlob,
        UpdateCursor,
    )

MAX_CURSOR = 512
CURSOR_EDGE = 64
"""The specification's size of a cursor; a blob, which has no size of its own, is taken for that."""


@dataclass(slots=True)
class Shown:
    """What a scanout shows: the part `rect` of a resource."""

    resource: Resource
    rect: Rect


class Scanouts:
    """The commands about scanouts, flushes and cursors."""

    def __init__(
        self, resources: ResourceTable, display: Display, transport: Callable[[], Transport]
    ) -> None:
        """`display` has the scanouts; `transport` returns the one to the VM."""
        self._resources = resources
        self._display = display
        self._transport = transport
        self._views = BlobViews()
        self._shown: dict[int, Shown] = {}
        self._told: set[tuple[int, Size]] = set()
        """Scanouts and sizes that the driver has heard of since `take_news`."""

    def _scanout(self, scanout_id: int) -> Scanout:
        if scanout_id >= len(self._display):
            raise GpuError(
                Response.ERR_INVALID_SCANOUT_ID,
                f"scanout {scanout_id}: there are {len(self._display)}",
            )
        return self._display[scanout_id]

    def display_info(self, _request: Request, _asked: NoFields) -> Pending:
        """`GET_DISPLAY_INFO`: every scanout is plugged in; they stand side by side."""
        return self._when_known(self._display_info)

    def _display_info(self) -> Answer:
        payload = b""
        left = 0
        for scanout in self._display:
            self._told.add((scanout.index, scanout.wanted))
            width, height = scanout.wanted
            payload += DISPLAY_ONE.pack(left, 0, width, height, 1, 0)
            left += width
        return Answer(
            Response.OK_DISPLAY_INFO, payload.ljust(DISPLAY_ONE.size * MAX_SCANOUTS, b"\0")
        )

    def take_news(self) -> bool:
        """Whether something has changed since the driver heard of it; asked once for each time."""
        told, self._told = self._told, set()
        return any(size != self._display[index].wanted for index, size in told)

    def edid(self, _request: Request, asked: GetEdid) -> Pending:
        """`GET_EDID`, by which Linux learns of another size: it asks for display info later."""
        scanout = self._scanout(asked.scanout_id)
        return self._when_known(lambda: self._edid(scanout))

    def _when_known(self, answer: Callable[[], Answer]) -> Pending:
        """Answer when the VMM has said which sizes it wants."""
        pending = Pending()
        self._transport().ask_sizes(lambda: pending.finish(answer()))
        return pending

    def _edid(self, scanout: Scanout) -> Answer:
        self._told.add((scanout.index, scanout.wanted))
        edid = make_edid(*scanout.wanted, serial=scanout.index + 1)
        return Answer(Response.OK_EDID, EDID.pack(len(edid), edid.ljust(EDID_SIZE, b"\0")))

    def set_scanout(self, _request: Request, asked: SetScanout) -> None:
        """`SET_SCANOUT`: show a part of a 2D resource, or nothing."""
        scanout = self._scanout(asked.scanout_id)
        if asked.resource_id == 0:
            self._show(scanout, None, None)
            return
        picture = self._resources.picture(asked.resource_id)
        rect = Rect(asked.x, asked.y, asked.width, asked.height)
        _check_inside(rect, Size(picture.width, picture.height))
        layout = Layout(picture.stride, 0, picture.format)
        surface = _surface(picture.pixels, rect, layout)
        self._show(scanout, surface, Shown(picture, rect))

    def set_scanout_blob(self, _request: Request, asked: SetScanoutBlob) -> None:
        """`SET_SCANOUT_BLOB`: show a part of a blob, which is described here."""
        scanout = self._scanout(asked.scanout_id)
        if asked.resource_id == 0:
            self._show(scanout, None, None)
            return
        blob = self._resources.blob(asked.resource_id)
        pixel_format = BY_VIRTIO.get(asked.format)
        if pixel_format is None:
            raise GpuError(Response.ERR_INVALID_PARAMETER, f"pixel format {asked.format}")
        rect = Rect(asked.x, asked.y, asked.width, asked.height)
        _check_inside(rect, Size(asked.blob_width, asked.blob_height))
        layout = Layout(asked.stride, asked.offset, pixel_format)
        surface = _surface(self._memory(blob), rect, layout)
        self._show(scanout, surface, Shown(blob, rect))

    def _memory(self, blob: Blob) -> Bytes | Backing:
        """Return where a blob's bytes are.  Raises `GpuError`."""
        if blob.descriptor is not None or blob.backing is None:
            return self._views.view(blob)
        whole = blob.backing.whole
        return blob.backing if whole is None else whole

    def _show(self, scanout: Scanout, surface: Surface | None, shown: Shown | None) -> None:
        if shown is None:
            self._shown.pop(scanout.index, None)
        else:
            self._shown[scanout.index] = shown
        scanout.show(surface)

    def flush(self, _request: Request, asked: ResourceFlush) -> None:
        """`RESOURCE_FLUSH`: a rectangle of a resource is ready to be seen."""
        resource = self._resources.find(asked.resource_id)
        rect = Rect(asked.x, asked.y, asked.width, asked.height)
        if isinstance(resource, Picture):
            _check_inside(rect, Size(resource.width, resource.height))
        for index, shown in self._shown.items():
            if shown.resource is not resource:
                continue
            moved = Rect(rect.x - shown.rect.x, rect.y - shown.rect.y, rect.width, rect.height)
            visible = moved.clip(Size(shown.rect.width, shown.rect.height))
            if visible is not None:
                self._display[index].flush([visible])

    def forget(self, resource: Resource) -> None:
        """Show nothing where `resource` was shown: it is about to go."""
        self._views.forget(resource)
        for index in [i for i, shown in self._shown.items() if shown.resource is resource]:
            self._show(self._display[index], None, None)

    def reset(self) -> None:
        """Show nothing at all."""
        self._shown.clear()
        self._views.clear()
        self._told.clear()
        for scanout in self._display:
            scanout.show(None)
            scanout.set_cursor(None)

    # Cursor.

    def update_cursor(self, _request: Request, asked: UpdateCursor) -> None:
        """`UPDATE_CURSOR`: another picture (0: none) and position."""
        scanout = self._scanout(asked.scanout_id)
        cursor = self._cursor(asked) if asked.resource_id else None
        scanout.move_cursor(asked.x, asked.y)
        scanout.set_cursor(cursor)

    def _cursor(self, asked: UpdateCursor) -> Cursor:
        resource = self._resources.find(asked.resource_id)
        if isinstance(resource, Picture):
            size = Size(resource.width, resource.height)
            if max(size) > MAX_CURSOR:
                raise GpuError(Response.ERR_INVALID_PARAMETER, f"cursor of {size}")
            memory: Bytes | Backing = resource.pixels
            # Linux makes all its buffers XRGB, those that its cursor planes show as ARGB as well.
            layout = Layout(resource.stride, 0, resource.format.with_alpha())
        else:
            size = Size(CURSOR_EDGE, CURSOR_EDGE)
            memory = self._memory(self._resources.blob(resource.id))
            layout = Layout(CURSOR_EDGE * 4, 0, BY_NAME["ARGB8888"])
        surface = _surface(memory, Rect(0, 0, *size), layout)
        return Cursor.from_surface(surface, asked.hot_x, asked.hot_y)

    def move_cursor(self, _request: Request, asked: UpdateCursor) -> None:
        """`MOVE_CURSOR`: another position."""
        self._scanout(asked.scanout_id).move_cursor(asked.x, asked.y)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a picture lies in memory: bytes a row, first byte, pixels."""

    stride: int
    offset: int
    format: PixelFormat


def _check_inside(rect: Rect, size: Size) -> None:
    """Raise `GpuError` unless `rect` is a non-empty part of a picture of `size`."""
    if (
        not (rect.width and rect.height)
        or rect.x + rect.width > size.width
        or rect.y + rect.height > size.height
    ):
        raise GpuError(
            Response.ERR_INVALID_PARAMETER,
            f"{rect.width}x{rect.height} at {rect.x},{rect.y} of {size.width}x{size.height}",
        )


def _surface(memory: Bytes | Backing, rect: Rect, layout: Layout) -> Surface:
    """Make a surface of the part `rect` of a picture.

    Raises `GpuError` when it does not fit, or lies in more pieces than it has pages: viewers read
    them all, time and again.
    """
    size = Size(rect.width, rect.height)
    pixel = layout.format.bytes_per_pixel
    offset = layout.offset + rect.y * layout.stride + rect.x * pixel
    try:
        if not isinstance(memory, Backing):
            return MemorySurface(memory.data, size, layout.stride, layout.format, offset)
        surface = ScatteredSurface(memory, size, layout.stride, layout.format, offset)
    except ValueError as error:
        raise GpuError(Response.ERR_INVALID_PARAMETER, str(error)) from error
    span = (rect.height - 1) * layout.stride + rect.width * pixel
    pieces = memory.runs_in(offset, span)
    if pieces > most_pieces(span):
        raise GpuError(Response.ERR_OUT_OF_MEMORY, f"a picture in {pieces} pieces")
    return surface
