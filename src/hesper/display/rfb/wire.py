"""Numbers and client messages of RFB.

Sources: RFC 6143 and, for what came later, the community's `rfbproto.rst`.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, TypeAlias

from hesper.display.geometry import Rect, Size

if TYPE_CHECKING:
    from hesper.display.rfb.channel import Channel

MAX_CUT_TEXT = 1 << 20
"""Bytes of text, or of what is compressed, that are taken; of more nothing is."""
MAX_SKIPPED = 1 << 28
SKIP_BYTES = 1 << 12
MAX_SCREENS = 64
MAX_ENCODINGS = 1024
MAX_FENCE = 64


class RfbError(Exception):
    """A viewer broke the protocol, or asked for what is not offered; its connection ends."""


class Encoding(IntEnum):
    """Encodings and pseudo-encodings this server knows."""

    RAW = 0
    TIGHT = 7
    ZRLE = 16
    H264 = 50
    JPEG_QUALITY_0 = -32
    JPEG_QUALITY_9 = -23
    DESKTOP_SIZE = -223
    LAST_RECT = -224
    CURSOR = -239
    COMPRESS_LEVEL_0 = -256
    COMPRESS_LEVEL_9 = -247
    QEMU_KEY_EVENT = -258
    EXTENDED_DESKTOP_SIZE = -308
    FENCE = -312
    CONTINUOUS_UPDATES = -313
    CURSOR_WITH_ALPHA = -314
    EXTENDED_MOUSE_BUTTONS = -316
    EXTENDED_CLIPBOARD = 0xC0A1E5CE - (1 << 32)


class FenceFlag(IntFlag):
    """Flags of the fence messages."""

    BLOCK_BEFORE = 1
    BLOCK_AFTER = 2
    SYNC_NEXT = 4
    REQUEST = 1 << 31


FENCE_SUPPORTED = FenceFlag.BLOCK_BEFORE | FenceFlag.BLOCK_AFTER | FenceFlag.SYNC_NEXT
"""Messages are handled strictly in order, so all of these hold without doing anything."""


@dataclass(frozen=True, slots=True)
class PixelLayout:
    """`PIXEL_FORMAT`, RFC 6143 section 7.4."""

    bits_per_pixel: int
    depth: int
    big_endian: bool
    true_colour: bool
    red_max: int
    green_max: int
    blue_max: int
    red_shift: int
    green_shift: int
    blue_shift: int

    @classmethod
    def unpack(cls, data: bytes) -> PixelLayout:
        """Read 16 bytes.  Raises `RfbError` for a layout that makes no sense."""
        bits, depth, big, true = data[0], data[1], bool(data[2]), bool(data[3])
        layout = cls(bits, depth, big, true, *struct.unpack(">HHHBBB", data[4:13]))
        if bits not in {8, 16, 32}:
            raise RfbError(f"pixel format with {bits} bits per pixel; RFB has 8, 16 and 32")
        if not true:
            if bits != 8:
                raise RfbError(f"colour map with {bits} bits per pixel; only 8 is offered")
            return layout
        for maximum, shift in (
            (layout.red_max, layout.red_shift),
            (layout.green_max, layout.green_shift),
            (layout.blue_max, layout.blue_shift),
        ):
            if maximum == 0 or maximum << shift >= 1 << bits:
                raise RfbError(f"colour maximum {maximum} at bit {shift} of a {bits}-bit pixel")
        return layout

    def pack(self) -> bytes:
        """Return the 16 bytes."""
        return struct.pack(
            ">BB??HHHBBB3x",
            self.bits_per_pixel,
            self.depth,
            self.big_endian,
            self.true_colour,
            self.red_max,
            self.green_max,
            self.blue_max,
            self.red_shift,
            self.green_shift,
            self.blue_shift,
        )


NATIVE_LAYOUT = PixelLayout(32, 24, False, True, 255, 255, 255, 16, 8, 0)
"""How pixels lie in this server; sending them needs no conversion."""


@dataclass(frozen=True, slots=True)
class SetPixelFormat:
    """Message 0."""

    layout: PixelLayout


@dataclass(frozen=True, slots=True)
class SetEncodings:
    """Message 2; the viewer's order of preference."""

    encodings: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """Message 3, `FramebufferUpdateRequest`."""

    incremental: bool
    area: Rect


