"""What a PC shows before its guest's driver does: the BIOS, a boot loader's menu, a kernel's start.

They draw on a VGA card.  It is one on the ISA bus, of which nothing is left in a running guest:
Linux has no driver for it but its text console's, and moves that to the first real screen.  The
card's firmware offers boot loaders no linear framebuffer, which a kernel would keep as a screen.

QEMU shows the card by VNC, on a socket of ours; its picture is the first screen's until the guest
shows one of its own there, and again when the machine starts over.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hesper.display.formats import BY_NAME, XRGB_DTYPE
from hesper.display.geometry import Rect, Size
from hesper.display.surface import MemorySurface, check_size
from hesper.log import get_logger
from hesper.vm.qemu_vnc import QemuVnc, QemuVncError, connected

if TYPE_CHECKING:
    from hesper.display.formats import Xrgb
    from hesper.display.scanout import Scanout
    from hesper.vm.outputs import Outputs

RAW, DESKTOP_SIZE = 0, -223
SET_PIXEL_FORMAT, REQUEST = 0, 3
UPDATE, BELL = 0, 2
UPDATE_SECONDS = 0.05
"""Between two updates: 20 a second are enough for menus."""
LOOK_SECONDS = 0.5
"""Between two looks whether the guest shows something itself."""

_log = get_logger(__name__)


class FirmwareScreen:
    """Shows QEMU's VGA card on a scanout for as long as the guest shows nothing there."""

    def __init__(self, path: Path, scanout: Scanout, outputs: Outputs) -> None:
        """`path`: QEMU's socket, as in `-vnc unix:PATH`; it listens when `start` is called."""
        self._path = path
        self._scanout = scanout
        self._outputs = outputs
        self._shown: MemorySurface | None = None
        self._pixels: Xrgb | None = None
        """Those of what is shown."""
        self._runs = False
        self._is_wanted = False
        """Whether the machine has started, and the card has not been watched to the end since."""

    def start(self) -> None:
        """Show the card from now on; after the machine's start, and after each reset.

        On the outputs' event loop.
        """
        self._shown = None
        self._is_wanted = True
        if not self._runs:
            self._runs = True
            self._outputs.spawn(self._run)

    async def _run(self) -> None:
        try:
            # The machine may start over while the connection ends.
            while self._is_wanted:
                async with connected(self._path) as vnc:
                    with contextlib.suppress(EOFError, ConnectionError):  # QEMU has ended
                        await self._watch(vnc)
                    self._is_wanted = False
        except OSError as error:
            _log.warning("firmware and boot loader are not seen", reason=str(error))
        finally:
            self._runs = False
            if self._shown is not None:
                self._scanout.replace(self._shown, None)

    async def _watch(self, vnc: QemuVnc) -> None:
        """Show what comes, until the guest shows something itself.

        Raises `QemuVncError`, `EOFError` and `OSError`.
        """
        pixel_format = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
        vnc.writer.write(struct.pack(">B3x", SET_PIXEL_FORMAT) + pixel_format)
        vnc.set_encodings(RAW, DESKTOP_SIZE)
        pixels = _picture(vnc.size)
        is_new = True
        while self._shows(pixels):
            height, width = pixels.shape
            vnc.writer.write(struct.pack(">BBHHHH", REQUEST, not is_new, 0, 0, width, height))
            update = asyncio.create_task(_update(vnc.reader, pixels))
            try:
                while not update.done():
                    # A guest with a screen of its own need not touch the card any more.
                    await asyncio.wait([update], timeout=LOOK_SECONDS)
                    if not self._shows(pixels):
                        return
                before, (pixels, changed) = pixels, update.result()
            finally:
                update.cancel()
            is_new = pixels is not before
            if self._shows(pixels):
                self._scanout.flush(changed)
            await asyncio.sleep(UPDATE_SECONDS)

    def _shows(self, pixels: Xrgb) -> bool:
        """Show a picture, unless the guest has its own."""
        shown = self._shown
        if shown is not None and self._pixels is pixels:
            return self._scanout.surface is shown
        height, width = pixels.shape
        surface = MemorySurface(pixels.data, Size(width, height), width * 4, BY_NAME["XRGB8888"])
        if not self._scanout.replace(shown, surface):
            return False
        self._shown, self._pixels = surface, pixels
        return True


def _picture(size: Size) -> Xrgb:
    """A black one.  Raises `QemuVncError` for a size that no screen has."""
    try:
        check_size(size)
    except ValueError as error:
        raise QemuVncError(f"a screen of QEMU's was not expected: {error}") from error
    return np.zeros((size.height, size.width), XRGB_DTYPE)


async def _update(reader: asyncio.StreamReader, pixels: Xrgb) -> tuple[Xrgb, list[Rect]]:
    """Wait for an update; returns the picture, and where it has changed.

    It is another one where the size has changed.  Raises `QemuVncError`, `EOFError` and `OSError`.
    """
    while (kind := (await reader.readexactly(1))[0]) != UPDATE:
        if kind != BELL:
            raise QemuVncError(f"message {kind} of QEMU's VNC server was not expected")
    changed: list[Rect] = []
    (count,) = struct.unpack(">xH", await reader.readexactly(3))
    for _ in range(count):
        *edges, encoding = struct.unpack(">HHHHi", await reader.readexactly(12))
        rect = Rect(*edges)
        if encoding == DESKTOP_SIZE:
            pixels = _picture(Size(rect.width, rect.height))
            changed.clear()
        elif encoding == RAW and rect.clip(Size(pixels.shape[1], pixels.shape[0])) == rect:
            data = await reader.readexactly(rect.width * rect.height * 4)
            part = np.frombuffer(data, XRGB_DTYPE).reshape(rect.height, rect.width)
            pixels[rect.slices] = part & 0xFFFFFF
            changed.append(rect)
        else:
            raise QemuVncError(f"{rect} of QEMU's VNC server was not expected: {encoding}")
    return pixels, changed
