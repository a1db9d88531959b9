"""A scanout: what a guest shows on one monitor, and who is looking.

A *device* (virtio-gpu) holds a `Display` and tells its scanouts what they show::

    display = Display(count=2, resized=device.post_display_event)
    scanout = display[0]
    scanout.show(MemorySurface(blob, Size(1280, 800), 5120, BY_VIRTIO[2]))   # SET_SCANOUT(_BLOB)
    scanout.flush([Rect(0, 0, 1280, 800)])                                   # RESOURCE_FLUSH
    scanout.set_cursor(Cursor.from_surface(surface, 4, 4))                   # UPDATE_CURSOR
    scanout.move_cursor(10, 20)                                              # MOVE_CURSOR
    scanout.show(None)                                                       # resource 0, or reset

These calls take microseconds whoever is looking: they note what changed, wake the outputs and
return.  An *output* (VNC, web page, window, file) subscribes and takes what has gathered since it
last looked, at its own pace; frames in between are never seen and cost it nothing::

    subscription = scanout.subscribe(wake)      # wake() must not block either
    update = subscription.take()                # the surface to read now, and where it changed
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from hesper.display.formats import XRGB_DTYPE, PixelFormat
from hesper.display.geometry import Damage, Rect, Size
from hesper.display.surface import MemorySurface, ScatteredSurface, Surface, check_size

if TYPE_CHECKING:
    from hesper.display.input import InputEvent, InputSink

__all__ = [
    "Cursor",
    "Display",
    "MemorySurface",
    "PixelFormat",
    "Rect",
    "Scanout",
    "ScatteredSurface",
    "Size",
    "Subscription",
    "Surface",
    "Update",
]

MAX_SCANOUTS = 16
"""`VIRTIO_GPU_MAX_SCANOUTS`."""

DEFAULT_SIZE = Size(1280, 800)
"""What a guest is offered until a viewer asks for something else."""

Resized: TypeAlias = Callable[["Scanout"], None]
"""Told that a scanout's `wanted` size changed; on an output's thread, must not block."""


@dataclass(frozen=True, slots=True, eq=False)
class Cursor:
    """A cursor image: `pixels` of shape (height, width), dtype `<u4`, `0xAARRGGBB`.

    Colours are premultiplied with alpha, as those of a DRM cursor plane are.  (`hot_x`, `hot_y`)
    is the pixel that points.
    """

    pixels: npt.NDArray[np.uint32]
    hot_x: int
    hot_y: int

    @classmethod
    def from_surface(cls, surface: Surface, hot_x: int, hot_y: int) -> Cursor:
        """Copy a cursor out of `surface`; the hot spot is moved inside where it is not."""
        width, height = surface.size
        source = surface.pixels(Rect(0, 0, width, height)).copy()
        pixels = np.empty((height, width), XRGB_DTYPE)
        surface.format.to_xrgb(source, pixels)
        pixels |= surface.format.alpha_of(source) << np.uint32(24)
        return cls(pixels, min(max(hot_x, 0), width - 1), min(max(hot_y, 0), height - 1))

    def straight(self) -> npt.NDArray[np.uint32]:
        """Return `pixels` with colours that are not multiplied with alpha."""
        alpha = self.pixels >> np.uint32(24)
        result = alpha << np.uint32(24)
        for shift in (np.uint32(0), np.uint32(8), np.uint32(16)):
            colour = (self.pixels >> shift & np.uint32(255)) * np.uint32(255)
            value = np.minimum(colour // np.maximum(alpha, np.uint32(1)), np.uint32(255))
            result |= value << shift
        return result


@dataclass(frozen=True, slots=True)
class Update:
    """What an output has to show, and how it differs from what it took last."""

    surface: Surface | None
    """Read this; None while the guest shows nothing."""
    damage: Sequence[Rect]
    """Where `surface` may differ from before; everything after `show`."""
    cursor: Cursor | None
    """None while there is none."""
    cursor_position: tuple[int, int]
    """Where the cursor's top left corner is, in pixels."""
    cursor_changed: bool
    """Whether `cursor` is another one; a mere move does not count."""
    flushes: int
    """How many flushes this update covers: frames that the guest finished."""
    since: float
    """When the first of them came, or what is shown changed otherwise (`time.monotonic`)."""