@dataclass(frozen=True, slots=True)
class KeyEvent:
    """Message 4, or QEMU's extended key event (255, 0).

    `scancode` is 0 or a PC/XT scan code, an `E0` prefix shown by bit 7.
    """

    down: bool
    keysym: int
    scancode: int = 0


@dataclass(frozen=True, slots=True)
class PointerEvent:
    """Message 5: a bit for every button that is down."""

    buttons: int
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class CutText:
    """Message 6: what was copied, in ISO 8859-1."""

    text: bytes
    """Empty where it was too long to be read."""


@dataclass(frozen=True, slots=True)
class ClipboardMessage:
    """Message 6 with a length below zero: that of the extended clipboard."""

    flags: int
    data: bytes
    """Empty where it was too long to be read."""


@dataclass(frozen=True, slots=True)
class EnableContinuousUpdates:
    """Message 150."""

    enable: bool
    area: Rect


@dataclass(frozen=True, slots=True)
class Fence:
    """Message 248."""

    flags: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class SetDesktopSize:
    """Message 251."""

    size: Size


ClientMessage: TypeAlias = (
    SetPixelFormat
    | SetEncodings
    | UpdateRequest
    | KeyEvent
    | PointerEvent
    | CutText
    | ClipboardMessage
    | EnableContinuousUpdates
    | Fence
    | SetDesktopSize
)


async def read_message(channel: Channel, *, extended_buttons: bool) -> ClientMessage:
    """Read the next message.

    `extended_buttons` says whether pointer events may have a second byte of buttons.  Raises
    `RfbError` for a message that is unknown or malformed, `EOFError` when the viewer has gone.
    """
    kind = (await channel.read(1))[0]
    if kind == _POINTER_EVENT:
        return await _read_pointer(channel, extended_buttons)
    reader = _READERS.get(kind)
    if reader is None:
        raise RfbError(f"client message {kind} is not known")
    return await reader(channel)


async def _read_pixel_format(channel: Channel) -> SetPixelFormat:
    return SetPixelFormat(PixelLayout.unpack((await channel.read(19))[3:]))


async def _read_encodings(channel: Channel) -> SetEncodings:
    (count,) = struct.unpack(">xH", await channel.read(3))
    if count > MAX_ENCODINGS:
        raise RfbError(f"{count} encodings; at most {MAX_ENCODINGS} are read")
    return SetEncodings(struct.unpack(f">{count}i", await channel.read(4 * count)))


async def _read_update_request(channel: Channel) -> UpdateRequest:
    incremental, *area = struct.unpack(">BHHHH", await channel.read(9))
    return UpdateRequest(bool(incremental), Rect(*area))


async def _read_key(channel: Channel) -> KeyEvent:
    down, keysym = struct.unpack(">BxxI", await channel.read(7))
    return KeyEvent(bool(down), keysym)


async def _read_cut_text(channel: Channel) -> CutText | ClipboardMessage:
    (length,) = struct.unpack(">xxxi", await channel.read(7))
    if length >= 0:
        return CutText(await _read_bounded(channel, length))
    if length > -_FLAGS_BYTES:
        raise RfbError(f"clipboard message of {-length} bytes; its flags alone have 4")
    (flags,) = struct.unpack(">I", await channel.read(_FLAGS_BYTES))
    return ClipboardMessage(flags, await _read_bounded(channel, -length - _FLAGS_BYTES))


