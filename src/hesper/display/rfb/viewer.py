"""One connected viewer: what it asked for, what it has not been sent yet."""

from __future__ import annotations

import asyncio
import itertools
import struct
import time
from typing import TYPE_CHECKING

from hesper.display.frame import cursor_rect
from hesper.display.geometry import Damage, Rect, Size
from hesper.display.input import Held
from hesper.display.rfb import clipboard, update, wire
from hesper.display.rfb.encoders import Encoded, RawEncoder
from hesper.display.rfb.input import pointer_events
from hesper.display.rfb.keyboard import Keyboard
from hesper.display.rfb.pace import Pace
from hesper.display.rfb.pixels import NATIVE, PixelConverter
from hesper.display.rfb.throttle import Throttle
from hesper.display.rfb.tight import TightEncoder
from hesper.display.rfb.video import ViewerVideo
from hesper.display.rfb.wire import Encoding, RfbError
from hesper.display.rfb.zrle import ZrleEncoder

if TYPE_CHECKING:
    from hesper.display.clipboard import Clipboard
    from hesper.display.frame import Frame, Picture
    from hesper.display.input import InputEvent
    from hesper.display.rfb.channel import Channel
    from hesper.display.rfb.encoders import Encoder
    from hesper.display.rfb.feed import Feed
    from hesper.display.rfb.video import Streams

DEFAULT_COMPRESS_LEVEL = 1
MAX_UNCONFIRMED = 2
"""Updates a viewer may have in flight when it does not ask for each."""
FIRST_FENCE, UPDATE_FENCE = b"", b"update"
MAX_BACKLOG = 256
"""Answers that may wait for a viewer; one that keeps asking without reading is dropped."""
STALL_SECONDS = 60.0
"""A viewer that takes nothing for so long is gone."""
FIRST_SECONDS = 10.0
"""A viewer says within so long what it can show; who never does takes another's place."""
MESSAGES_A_TURN = 64
"""Messages that have come already, and are handled before others have a turn."""
INPUT_RATE = 2000.0
"""Keys and movements of a viewer that reach the guest in a second; the fastest mice send half."""
INPUT_BURST = 500
"""More of them at once wait with the viewer, in order."""


