"""What of a viewer's screen goes to it as a video: one box, for as long as something moves in it.

The rest is sent as ever, and so is the box once it is still.
Source: `rfbproto.rst`, "Open H.264 Encoding".
"""

from __future__ import annotations

import asyncio
import math
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hesper.display import tiles
from hesper.display.geometry import Damage, Rect, Size
from hesper.display.rfb.encoders import Encoded
from hesper.display.rfb.wire import Encoding
from hesper.display.video.encoder import Encoder, EncoderError
from hesper.display.video.motion import Motion
from hesper.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from hesper.display.formats import Xrgb

log = get_logger(__name__)

MAX_STREAMS = 4
"""Encoders at a time, for all viewers: each takes most of a processor."""
RESTART_SECONDS = 1.0
"""From one encoder's start to the next."""
STILL_SECONDS = 0.4
"""What has not changed for so long is sent as well as the viewer takes it."""
IDLE_SECONDS = 5.0
"""An encoder that has had nothing to do for so long ends."""
AFTER_FAILURE_SECONDS = 60.0
TICK_SECONDS = 0.2
RESET_ALL = 2
"""`ResetAllContexts`: a viewer needs none but that of the box there is."""


class Streams:
    """The encoders of all viewers; says once why there are none."""

    def __init__(self, executor: Executor) -> None:
        """Start them in `executor`, when they are asked for."""
        self._executor = executor
        self._open: set[Encoder] = set()
        self._starting = 0
        self._is_full = False
        self._since = 0.0
        """No encoder is started before."""

    async def start(self, size: Size, quality: int) -> Encoder | None:
        """Start an encoder; None where that cannot be."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._since:
            return None
        was_full = self._is_full
        self._is_full = len(self._open) + self._starting >= MAX_STREAMS
        if self._is_full:
            if not was_full:
                reason = f"{MAX_STREAMS} encoders are at work already"
                log.info("a viewer gets Tight instead of H.264", reason=reason)
            return None
        self._starting += 1
        job = loop.run_in_executor(self._executor, Encoder, size, quality)
        try:
            encoder = await asyncio.shield(job)
        except EncoderError as error:
            # Another viewer's may have been on its way, too.
            if self._since < math.inf:
                self._since = math.inf
                log.warning("no H.264: viewers get Tight instead", reason=str(error))
            return None
        except asyncio.CancelledError:
            job.add_done_callback(_close_started)
            raise
        finally:
            self._starting -= 1
        self._open.add(encoder)
        return encoder

    def note_failure(self, reason: str) -> None:
        """Start none for a while, because one has failed."""
        self._since = asyncio.get_running_loop().time() + AFTER_FAILURE_SECONDS
        log.warning("H.264 has failed: its viewer gets Tight instead", reason=reason)

    async def close(self, encoder: Encoder) -> None:
        """End one."""
        self._open.discard(encoder)
        loop = asyncio.get_running_loop()
        await asyncio.shield(loop.run_in_executor(self._executor, encoder.close))

    def close_all(self) -> None:
        """End all of them."""
        while self._open:
            self._open.pop().close()


def _close_started(job: asyncio.Future[Encoder]) -> None:
    if not job.cancelled() and job.exception() is None:
        job.result().close()


@dataclass(eq=False)
class Stream:
    """One box's video."""

    rect: Rect
    encoder: Encoder
    started: float
    planes: memoryview = field(init=False)
    is_first: bool = True
    """Nothing has been sent yet."""
    is_whole: bool = True
    """All of the box has to be taken anew."""
    moved: float = 0.0
    failure: str = ""

    def __post_init__(self) -> None:
        """Have room for the picture."""
        self.planes = memoryview(bytearray(self.rect.width * self.rect.height * 3 // 2))
        self.moved = self.started


@dataclass(frozen=True)
class VideoJob:
    """The part of an update that is a video's next picture; run off the event loop."""

    stream: Stream
    rects: Sequence[Rect]
    """What has changed, inside the box."""
    rim: Sequence[Rect]
    """What has changed beside it, in the column and row at the screen's edge if these are odd."""
    is_first: bool

    def run(self, pixels: Callable[[Rect], Xrgb]) -> list[Encoded]:
        """Encode; none when the encoder has failed, and why is in `Stream.failure`.

        A new stream's black picture is a rectangle of its own: decoders differ in what they make of
        two pictures in one.
        """
        stream = self.stream
        box = stream.rect
        for rect in self.rects:
            tiles.to_i420(
                pixels(rect),
                stream.planes,
                box.width,
                box.height,
                rect.x - box.x,
                rect.y - box.y,
            )
        try:
            data = stream.encoder.encode(stream.planes)
        except EncoderError as error:
            stream.failure = str(error)
            return []
        pictures = [(0, data)]
        if self.is_first:
            pictures.insert(0, (RESET_ALL, stream.encoder.head))
        return [
            Encoded(box, Encoding.H264, struct.pack(">II", len(data), flags) + data)
            for flags, data in pictures
        ]


class ViewerVideo:
    """One viewer's video: none, one, or one that is about to take another's place."""

    def __init__(self, streams: Streams, refine: Callable[[Damage], None]) -> None:
        """Take encoders from `streams`; `refine` is told of what can be sent better by now."""
        self.is_on = False
        """Whether the viewer knows H.264, and pixels that it can be put among."""
        self._streams = streams
        self._refine = refine
        self._motion = Motion(Size(0, 0))
        self._lossy = Damage(Size(0, 0))
        self._stream: Stream | None = None
        self._next: Stream | None = None
        self._start: asyncio.Task[None] | None = None
        self._started = 0.0
        self._tick: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._is_moving = False

    @property
    def quality(self) -> int | None:
        """That of the video there is; None for none."""
        return self._stream.encoder.quality if self._stream and self._is_moving else None

    def resize(self, size: Size) -> None:
        """Begin anew, with a screen of another size."""
        self._drop(self._stream, self._next)
        self._stream = self._next = None
        if self._start is not None:
            self._start.cancel()
            self._start = None
        self._is_moving = False
        self._motion = Motion(size)
        self._lossy = Damage(size)

    def note(self, changed: Damage, frames: int, now: float) -> None:
        """Note what a new picture has changed, which stands for `frames` of the guest's."""
        if self.is_on and changed.size == self._motion.size:
            self._motion.note(changed, frames, now)

    def take(self, damage: Damage, area: Rect, quality: int, now: float) -> VideoJob | None:
        """Take out of `damage` what goes by video, and decide what shall; at `now` in seconds.

        area: what the viewer wants to see.  quality: what it has the time for.
        """
        if not self.is_on or damage.size != self._motion.size:
            return None
        self._settle(quality, now)
        stream = self._stream
        if stream is None or not self._is_moving or not _contains(area, stream.rect):
            return None
        if not stream.is_whole and not damage.touches(stream.rect):
            return None
        taken = damage.take(stream.rect)
        job = VideoJob(
            stream,
            [stream.rect] if stream.is_whole else [_within(each, stream.rect) for each in taken],
            [part for each in taken for part in _beyond(each, stream.rect)],
            stream.is_first,
        )
        stream.is_first = stream.is_whole = False
        self._lossy.update(job.rects)
        self._arm()
        return job

    def note_sent(self, rects: Sequence[Rect]) -> None:
        """Note what was sent as well as the viewer takes it."""
        for rect in rects:
            self._lossy.take(rect)

    def check(self) -> None:
        """Do without the encoder, if it has failed."""
        stream = self._stream
        if stream is not None and stream.failure:
            self._streams.note_failure(stream.failure)
            self._drop(stream, self._next)
            self._stream = self._next = None
            self._is_moving = False

    async def close(self) -> None:
        """End what was started."""
        if self._tick is not None:
            self._tick.cancel()
        if self._start is not None:
            self._start.cancel()
            await asyncio.gather(self._start, return_exceptions=True)
        self._drop(self._stream, self._next)
        self._stream = self._next = None
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _settle(self, quality: int, now: float) -> None:
        """Have the stream that the motion wants, or be on the way to it."""
        stream = self._stream
        box = self._motion.box(now, stream.rect if stream is not None else None)
        was_moving, self._is_moving = self._is_moving, box is not None
        if box is None:
            return
        if stream is not None:
            stream.moved = now
            stream.is_whole |= not was_moving
        if self._next is not None:
            if _contains(self._next.rect, box):
                self._drop(self._stream)
                self._stream = self._next
            else:
                self._drop(self._next)
            self._next = None
            return
        fits = stream is not None and stream.rect == box and stream.encoder.quality == quality
        if not fits and self._start is None and now - self._started >= RESTART_SECONDS:
            self._started = now
            self._start = asyncio.create_task(self._begin(box, quality))

    async def _begin(self, box: Rect, quality: int) -> None:
        encoder = await self._streams.start(Size(box.width, box.height), quality)
        if encoder is not None:
            self._next = Stream(box, encoder, asyncio.get_running_loop().time())
            self._arm()
        self._start = None

    def _arm(self) -> None:
        if self._tick is None:
            loop = asyncio.get_running_loop()
            self._tick = loop.call_later(TICK_SECONDS, self._look)

    def _look(self) -> None:
        """Send better what is still by now, and end an encoder that has nothing to do."""
        self._tick = None
        now = asyncio.get_running_loop().time()
        stream = self._stream
        if stream is not None and self._motion.box(now, stream.rect) is None:
            self._is_moving = False
            if now - stream.moved >= IDLE_SECONDS:
                self._drop(stream)
                self._stream = None
        waiting = self._next
        if waiting is not None and now - waiting.started >= IDLE_SECONDS:
            self._drop(waiting)
            self._next = None
        due = Damage(self._lossy.size)
        due.mark(self._lossy.flags & self._motion.still(STILL_SECONDS, now))
        if stream is not None and self._is_moving:
            due.take(stream.rect)
        if due:
            self._refine(due)
        if self._stream is not None or self._next is not None or self._lossy:
            self._arm()

    def _drop(self, *streams: Stream | None) -> None:
        for stream in streams:
            if stream is not None:
                task = asyncio.create_task(self._streams.close(stream.encoder))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)


def _contains(outer: Rect, inner: Rect) -> bool:
    return (
        outer.x <= inner.x
        and outer.y <= inner.y
        and outer.x + outer.width >= inner.x + inner.width
        and outer.y + outer.height >= inner.y + inner.height
    )


def _within(rect: Rect, box: Rect) -> Rect:
    """The part of `rect` inside `box`, which has its first pixel."""
    width = min(rect.width, box.x + box.width - rect.x)
    height = min(rect.height, box.y + box.height - rect.y)
    return Rect(rect.x, rect.y, width, height)


def _beyond(rect: Rect, box: Rect) -> list[Rect]:
    """The column and the row of `rect` that `box` has not."""
    right, bottom = box.x + box.width, box.y + box.height
    found = []
    if rect.x + rect.width > right:
        found.append(Rect(right, rect.y, rect.x + rect.width - right, rect.height))
    if rect.y + rect.height > bottom:
        found.append(Rect(rect.x, bottom, rect.width, rect.y + rect.height - bottom))
    return found