async def _read_bounded(channel: Channel, length: int) -> bytes:
    """Read text; people copy more than is taken, and are not to lose their screen for it."""
    if length > MAX_SKIPPED:
        raise RfbError(f"cut text of {length} bytes; at most {MAX_SKIPPED} are read")
    if length > MAX_CUT_TEXT:
        await _skip(channel, length)
        return b""
    return await channel.read(length)


async def _skip(channel: Channel, length: int) -> None:
    """Read what nobody wants, without keeping all of it."""
    while length > 0:
        length -= len(await channel.read(min(length, SKIP_BYTES)))


async def _read_continuous_updates(channel: Channel) -> EnableContinuousUpdates:
    enable, *area = struct.unpack(">BHHHH", await channel.read(9))
    return EnableContinuousUpdates(bool(enable), Rect(*area))


async def _read_fence(channel: Channel) -> Fence:
    flags, length = struct.unpack(">xxxIB", await channel.read(8))
    if length > MAX_FENCE:
        raise RfbError(f"fence with {length} bytes; the protocol allows {MAX_FENCE}")
    return Fence(flags, await channel.read(length))


async def _read_qemu_message(channel: Channel) -> KeyEvent:
    subtype, down, keysym, scancode = struct.unpack(">BHII", await channel.read(11))
    if subtype != 0:
        raise RfbError(f"QEMU client message {subtype}; only 0, the key event, is offered")
    return KeyEvent(bool(down), keysym, scancode)


async def _read_pointer(channel: Channel, extended: bool) -> PointerEvent:
    buttons, x, y = struct.unpack(">BHH", await channel.read(5))
    if extended and buttons & 0x80:
        more = (await channel.read(1))[0]
        buttons = buttons & 0x7F | more << 7
    return PointerEvent(buttons, x, y)


async def _read_desktop_size(channel: Channel) -> SetDesktopSize:
    width, height, screens = struct.unpack(">xHHBx", await channel.read(7))
    if screens > MAX_SCREENS:
        raise RfbError(f"layout of {screens} screens; at most {MAX_SCREENS} are read")
    await channel.read(16 * screens)
    return SetDesktopSize(Size(width, height))


_POINTER_EVENT = 5
_FLAGS_BYTES = 4
_READERS: dict[int, Callable[[Channel], Awaitable[ClientMessage]]] = {
    0: _read_pixel_format,
    2: _read_encodings,
    3: _read_update_request,
    4: _read_key,
    6: _read_cut_text,
    150: _read_continuous_updates,
    248: _read_fence,
    251: _read_desktop_size,
    255: _read_qemu_message,
}
"""By message type; pointer events need to know more than the message."""


def rect_header(rect: Rect, encoding: int) -> bytes:
    """Return what precedes a rectangle in a framebuffer update."""
    return struct.pack(">HHHHi", *rect, encoding)


def update_header(rects: int) -> bytes:
    """Return what precedes the rectangles of a framebuffer update."""
    return struct.pack(">BxH", 0, rects)


def fence(flags: int, payload: bytes) -> bytes:
    """Return the server's fence message."""
    return struct.pack(">BxxxIB", 248, flags, len(payload)) + payload


def colour_map() -> bytes:
    """Return a `SetColourMapEntries`: three bits of red, three of green, two of blue."""
    entries = b"".join(
        struct.pack(">HHH", (i >> 5) * 65535 // 7, (i >> 2 & 7) * 65535 // 7, (i & 3) * 65535 // 3)
        for i in range(256)
    )
    return struct.pack(">BxHH", 1, 0, 256) + entries


def cut_text(text: bytes) -> bytes:
    """Return the server's message that something was copied, in ISO 8859-1."""
    return struct.pack(">BxxxI", 3, len(text)) + text


def clipboard_message(flags: int, data: bytes = b"") -> bytes:
    """Return a message of the extended clipboard."""
    return struct.pack(">BxxxiI", 3, -(_FLAGS_BYTES + len(data)), flags) + data


END_OF_CONTINUOUS_UPDATES = bytes([150])
