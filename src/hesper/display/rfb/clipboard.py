"""The clipboard of one viewer: plain cut text, and the extended clipboard where it is known.

Source: the community's `rfbproto.rst`, "Extended Clipboard Pseudo-Encoding".
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Callable
from enum import IntFlag
from typing import TYPE_CHECKING

from hesper.display.clipboard import MAX_TEXT, clean
from hesper.display.rfb import wire
from hesper.display.rfb.wire import RfbError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from hesper.display.clipboard import Clipboard

RATE = 10.0
"""Messages of a viewer in a second; people copy less often."""
BURST = 20
LATIN = "latin-1"
_COMPRESS_LEVEL = 1


class Flag(IntFlag):
    """Formats and actions.  Of formats nothing but text is offered or taken."""

    TEXT = 1
    CAPS = 1 << 24
    REQUEST = 1 << 25
    PEEK = 1 << 26
    NOTIFY = 1 << 27
    PROVIDE = 1 << 28


ACTIONS = Flag.CAPS | Flag.REQUEST | Flag.PEEK | Flag.NOTIFY | Flag.PROVIDE
UNTOLD = Flag.TEXT | Flag.REQUEST | Flag.NOTIFY | Flag.PROVIDE
"""What a viewer can do that knows of the extension and has not said more."""


class ViewerClipboard:
    """What a viewer is told of copied text, and what it tells."""

    def __init__(self, shared: Clipboard, wake: Callable[[], None]) -> None:
        """wake: called when `messages` has something of the guest's, from `join` on."""
        self._shared = shared
        self._wake = wake
        self._can: int | None = None
        """What the viewer can do of the extension; None: it does not know of it."""
        self._own: str | None = None
        """What the viewer has copied itself.  Guests' clipboard managers copy it again."""
        # What is due: of each kind no more than one, however often it was asked for.
        self._news: str | None = None
        self._caps = False
        self._request = False
        self._notify = False
        self._provide = False

    def join(self) -> None:
        """Begin to hear of what is copied."""
        self._shared.join(self)

    def leave(self) -> None:
        """Hear of nothing more."""
        self._shared.leave(self)

    def extend(self) -> None:
        """Note that the viewer knows of the extension."""
        if self._can is None and self._shared.is_on:
            self._can = UNTOLD
            self._caps = True
            self._notify = self._shared.in_guest is not None

    def take_text(self, text: str) -> None:
        """See `Peer.take_text`."""
        if text != self._own:
            self._own = None
            self._news = text
            self._wake()

    def handle(self, message: wire.CutText | wire.ClipboardMessage) -> None:
        """Take what the viewer says.  Raises `RfbError` for what is malformed."""
        if isinstance(message, wire.ClipboardMessage):
            self._handle_extended(message)
        elif message.text and self._shared.is_on:
            self._copied(message.text.decode(LATIN))

    def _handle_extended(self, message: wire.ClipboardMessage) -> None:
        if self._can is None:
            raise RfbError("clipboard message of a viewer that does not know of them")
        flags = message.flags
        if flags & Flag.CAPS:
            self._can = flags
        elif flags & Flag.REQUEST:
            self._provide = True
        elif flags & Flag.PEEK:
            self._notify = True
        elif flags & Flag.NOTIFY:
            self._request = bool(flags & Flag.TEXT)
        elif flags & Flag.PROVIDE and flags & Flag.TEXT and message.data:
            text = _unpack(message.data)
            if text is not None:
                self._copied(text)

    def _copied(self, text: str) -> None:
        self._own = clean(text)
        self._news = None
        self._shared.copy_at_viewer(text)

    @property
    def is_due(self) -> bool:
        """Whether there is something to send."""
        return self._news is not None or (
            self._caps or self._request or self._notify or self._provide
        )

    async def messages(self, executor: Executor) -> list[bytes]:
        """Return what is to be sent; a long text is compressed in `executor`."""
        messages = []
        news, self._news = self._news, None
        in_guest = self._shared.in_guest
        can = self._can
        if can is None:
            return [wire.cut_text(news.encode(LATIN, "replace"))] if news is not None else []
        if self._caps:
            # A size of zero: text comes when it is asked for.
            messages.append(wire.clipboard_message(ACTIONS | Flag.TEXT, struct.pack(">I", 0)))
        if self._notify or (news is not None and can & Flag.NOTIFY):
            formats = Flag.TEXT if in_guest is not None else 0
            messages.append(wire.clipboard_message(Flag.NOTIFY | formats))
        if self._request and can & Flag.REQUEST:
            messages.append(wire.clipboard_message(Flag.REQUEST | Flag.TEXT))
        provide = self._provide and in_guest is not None
        self._caps = self._request = self._notify = self._provide = False
        if provide:
            loop = asyncio.get_running_loop()
            data = await loop.run_in_executor(executor, _pack, in_guest or "")
            messages.append(wire.clipboard_message(Flag.PROVIDE | Flag.TEXT, data))
        return messages


def _pack(text: str) -> bytes:
    """Return text as it is provided: compressed, with a size, ending in a zero."""
    data = text.replace("\n", "\r\n").encode() + b"\0"
    return zlib.compress(struct.pack(">I", len(data)) + data, _COMPRESS_LEVEL)


def _unpack(data: bytes) -> str | None:
    """Return the text, which is the first of the formats; None where it is too long.

    Raises `RfbError`.
    """
    most = 4 + 2 * MAX_TEXT
    try:
        plain = zlib.decompressobj().decompress(data, most)
    except zlib.error as error:
        raise RfbError(f"clipboard text that cannot be unpacked: {error}") from None
    if len(plain) < 4:
        raise RfbError("clipboard text without a size")
    (size,) = struct.unpack_from(">I", plain)
    if size > most - 4:
        return None
    if size > len(plain) - 4:
        raise RfbError(f"clipboard text of {len(plain) - 4} bytes that is said to have {size}")
    return plain[4 : 4 + size].split(b"\0", 1)[0].decode("utf-8", "replace")
