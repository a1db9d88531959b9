"""One screen on the VMM's display: what the VMM has been told of it, and what is new."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from hesper.display.formats import XRGB_DTYPE
from hesper.display.frame import Frame
from hesper.display.geometry import Rect, Size
from hesper.display.vmm import wire
from hesper.display.vmm.wire import CURSOR_EDGE, HEADER, Request

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from hesper.display.scanout import Cursor, Scanout, Update

MAX_UPDATE = 4 << 20
"""Bytes of pixels in one message, or one row: QEMU does nothing else until it has it all."""


class Screen:
    """Not thread-safe."""

    def __init__(self, scanout: Scanout, wake: Callable[[], None]) -> None:
        """Look at `scanout`; `wake` as in `Scanout.subscribe`."""
        self._scanout = scanout
        self._frame: Frame | None = None
        """What the VMM shows; None: nothing."""
        self._cursor = False
        """Whether it has a cursor."""
        self._position = (0, 0)
        self._subscription = scanout.subscribe(wake)

    @property
    def pending(self) -> bool:
        """Whether there is something to take."""
        return self._subscription.pending

    def take(self) -> list[Iterable[ReadableBuffer]]:
        """Return what to send, in pieces; to be sent before the next is taken."""
        update = self._subscription.take()
        return [*self._picture(update), *self._pointer(update)]

    def close(self) -> None:
        """Look no more."""
        self._subscription.close()

    def _picture(self, update: Update) -> Iterator[Iterable[ReadableBuffer]]:
        surface = update.surface
        # QEMU ends where it is sent pixels of a scanout that shows nothing.
        if surface is None:
            if self._frame is not None:
                self._frame = None
                yield self._size(Size(0, 0))
            return
        # Should reading fail, there is no last picture, and the next one is complete.
        frame, self._frame = self._frame, None
        if frame is None or frame.size != surface.size:
            frame = Frame(surface.size)
            frame.update(surface, [Rect(0, 0, *frame.size)])
            changed = [Rect(0, 0, *frame.size)]
            yield self._size(frame.size)
        else:
            changed = frame.update(surface, update.damage)
        self._frame = frame
        yield from (self._pixels(frame, rect) for rect in changed)

    def _size(self, size: Size) -> list[bytes]:
        return [message(Request.SCANOUT, wire.SCANOUT.pack(self._scanout.index, *size))]

    def _pixels(self, frame: Frame, rect: Rect) -> Iterator[ReadableBuffer]:
        rows = max(MAX_UPDATE // (rect.width * 4), 1)
        for top in range(rect.y, rect.y + rect.height, rows):
            part = Rect(rect.x, top, rect.width, min(rows, rect.y + rect.height - top))
            fields = wire.UPDATE.pack(self._scanout.index, *part)
            size = len(fields) + part.width * part.height * 4
            yield HEADER.pack(Request.UPDATE, 0, size) + fields
            yield np.ascontiguousarray(frame.pixels[part.slices]).data

    def _pointer(self, update: Update) -> Iterator[list[bytes]]:
        before, self._position = self._position, update.cursor_position
        index, cursor = self._scanout.index, update.cursor
        if cursor is None:
            if self._cursor:
                self._cursor = False
                fields = wire.CURSOR_POS.pack(index, *self._position)
                yield [message(Request.CURSOR_POS_HIDE, fields)]
        elif update.cursor_changed or not self._cursor:
            self._cursor = True
            hot_x, hot_y = min(cursor.hot_x, CURSOR_EDGE - 1), min(cursor.hot_y, CURSOR_EDGE - 1)
            fields = wire.CURSOR_UPDATE.pack(index, *self._position, hot_x, hot_y)
            yield [message(Request.CURSOR_UPDATE, fields + _square(cursor))]
        elif before != self._position:
            fields = wire.CURSOR_POS.pack(index, *self._position)
            yield [message(Request.CURSOR_POS, fields)]


def message(request: Request, payload: bytes = b"") -> bytes:
    """Make a message that wants no answer."""
    return HEADER.pack(request, 0, len(payload)) + payload


def _square(cursor: Cursor) -> bytes:
    """The cursor's picture in the one size there is; of a larger one, what fits."""
    square = np.zeros((CURSOR_EDGE, CURSOR_EDGE), XRGB_DTYPE)
    part = cursor.pixels[:CURSOR_EDGE, :CURSOR_EDGE]
    square[: part.shape[0], : part.shape[1]] = part
    return square.tobytes()
