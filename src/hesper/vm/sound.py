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
from hesper.vm.qemu_vnc import QemuVncError, connected

MAX_DATA = 1 << 20
"""Bytes of one piece of sound; QEMU's have some kilobytes."""
AUDIO_ENCODING = -259
QEMU_MESSAGE = 255
AUDIO = 1
ENABLE, DISABLE, SET_FORMAT = range(3)
END, BEGIN, DATA = range(3)
S16 = 3


class SoundError(QemuVncError):
    """QEMU's VNC server does not do what one that has sound does."""


class QemuSound:
    """A `SoundSource`: opens the sound of the QEMU that listens on a socket."""

    def __init__(self, path: Path) -> None:
        """`path`: QEMU's socket, as in `-vnc unix:PATH,audiodev=ID`."""
        self._path = path

    @contextlib.asynccontextmanager
    async def __call__(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """See `SoundSource`."""
        async with connected(self._path) as vnc:
            vnc.set_encodings(AUDIO_ENCODING)
            wanted = struct.pack(">BBI", S16, CHANNELS, RATE)
            vnc.writer.write(struct.pack(">BBH", QEMU_MESSAGE, AUDIO, SET_FORMAT) + wanted)
            vnc.writer.write(struct.pack(">BBH", QEMU_MESSAGE, AUDIO, ENABLE))
            await vnc.writer.drain()
            yield _pieces(vnc.reader)


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
