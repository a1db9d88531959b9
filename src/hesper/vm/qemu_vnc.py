"""A connection to the VNC server of a QEMU that Hesper runs, on a socket of its own.

Source: RFC 6143, "The Remote Framebuffer Protocol".
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from hesper.display.geometry import Size

OPEN_SECONDS = 10.0
MAX_NAME = 1 << 10
"""Bytes of what the server calls itself; more are not read."""
VERSION = b"RFB 003.008\n"
SECURITY_NONE = 1
SHARED = 1
SET_ENCODINGS = 2


class QemuVncError(OSError):
    """QEMU's VNC server does not do what it is to do here."""


@dataclass(frozen=True)
class QemuVnc:
    """A connection on which both have said who they are."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    size: Size
    """Of what QEMU shows, at first."""

    def set_encodings(self, *encodings: int) -> None:
        """Say what is understood."""
        self.writer.write(struct.pack(">BxH", SET_ENCODINGS, len(encodings)))
        self.writer.write(struct.pack(f">{len(encodings)}i", *encodings))


@contextlib.asynccontextmanager
async def connected(path: Path) -> AsyncIterator[QemuVnc]:
    """Connect to the server at `path`, as one viewer among others.

    Raises `QemuVncError`, also where it ends while the body reads, and `OSError`.
    """
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        async with asyncio.timeout(OPEN_SECONDS):
            size = await _shake_hands(reader, writer)
        yield QemuVnc(reader, writer, size)
    except EOFError as error:
        raise QemuVncError("QEMU has closed its VNC server") from error
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _shake_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Size:
    await reader.readexactly(len(VERSION))
    writer.write(VERSION)
    (count,) = await reader.readexactly(1)
    if SECURITY_NONE not in await reader.readexactly(count):
        raise QemuVncError("QEMU's VNC server wants to know who we are")
    writer.write(bytes([SECURITY_NONE]))
    if any(await reader.readexactly(4)):
        raise QemuVncError("QEMU's VNC server refuses us")
    writer.write(bytes([SHARED]))
    width, height, _, length = struct.unpack(">HH16sI", await reader.readexactly(24))
    if length > MAX_NAME:
        raise QemuVncError(f"a name of {length} bytes was not expected")
    await reader.readexactly(length)
    return Size(width, height)
