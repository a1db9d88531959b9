"""One connected viewer: the messages that come from it, and those that go to it."""

from __future__ import annotations

import asyncio
import itertools
import struct
from typing import TYPE_CHECKING

from hesper.display.geometry import Rect, Size
from hesper.display.input import Held
from hesper.display.rfb import clipboard, update, wire
from hesper.display.rfb.abilities import Abilities
from hesper.display.rfb.due import Due, has_size
from hesper.display.rfb.encoders import Encoded
from hesper.display.rfb.input import pointer_events
from hesper.display.rfb.keyboard import Keyboard
from hesper.display.rfb.pixels import PixelConverter
from hesper.display.rfb.requests import Requests
from hesper.display.rfb.throttle import Throttle
from hesper.display.rfb.wire import Encoding, RfbError

if TYPE_CHECKING:
    from hesper.display.clipboard import Clipboard
    from hesper.display.frame import Picture
    from hesper.display.input import InputEvent
    from hesper.display.rfb.channel import Channel
    from hesper.display.rfb.feed import Feed
    from hesper.display.rfb.video import Streams

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
        self._abilities = Abilities()
        self._requests = Requests(feed.latencies)
        self._due = Due(self._abilities, streams, self._wake.set)
        self._awaits = False
        """A whole picture was asked for, and the scanout has a newer one than what is due."""
        self._messages: list[bytes] = []

    @property
    def hungry(self) -> bool:
        """Whether a new picture would be sent at once."""
        area = self._requests.area
        return area is not None and (self._awaits or not self._due.has_news(area))

    @property
    def has_video(self) -> bool:
        """Whether a part of what is sent goes as H.264."""
        return self._due.video.quality is not None

    def show(self, picture: Picture) -> None:
        """Note a new picture; the feed calls this."""
        self._awaits = False
        self._due.note(picture)
        self._wake.set()

    async def run(self) -> None:
        """Serve until the viewer leaves or errs.

        Raises `RfbError`, `EOFError`, `OSError` or `TimeoutError` accordingly.
        """
        try:
            picture = await self._feed.join(self)
            self._due.begin(picture)
            self._clipboard.join()
            name = self._feed.name.encode()
            head = struct.pack(">HH", *self._due.size) + wire.NATIVE_LAYOUT.pack()
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
            await self._due.video.close()
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
            if len(self._messages) + len(self._due.replies) > MAX_BACKLOG:
                raise RfbError(f"{MAX_BACKLOG} answers wait for a viewer that does not take them")
            if self.hungry:
                self._feed.ask()
            self._wake.set()

    async def _read(self) -> wire.ClientMessage:
        extended = Encoding.EXTENDED_MOUSE_BUTTONS in self._abilities.encodings
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
                self._requests.ask_continuously(area.clip(self._due.size) if enable else None)
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
        return pointer_events(self._held, message, self._due.size)

    def _set_pixel_format(self, layout: wire.PixelLayout) -> None:
        self._abilities.convert = PixelConverter(layout)
        self._due.video.is_on = self._abilities.shows_video
        if not layout.true_colour:
            self._messages.append(wire.colour_map())

    def _request_update(self, area: Rect, incremental: bool) -> None:
        self._requests.ask(area, self._due.size)
        if not incremental:
            self._due.add(area)
            self._awaits = self._feed.has_news

    def _answer_fence(self, flags: int, payload: bytes) -> None:
        if flags & wire.FenceFlag.REQUEST:
            self._messages.append(wire.fence(flags & wire.FENCE_SUPPORTED, payload))
        else:
            self._requests.note_fence(payload)

    def _request_size(self, size: Size) -> None:
        status = update.STATUS_FORWARDED
        try:
            self._feed.request_size(size)
        except ValueError:
            status = update.STATUS_INVALID_LAYOUT
        reason = update.RESIZED_BY_THIS_VIEWER
        answer = update.extended_desktop_size(self._due.size, reason, status)
        self._due.replies.append(answer)

    def _set_encodings(self, encodings: tuple[int, ...]) -> None:
        new = self._abilities.learn(encodings)
        replies = self._due.replies
        # A pseudo-rectangle of each tells the viewer that the server knows it too.
        for encoding in (Encoding.QEMU_KEY_EVENT, Encoding.EXTENDED_MOUSE_BUTTONS):
            if encoding in new:
                replies.append(Encoded(Rect(0, 0, 0, 0), encoding, b""))
        if Encoding.EXTENDED_DESKTOP_SIZE in new:
            reason = update.RESIZED_BY_SERVER
            replies.append(update.extended_desktop_size(self._due.size, reason, 0))
        if Encoding.EXTENDED_CLIPBOARD in new:
            self._clipboard.extend()
        if Encoding.FENCE in new:
            self._messages.append(self._requests.first_fence())
        both = {Encoding.CONTINUOUS_UPDATES, Encoding.FENCE}
        if both <= self._abilities.encodings and not both.isdisjoint(new):
            self._messages.append(wire.END_OF_CONTINUOUS_UPDATES)
        self._due.note_abilities()

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
            area = self._requests.area
            if area is None or self._awaits or not self._due.has_news(area):
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
        self._requests.take()
        rects = self._due.take_pseudo()
        since = None
        if not has_size(rects):
            job, since = self._due.take_pixels(area, self._requests.quality)
            loop = asyncio.get_running_loop()
            rects += await loop.run_in_executor(self._feed.executor, job.run)
            self._due.video.check()
        parts = update.serialize(rects)
        self._requests.note_sent(since)
        if self._requests.is_continuous:
            if Encoding.LAST_RECT in self._abilities.encodings:
                parts.append(update.nothing())
            parts.append(self._requests.update_fence())
        await self._write(parts)
        self._feed.count_update(parts)

    async def _write(self, parts: list[bytes]) -> None:
        async with asyncio.timeout(STALL_SECONDS):
            await self._channel.write(parts)
