"""The guest's sound, from QEMU's VNC server, which Hesper has for this alone.

QEMU gives what its sound card plays to its own displays, and of those a stock QEMU that shows
nothing can have VNC: on a socket of ours, and connected to only while somebody listens.  Source of
the messages: the community's `rfbproto.rst`, "QEMU Audio".
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from pathlib import Path

from hesper.display.sound import CHANNELS, FRAME, RATE

OPEN_SECONDS = 10.0
MAX_DATA = 1 << 20
"""Bytes of one piece of sound; QEMU's have some kilobytes."""
VERSION = b"RFB 003.008\n"
SECURITY_NONE = 1
SHARED = 1
AUDIO_ENCODING = -259
QEMU_MESSAGE = 255
AUDIO = 1
ENABLE, DISABLE, SET_FORMAT = range(3)
END, BEGIN, DATA = range(3)
S16 = 3


class SoundError(OSError):
    """QEMU's VNC server does not do what one that has sound does."""


class QemuSound:
    """A `SoundSource`: opens the sound of the QEMU that listens on a socket."""

    def __init__(self, path: Path) -> None:
        """`path`: QEMU's socket, as in `-vnc unix:PATH,audiodev=ID`."""
        self._path = path

    @contextlib.asynccontextmanager
    async def __call__(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """See `SoundSource`."""
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await _begin(reader, writer)
            yield _pieces(reader)
        except EOFError as error:
            raise SoundError("QEMU has closed its VNC server") from error
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Shake hands, and ask for sound.  Raises `SoundError`, `EOFError` and `OSError`."""
    await reader.readexactly(len(VERSION))
    writer.write(VERSION)
    (count,) = await reader.readexactly(1)
    if SECURITY_NONE not in await reader.readexactly(count):
        raise SoundError("QEMU's VNC server wants to know who we are")
    writer.write(bytes([SECURITY_NONE]))
    if any(await reader.readexactly(4)):
        raise SoundError("QEMU's VNC server refuses us")
    writer.write(bytes([SHARED]))
    *_, length = struct.unpack(">HH16sI", await reader.readexactly(24))
    await reader.readexactly(min(length, MAX_DATA))
    writer.write(struct.pack(">BxHi", 2, 1, AUDIO_ENCODING))
    writer.write(struct.pack(">BBHBBI", QEMU_MESSAGE, AUDIO, SET_FORMAT, S16, CHANNELS, RATE))
    writer.write(struct.pack(">BBH", QEMU_MESSAGE, AUDIO, ENABLE))
    await writer.drain()


async def _pieces(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield what is played; silence, which QEMU sends while a program has the card open, is none.

    Raises `SoundError` and `OSError`.
    """
    while True:
        try:
            (kind,) = await reader.readexactly(1)
        except EOFError:
            return
        if kind == 0:
            await _skip_update(reader)
            continue
        if kind != QEMU_MESSAGE:
            raise SoundError(f"message {kind} of QEMU's VNC server was not expected")
        submessage, operation = struct.unpack(">BH", await reader.readexactly(3))
        if submessage != AUDIO or operation not in {END, BEGIN, DATA}:
            raise SoundError(f"message {submessage}, {operation} of QEMU's was not expected")
        if operation != DATA:
            continue
        (size,) = struct.unpack(">I", await reader.readexactly(4))
        if size > MAX_DATA or size % FRAME:
            raise SoundError(f"a piece of sound of {size} bytes was not expected")
        data = await reader.readexactly(size)
        if data.strip(b"\0"):
            yield data


async def _skip_update(reader: asyncio.StreamReader) -> None:
    """Read past a framebuffer update, of which there is one: that QEMU knows of sound."""
    (count,) = struct.unpack(">xH", await reader.readexactly(3))
    for _ in range(count):
        *_, encoding = struct.unpack(">HHHHi", await reader.readexactly(12))
        if encoding != AUDIO_ENCODING:
            raise SoundError(f"pixels of QEMU's were not expected: encoding {encoding}")