class Scanout:
    """One monitor of the guest.  Every method may be called from any thread."""

    def __init__(self, index: int, wanted: Size, resized: Resized | None = None) -> None:
        """Show nothing yet, and offer the guest the size `wanted`."""
        self.index = index
        self.input: InputSink | None = None
        """Takes what viewers do; None discards it."""
        self._lock = threading.Lock()
        self._resized = [] if resized is None else [resized]
        self._wanted = wanted
        self.step = 1
        """Widths that the guest is asked for are multiples of this."""
        self._surface: Surface | None = None
        self._cursor: Cursor | None = None
        self._cursor_position = (0, 0)
        self._flushes = 0
        self._subscriptions: list[Subscription] = []

    @property
    def surface(self) -> Surface | None:
        """What is shown now."""
        return self._surface

    @property
    def flushes(self) -> int:
        """Frames the guest has finished here since the start."""
        return self._flushes

    @property
    def watchers(self) -> int:
        """How many outputs are subscribed."""
        return len(self._subscriptions)

    @property
    def wanted(self) -> Size:
        """The size that viewers want; the guest is told by display info and EDID."""
        return self._wanted

    def show(self, surface: Surface | None) -> None:
        """Show `surface` from now on, all of it changed; None to show nothing."""
        with self._lock:
            self._surface = surface
            wake = [s.wake for s in self._subscriptions if s.note_surface(surface)]
        _call_all(wake)

    def replace(self, shown: Surface | None, surface: Surface | None) -> bool:
        """Show `surface` where it is `shown` that is shown; returns whether it was.

        For who shows something only as long as nobody else does.
        """
        with self._lock:
            if self._surface is not shown:
                return False
            self._surface = surface
            wake = [s.wake for s in self._subscriptions if s.note_surface(surface)]
        _call_all(wake)
        return True

    def flush(self, rects: Iterable[Rect]) -> None:
        """Note that the guest has finished drawing `rects` (pixels of the scanout).

        Parts outside the surface are ignored.
        """
        rects = list(rects)
        with self._lock:
            self._flushes += 1
            wake = [s.wake for s in self._subscriptions if s.note_flush(rects)]
        _call_all(wake)

    def set_cursor(self, cursor: Cursor | None) -> None:
        """Show `cursor`; None hides it."""
        with self._lock:
            self._cursor = cursor
            wake = [s.wake for s in self._subscriptions if s.note_cursor()]
        _call_all(wake)

    def move_cursor(self, x: int, y: int) -> None:
        """Put the cursor's top left corner at (`x`, `y`), as a DRM cursor plane is placed."""
        with self._lock:
            self._cursor_position = (x, y)
            wake = [s.wake for s in self._subscriptions if s.note_move()]
        _call_all(wake)

    def request_size(self, size: Size) -> None:
        """Pass on that a viewer wants the guest to draw in another size.

        Raises `ValueError` for a size that no surface can have.  Whether the guest follows is
        its own affair; when it does, `show` brings a surface of that size.
        """
        check_size(size)
        size = Size(max(size.width - size.width % self.step, self.step), size.height)
        with self._lock:
            changed = size != self._wanted
            self._wanted = size
        if changed:
            for resized in self._resized:
                resized(self)

    def also_tell(self, resized: Resized) -> None:
        """Tell `resized`, too, when `wanted` changes, after the device."""
        self._resized.append(resized)

    def send_input(self, events: Sequence[InputEvent]) -> None:
        """Pass on what a viewer did here."""
        if self.input is not None and events:
            self.input(self.index, events)

    def subscribe(self, wake: Callable[[], None]) -> Subscription:
        """Start to look; the first `take` has everything.

        `wake` is called once when there is something to take, and again only after a `take`; from
        whatever thread brought the news, so it must not block.
        """
        subscription = Subscription(self, wake)
        with self._lock:
            subscription.note_surface(self._surface)
            subscription.note_cursor()
            self._subscriptions.append(subscription)
        wake()
        return subscription

    def take_for(self, subscription: Subscription) -> Update:
        """For `Subscription.take`."""
        with self._lock:
            news = subscription.collect()
            surface, cursor, position = self._surface, self._cursor, self._cursor_position
        return Update(
            surface,
            news.damage.rects(),
            cursor,
            position,
            news.cursor_changed,
            news.flushes,
            news.since,
        )

    def unsubscribe(self, subscription: Subscription) -> None:
        """For `Subscription.close`."""
        with self._lock:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)