class Viewer:
    """Serves one viewer after the handshake.  Lives on the event loop; encoding does not."""

    def __init__(self, channel: Channel, feed: Feed, shared: Clipboard, streams: Streams) -> None:
        """Serve what `feed` shows over `channel`, and share the guest's clipboard.

        streams: has encoders for what moves.
        """
        self._channel = channel
        self._feed = feed
        self._wake = asyncio.Event()
        self._held = Held()
        self._keyboard = Keyboard(self._held)
        self._input = Throttle(INPUT_RATE, INPUT_BURST)
        self._clipboard = clipboard.ViewerClipboard(shared, self._wake.set)
        self._copying = Throttle(clipboard.RATE, clipboard.BURST)
        # What the viewer has asked for.
        self._encodings: frozenset[int] = frozenset()
        self._encoders: dict[int, Encoder] = {Encoding.RAW: RawEncoder()}
        self._encoder: Encoder = self._encoders[Encoding.RAW]
        self._convert: PixelConverter = NATIVE
        self._request: Rect | None = None
        self._continuous: Rect | None = None
        self._unconfirmed = 0
        self._pace = Pace()
        self._asked = time.monotonic()
        # What there is to see, and what of it the viewer lacks.
        self._frame: Frame | None = None
        self._size = Size(0, 0)
        self._damage = Damage(self._size)
        self._picture: Picture | None = None
        self._awaits = False
        """A whole picture was asked for, and the scanout has a newer one than `_frame`."""
        self._since: float | None = None
        """When the guest finished the oldest of what the viewer lacks."""
        self._video = ViewerVideo(streams, self._refine)
        self._cursor_due = False
        self._replies: list[Encoded] = []
        self._messages: list[bytes] = []

    @property
    def hungry(self) -> bool:
        """Whether a new picture would be sent at once."""
        return self._wanted_area() is not None and (self._awaits or not self._has_news())

    @property
    def has_video(self) -> bool:
        """Whether a part of what is sent goes as H.264."""
        return self._video.quality is not None

    def show(self, picture: Picture) -> None:
        """Note a new picture; the feed calls this."""
        before, self._picture = self._picture, picture
        self._awaits = False
        if picture.frame is not self._frame:
            self._frame = picture.frame
            self._damage.add_all()
        else:
            changed = Damage(self._frame.size)
            changed.update(picture.changed)
            self._damage.mark(changed.flags)
            self._video.note(changed, picture.flushes, time.monotonic())
        if picture.changed and self._since is None:
            self._since = picture.since
        if picture.cursor_changed:
            self._cursor_due = True
        if not self._draws_cursor():
            self._damage_cursors(before, picture)
        self._wake.set()

    async def run(self) -> None:
        """Serve until the viewer leaves or errs.

        Raises `RfbError`, `EOFError`, `OSError` or `TimeoutError` accordingly.
        """
        try:
            picture = await self._feed.join(self)
            self._size = picture.frame.size
            self._damage = Damage(self._size)
            self._video.resize(self._size)
            self._frame = picture.frame
            self._picture = picture
            self._damage.add_all()
            self._cursor_due = True
            self._clipboard.join()
            name = self._feed.name.encode()
            head = struct.pack(">HH", *self._size) + wire.NATIVE_LAYOUT.pack()
            await self._channel.write([head + struct.pack(">I", len(name)) + name])
            async with asyncio.TaskGroup() as group:
                group.create_task(self._receive())
                group.create_task(self._send())
        except ExceptionGroup as group:
            # Not `except*`: before 3.11.4, Python wraps even a single exception raised in it.
            errors, rest = group.split((RfbError, EOFError, OSError, TimeoutError))
            if errors is None or rest is not None:
                raise
            raise errors.exceptions[0] from None
        finally:
            self._clipboard.leave()
            self._feed.leave(self)
            await self._video.close()
            self._feed.scanout.send_input(self._held.release())

    async def _receive(self) -> None:
        for number in itertools.count(1):
            if number % MESSAGES_A_TURN == 0:
                await asyncio.sleep(0)
            message = await (self._read() if number > 1 else self._read_first())
            if isinstance(message, wire.Fence) and message.flags & wire.FenceFlag.SYNC_NEXT:
                # Whatever precedes the answer must not show the next message's effect, and
                # whatever follows must: no update may be begun between the two.
                following = await self._read()
                self._handle(message)
                self._handle(following)
            else:
                self._handle(message)
            if len(self._messages) + len(self._replies) > MAX_BACKLOG:
                raise RfbError(f"{MAX_BACKLOG} answers wait for a viewer that does not take them")
            if self.hungry:
                self._feed.ask()
            self._wake.set()

    async def _read(self) -> wire.ClientMessage:
        extended = Encoding.EXTENDED_MOUSE_BUTTONS in self._encodings
        message = await wire.read_message(self._channel, extended_buttons=extended)
        if isinstance(message, wire.KeyEvent | wire.PointerEvent):
            await self._input.wait()
        elif isinstance(message, wire.CutText | wire.ClipboardMessage):
            await self._copying.wait()
        return message

    async def _read_first(self) -> wire.ClientMessage:
        try:
            async with asyncio.timeout(FIRST_SECONDS):
                return await self._read()
        except TimeoutError:
            raise RfbError(f"viewer asks for nothing for {FIRST_SECONDS:g} s") from None

    def _handle(self, message: wire.ClientMessage) -> None:
        match message:
            case wire.SetPixelFormat(layout):
                self._set_pixel_format(layout)
            case wire.SetEncodings(encodings):
                self._set_encodings(encodings)
            case wire.UpdateRequest(incremental, area):
                self._request_update(area, incremental)
            case wire.EnableContinuousUpdates(enable, area):
                self._continuous = area.clip(self._size) if enable else None
                if not enable:
                    self._messages.append(wire.END_OF_CONTINUOUS_UPDATES)
            case wire.Fence(flags, payload):
                self._answer_fence(flags, payload)
            case wire.KeyEvent() | wire.PointerEvent():
                self._feed.scanout.send_input(self._events(message))
            case wire.CutText() | wire.ClipboardMessage():
                self._clipboard.handle(message)
            case wire.SetDesktopSize(size):
                self._request_size(size)

    def _events(self, message: wire.KeyEvent | wire.PointerEvent) -> list[InputEvent]:
        if isinstance(message, wire.KeyEvent):
            return self._keyboard.events(message)
        return pointer_events(self._held, message, self._size)

    def _set_pixel_format(self, layout: wire.PixelLayout) -> None:
        self._convert = PixelConverter(layout)
        self._video.is_on = self._video_fits()
        if not layout.true_colour:
            self._messages.append(wire.colour_map())

    def _request_update(self, area: Rect, incremental: bool) -> None:
        self._request = area.clip(self._size) or Rect(0, 0, 0, 0)
        if self._continuous is None:
            self._confirm()
        if not incremental:
            self._damage.add(area)
            self._awaits = self._feed.has_news

    def _answer_fence(self, flags: int, payload: bytes) -> None:
        if flags & wire.FenceFlag.REQUEST:
            self._messages.append(wire.fence(flags & wire.FENCE_SUPPORTED, payload))
        elif payload == UPDATE_FENCE and self._unconfirmed > 0:
            self._unconfirmed -= 1
            self._confirm()
        elif payload == FIRST_FENCE:
            now = time.monotonic()
            self._pace.note_round_trip(now - self._asked, now)

    def _confirm(self) -> None:
        now = time.monotonic()
        latency = self._pace.confirm(now)
        if latency is not None:
            self._feed.latencies.add(latency, now)

    def _refine(self, due: Damage) -> None:
        """Send anew what has been sent worse than the viewer takes it."""
        if due.size == self._damage.size:
            self._damage.mark(due.flags)
            self._wake.set()

    def _request_size(self, size: Size) -> None:
        status = update.STATUS_FORWARDED
        try:
            self._feed.request_size(size)
        except ValueError:
            status = update.STATUS_INVALID_LAYOUT
        reason = update.RESIZED_BY_THIS_VIEWER
        self._replies.append(update.extended_desktop_size(self._size, reason, status))

    def _set_encodings(self, encodings: tuple[int, ...]) -> None:
        new = frozenset(encodings) - self._encodings
        self._encodings = frozenset(encodings)
        level = self._level(Encoding.COMPRESS_LEVEL_0, Encoding.COMPRESS_LEVEL_9)
        quality = self._level(Encoding.JPEG_QUALITY_0, Encoding.JPEG_QUALITY_9)
        self._video.is_on = self._video_fits()
        for encoding in encodings:
            if encoding in {Encoding.RAW, Encoding.ZRLE, Encoding.TIGHT}:
                self._encoder = self._encoder_for(encoding, level, quality)
                break
        # A pseudo-rectangle of each tells the viewer that the server knows it too.
        for encoding in (Encoding.QEMU_KEY_EVENT, Encoding.EXTENDED_MOUSE_BUTTONS):
            if encoding in new:
                self._replies.append(Encoded(Rect(0, 0, 0, 0), encoding, b""))
        if Encoding.EXTENDED_DESKTOP_SIZE in new:
            self._replies.append(
                update.extended_desktop_size(self._size, update.RESIZED_BY_SERVER, 0)
            )
        if Encoding.EXTENDED_CLIPBOARD in new:
            self._clipboard.extend()
        if Encoding.FENCE in new:
            self._messages.append(wire.fence(wire.FenceFlag.REQUEST, FIRST_FENCE))
            self._asked = time.monotonic()
        both = {Encoding.CONTINUOUS_UPDATES, Encoding.FENCE}
        if both <= self._encodings and not both.isdisjoint(new):
            self._messages.append(wire.END_OF_CONTINUOUS_UPDATES)
        self._cursor_due = self._draws_cursor()
        if self._picture is not None:
            self._damage_cursors(None, self._picture)

    def _video_fits(self) -> bool:
        return Encoding.H264 in self._encodings and self._convert.bytes_per_pixel > 1

    def _encoder_for(self, encoding: int, level: int | None, quality: int | None) -> Encoder:
        # Made once: the viewer unpacks all of an encoding's rectangles as one stream.
        level = DEFAULT_COMPRESS_LEVEL if level is None else level
        encoder = self._encoders.get(encoding)
        if encoder is None:
            encoder = ZrleEncoder(level) if encoding == Encoding.ZRLE else TightEncoder(level)
            self._encoders[encoding] = encoder
        if isinstance(encoder, TightEncoder):
            encoder.quality = quality
        return encoder

    def _level(self, lowest: Encoding, highest: Encoding) -> int | None:
        levels = [code - lowest for code in self._encodings if lowest <= code <= highest]
        return max(levels, default=None)

    def _draws_cursor(self) -> bool:
        return not self._encodings.isdisjoint({Encoding.CURSOR, Encoding.CURSOR_WITH_ALPHA})

    def _damage_cursors(self, before: Picture | None, now: Picture) -> None:
        for picture in (before, now):
            if picture is not None and picture.cursor is not None:
                self._damage.add(cursor_rect(picture.cursor, picture.cursor_position))

    def _wanted_area(self) -> Rect | None:
        """What the viewer would take now."""
        if self._continuous is not None and self._unconfirmed < MAX_UNCONFIRMED:
            return self._continuous
        return self._request

    def _has_news(self) -> bool:
        area = self._wanted_area()
        pseudo = bool(self._replies) or self._cursor_is_due() or self._new_size()
        return pseudo or (area is not None and self._damage.touches(area))

    def _cursor_is_due(self) -> bool:
        return self._cursor_due and self._draws_cursor()

    def _new_size(self) -> bool:
        can = {Encoding.DESKTOP_SIZE, Encoding.EXTENDED_DESKTOP_SIZE} & self._encodings
        return bool(can) and self._frame is not None and self._frame.size != self._size

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        due = 0.0
        later: asyncio.TimerHandle | None = None
        while True:
            await self._wake.wait()
            self._wake.clear()
            # Nothing is awaited between this loop's end and the taking of what to send.
            while self._messages:
                messages, self._messages = self._messages, []
                await self._write(messages)
            if self._clipboard.is_due:
                await self._write(await self._clipboard.messages(self._feed.executor))
                self._wake.set()  # that has taken time, in which there may be more to do
                continue
            area = self._wanted_area()
            if area is None or self._awaits or not self._has_news():
                continue
            if loop.time() < due:
                # It asks faster than there are pictures.
                if later is None or later.when() < due:
                    later = loop.call_at(due, self._wake.set)
                continue
            due = loop.time() + self._feed.interval / 2
            await self._send_update(area)
            if self.hungry:
                self._feed.ask()
            self._wake.set()

    async def _send_update(self, area: Rect) -> None:
        self._request = None
        rects = self._collect_pseudo()
        since = None
        if not rects or not self._new_size_was_sent(rects):
            since, self._since = self._since, None
            job = self._collect_pixels(area)
            loop = asyncio.get_running_loop()
            rects += await loop.run_in_executor(self._feed.executor, job.run)
            self._video.check()
        parts = update.serialize(rects)
        self._pace.note_sent(since, time.monotonic())
        if self._continuous is not None:
            self._unconfirmed += 1
            if Encoding.LAST_RECT in self._encodings:
                parts.append(update.nothing())
            flags = wire.FenceFlag.REQUEST | wire.FenceFlag.BLOCK_BEFORE
            parts.append(wire.fence(flags, UPDATE_FENCE))
        await self._write(parts)
        self._feed.count_update(parts)

    async def _write(self, parts: list[bytes]) -> None:
        async with asyncio.timeout(STALL_SECONDS):
            await self._channel.write(parts)

    @staticmethod
    def _new_size_was_sent(rects: list[Encoded]) -> bool:
        sizes = {Encoding.DESKTOP_SIZE, Encoding.EXTENDED_DESKTOP_SIZE}
        return any(rect.encoding in sizes for rect in rects)

    def _collect_pseudo(self) -> list[Encoded]:
        """Take the pseudo-rectangles that are due; a new size comes last and has no pixels."""
        rects, self._replies = self._replies, []
        if self._cursor_is_due():
            self._cursor_due = False
            cursor = self._picture.cursor if self._picture is not None else None
            if Encoding.CURSOR_WITH_ALPHA in self._encodings:
                rects.append(update.cursor_with_alpha(cursor))
            else:
                rects.append(update.cursor_with_mask(cursor, self._convert))
        if self._new_size() and self._frame is not None:
            self._size = self._frame.size
            self._damage = Damage(self._size)
            self._damage.add_all()
            self._video.resize(self._size)
            if Encoding.EXTENDED_DESKTOP_SIZE in self._encodings:
                reason = update.RESIZED_BY_SERVER
                rects.append(update.extended_desktop_size(self._size, reason, 0))
            else:
                rects.append(Encoded(Rect(0, 0, *self._size), Encoding.DESKTOP_SIZE, b""))
        return rects

    def _collect_pixels(self, area: Rect) -> update.PixelJob:
        """Take the damage around `area`; what lies outside stays due."""
        if self._frame is None or self._picture is None:
            raise RuntimeError("pixels were collected before the first picture")
        video = self._video.take(self._damage, area, self._pace.quality, time.monotonic())
        rects = self._damage.take(area)
        self._video.note_sent(rects)
        cursor = None if self._draws_cursor() else self._picture.cursor
        position = self._picture.cursor_position
        return update.PixelJob(
            self._frame, rects, self._encoder, self._convert, cursor, position, video
        )
