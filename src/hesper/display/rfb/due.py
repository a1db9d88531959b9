"""What there is to see, and what of it one viewer lacks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hesper.display.frame import cursor_rect
from hesper.display.geometry import Damage, Rect, Size
from hesper.display.rfb import update
from hesper.display.rfb.encoders import Encoded
from hesper.display.rfb.video import ViewerVideo
from hesper.display.rfb.wire import Encoding

if TYPE_CHECKING:
    from collections.abc import Callable

    from hesper.display.frame import Frame, Picture
    from hesper.display.rfb.abilities import Abilities
    from hesper.display.rfb.video import Streams

_SIZES = frozenset({Encoding.DESKTOP_SIZE, Encoding.EXTENDED_DESKTOP_SIZE})


class Due:
    """Pixels, cursor and pseudo-rectangles that are due; what is taken is no longer."""

    def __init__(self, abilities: Abilities, streams: Streams, wake: Callable[[], None]) -> None:
        """Nothing is; `wake` is called when more is due without a new picture.

        streams: has encoders for what moves.
        """
        self._abilities = abilities
        self._wake = wake
        self._frame: Frame | None = None
        self.size = Size(0, 0)
        """Of the screen, as the viewer knows it."""
        self._damage = Damage(self.size)
        self._picture: Picture | None = None
        self._since: float | None = None
        self._cursor = False
        self.replies: list[Encoded] = []
        """Pseudo-rectangles that answer the viewer."""
        self.video = ViewerVideo(streams, self._refine)

    def begin(self, picture: Picture) -> None:
        """Have the first picture."""
        self._resize(picture.frame.size)
        self._frame = picture.frame
        self._picture = picture
        self._cursor = True

    def note(self, picture: Picture) -> None:
        """Have a new picture."""
        before, self._picture = self._picture, picture
        if picture.frame is not self._frame:
            self._frame = picture.frame
            self._damage.add_all()
        else:
            changed = Damage(self._frame.size)
            changed.update(picture.changed)
            self._damage.mark(changed.flags)
            self.video.note(changed, picture.flushes, time.monotonic())
        if picture.changed and self._since is None:
            self._since = picture.since
        if picture.cursor_changed:
            self._cursor = True
        if not self._abilities.draws_cursor:
            self._damage_cursors(before, picture)

    def add(self, area: Rect) -> None:
        """Have all of `area` due."""
        self._damage.add(area)

    def note_abilities(self) -> None:
        """Note that the viewer has said anew what it can show."""
        self.video.is_on = self._abilities.shows_video
        self._cursor = self._abilities.draws_cursor
        if self._picture is not None:
            self._damage_cursors(None, self._picture)

    def has_news(self, area: Rect | None) -> bool:
        """Whether anything is due to a viewer that wants `area`."""
        pseudo = bool(self.replies) or self._cursor_is_due() or self._size_is_new()
        return pseudo or (area is not None and self._damage.touches(area))

    def take_pseudo(self) -> list[Encoded]:
        """Take the pseudo-rectangles that are due; a new size comes last and has no pixels."""
        rects, self.replies = self.replies, []
        encodings = self._abilities.encodings
        if self._cursor_is_due():
            self._cursor = False
            cursor = self._picture.cursor if self._picture is not None else None
            if Encoding.CURSOR_WITH_ALPHA in encodings:
                rects.append(update.cursor_with_alpha(cursor))
            else:
                rects.append(update.cursor_with_mask(cursor, self._abilities.convert))
        if self._size_is_new() and self._frame is not None:
            self._resize(self._frame.size)
            if Encoding.EXTENDED_DESKTOP_SIZE in encodings:
                reason = update.RESIZED_BY_SERVER
                rects.append(update.extended_desktop_size(self.size, reason, 0))
            else:
                rects.append(Encoded(Rect(0, 0, *self.size), Encoding.DESKTOP_SIZE, b""))
        return rects

    def take_pixels(self, area: Rect, quality: int) -> tuple[update.PixelJob, float | None]:
        """Take the damage around `area`; what lies outside stays due.

        Returns the work, and when the guest finished the oldest of what the viewer lacked.
        """
        if self._frame is None or self._picture is None:
            raise RuntimeError("pixels were taken before the first picture")
        since, self._since = self._since, None
        abilities = self._abilities
        video = self.video.take(self._damage, area, quality, time.monotonic())
        rects = self._damage.take(area)
        self.video.note_sent(rects)
        cursor = None if abilities.draws_cursor else self._picture.cursor
        position = self._picture.cursor_position
        encoder, convert = abilities.encoder, abilities.convert
        job = update.PixelJob(self._frame, rects, encoder, convert, cursor, position, video)
        return job, since

    def _resize(self, size: Size) -> None:
        self.size = size
        self._damage = Damage(size)
        self._damage.add_all()
        self.video.resize(size)

    def _refine(self, due: Damage) -> None:
        """Send anew what has been sent worse than the viewer takes it."""
        if due.size == self._damage.size:
            self._damage.mark(due.flags)
            self._wake()

    def _damage_cursors(self, before: Picture | None, now: Picture) -> None:
        for picture in (before, now):
            if picture is not None and picture.cursor is not None:
                self._damage.add(cursor_rect(picture.cursor, picture.cursor_position))

    def _cursor_is_due(self) -> bool:
        return self._cursor and self._abilities.draws_cursor

    def _size_is_new(self) -> bool:
        if self._frame is None or self._frame.size == self.size:
            return False
        return self._abilities.changes_size


def has_size(rects: list[Encoded]) -> bool:
    """Whether a new size is among pseudo-rectangles: no pixels may come with it."""
    return any(rect.encoding in _SIZES for rect in rects)