@dataclass(slots=True)
class News:
    """What gathers for one subscription between two takes."""

    damage: Damage
    cursor_changed: bool = False
    flushes: int = 0
    since: float = 0.0


class Subscription:
    """One output looking at one scanout: what has changed since it last took an update.

    `take` and `close` are for the output.  The `note_*` methods and `collect` are for the scanout,
    which calls them under its lock; a `note_*` returns whether the output has to be woken.
    """

    def __init__(self, scanout: Scanout, wake: Callable[[], None]) -> None:
        """See `Scanout.subscribe`."""
        self.wake = wake
        self._scanout = scanout
        self._news = News(Damage(Size(0, 0)))
        self.pending = False
        """Whether there is something to take."""

    def take(self) -> Update:
        """Return what there is to show now.  From any thread."""
        return self._scanout.take_for(self)

    def close(self) -> None:
        """Stop looking; `wake` may still be called once by a flush that is under way."""
        self._scanout.unsubscribe(self)

    def note_surface(self, surface: Surface | None) -> bool:
        """Note that another surface is shown."""
        size = surface.size if surface is not None else Size(0, 0)
        if size != self._news.damage.size:
            self._news.damage = Damage(size)
        self._news.damage.add_all()
        return self._note()

    def note_flush(self, rects: Sequence[Rect]) -> bool:
        """Note that `rects` have been drawn."""
        self._news.damage.update(rects)
        self._news.flushes += 1
        return self._note()

    def note_cursor(self) -> bool:
        """Note that another cursor is shown."""
        self._news.cursor_changed = True
        return self._note()

    def note_move(self) -> bool:
        """Note that the cursor moved."""
        return self._note()

    def collect(self) -> News:
        """Hand out what has gathered, and start anew."""
        news = self._news
        self._news = News(Damage(news.damage.size))
        self.pending = False
        return news

    def _note(self) -> bool:
        first = not self.pending
        if first:
            self._news.since = time.monotonic()
        self.pending = True
        return first


class Display:
    """All scanouts of one device."""

    def __init__(
        self, count: int = 1, size: Size = DEFAULT_SIZE, resized: Resized | None = None
    ) -> None:
        """`count` scanouts, each offered to the guest at `size`.

        `resized` is told when a viewer wants another size.  Raises `ValueError` for more than
        `MAX_SCANOUTS`.
        """
        if not 0 <= count <= MAX_SCANOUTS:
            message = f"{count} scanouts: virtio-gpu has 0 to {MAX_SCANOUTS}"
            raise ValueError(message)
        self._scanouts = tuple(Scanout(index, size, resized) for index in range(count))

    def connect_input(self, sink: InputSink | None) -> None:
        """Send what viewers of any scanout do to `sink`."""
        for scanout in self._scanouts:
            scanout.input = sink

    def __getitem__(self, index: int) -> Scanout:
        """Return the scanout with that id."""
        return self._scanouts[index]

    def __len__(self) -> int:
        """Count the scanouts."""
        return len(self._scanouts)

    def __iter__(self) -> Iterator[Scanout]:
        """Go through the scanouts by id."""
        return iter(self._scanouts)


def _call_all(calls: Iterable[Callable[[], None]]) -> None:
    for call in calls:
        call()
