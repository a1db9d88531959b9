"""Where a scanout's pixels are read from, without a copy of the whole picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from hesper.display.formats import PixelFormat, Xrgb
    from hesper.display.geometry import Rect, Size

MAX_EDGE = 8192
"""Largest width or height of a surface, in pixels."""

MAX_PIXELS = 7680 * 4320
"""Most pixels of a surface: outputs keep a copy, at a guest's word."""


class Surface(ABC):
    """A picture in memory that a guest writes and outputs read, from any thread, at any time.

    Nothing is locked: an output that reads while the guest draws gets a torn picture, and the
    flush that ends the drawing makes it read again.

    The memory has to stay mapped for as long as anybody holds the surface.  Whoever made it drops
    its own references and lets the last one unmap; it never closes the mapping under a surface.
    """

    def __init__(self, size: Size, pixel_format: PixelFormat) -> None:
        """Raise `ValueError` for a size that `check_size` refuses."""
        check_size(size)
        self.size = size
        self.format = pixel_format

    @abstractmethod
    def pixels(self, rect: Rect) -> npt.NDArray[np.unsignedinteger]:
        """Return the pixels of `rect`, which lies inside the surface, in the surface's format.

        Laid out as `PixelFormat.dtype` says; a view of the memory where that can be.
        """

    def read(self, rect: Rect, out: Xrgb) -> None:
        """Convert the pixels of `rect` into `out`, of shape (rect.height, rect.width)."""
        self.format.to_xrgb(self.pixels(rect), out)


class MemorySurface(Surface):
    """A surface in one piece of memory: a blob, or a 2D resource's own pixels.

    Reading it is a view; the only copy is the conversion.
    """

    def __init__(
        self,
        memory: ReadableBuffer,
        size: Size,
        stride: int,
        pixel_format: PixelFormat,
        offset: int = 0,
    ) -> None:
        """Show `memory` from byte `offset` on, rows `stride` bytes apart.

        Raises `ValueError` when a row is longer than `stride` or the last row ends outside
        `memory`.
        """
        super().__init__(size, pixel_format)
        view = memoryview(memory).cast("B")
        check_layout(len(view), size, stride, pixel_format, offset)
        shape: tuple[int, ...] = (size.height, size.width)
        strides: tuple[int, ...] = (stride, pixel_format.bytes_per_pixel)
        if pixel_format.bytes_per_pixel == 3:
            shape, strides = (*shape, 3), (*strides, 1)
        self._pixels: npt.NDArray[np.unsignedinteger] = np.ndarray(
            shape, pixel_format.dtype, view, offset, strides
        )
        self._pixels.flags.writeable = False

    def pixels(self, rect: Rect) -> npt.NDArray[np.unsignedinteger]:
        """See `Surface.pixels`; always a view."""
        return self._pixels[rect.slices]


class Scattered(Protocol):
    """Memory in several pieces, one after the other: a guest's pages."""

    @property
    def size(self) -> int:
        """Bytes in all."""

    def gather(self, start: int, out: npt.NDArray[np.uint8]) -> None:
        """Fill `out` with the bytes from `start` on, which are there.  From any thread."""


class ScatteredSurface(Surface):
    """A surface whose bytes lie in several pieces, one after the other: a guest's pages.

    Reading it gathers the rows (one copy), then converts.
    """

    def __init__(
        self,
        memory: Scattered,
        size: Size,
        stride: int,
        pixel_format: PixelFormat,
        offset: int = 0,
    ) -> None:
        """Show `memory`; otherwise as `MemorySurface`.

        Raises `ValueError` when a row is longer than `stride` or the last row ends outside it.
        """
        super().__init__(size, pixel_format)
        check_layout(memory.size, size, stride, pixel_format, offset)
        self._memory = memory
        self._stride = stride
        self._offset = offset

    def pixels(self, rect: Rect) -> npt.NDArray[np.unsignedinteger]:
        """See `Surface.pixels`; always a copy."""
        per_pixel = self.format.bytes_per_pixel
        row = rect.width * per_pixel
        first = self._offset + rect.y * self._stride + rect.x * per_pixel
        if row * 2 >= self._stride:
            # Most of every row is wanted: one run over all rows costs fewer steps than a run a row.
            gathered = np.empty(rect.height * self._stride, np.uint8)
            self._memory.gather(first, gathered[: (rect.height - 1) * self._stride + row])
            rows = gathered.reshape(rect.height, self._stride)[:, :row]
        else:
            rows = np.empty((rect.height, row), np.uint8)
            for index in range(rect.height):
                self._memory.gather(first + index * self._stride, rows[index])
        if per_pixel == 3:
            return rows.reshape(rect.height, rect.width, 3)
        if self._stride % per_pixel:
            rows = np.ascontiguousarray(rows)
        pixels: npt.NDArray[np.unsignedinteger] = rows.view(self.format.dtype)
        return pixels


def check_size(size: Size) -> None:
    """Raise `ValueError` for an edge over `MAX_EDGE`, an area over `MAX_PIXELS`, or nothing."""
    width, height = size
    if not (1 <= width <= MAX_EDGE and 1 <= height <= MAX_EDGE and width * height <= MAX_PIXELS):
        message = f"{width}x{height}: edges are 1 to {MAX_EDGE}, at most {MAX_PIXELS} pixels"
        raise ValueError(message)


def check_layout(
    length: int, size: Size, stride: int, pixel_format: PixelFormat, offset: int
) -> None:
    """Raise `ValueError` unless a picture of `size` fits `length` bytes of memory."""
    row = size.width * pixel_format.bytes_per_pixel
    if stride < row:
        message = f"stride of {stride} bytes: {size.width} pixels of {pixel_format.name} need {row}"
        raise ValueError(message)
    end = offset + (size.height - 1) * stride + row
    if offset < 0 or end > length:
        message = (
            f"surface of {size.width}x{size.height} {pixel_format.name}, stride {stride}, "
            f"offset {offset}, ends at byte {end} of {length}"
        )
        raise ValueError(message)
