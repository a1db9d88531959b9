"""QEMU's own VNC server over memory that this process draws into, without a guest.

`ramfb` shows a part of the machine's memory, which lies in a file; where, it is told through
`-qtest`, as firmware would do it (QEMU's documents "QEMU Firmware Configuration (fw_cfg) Device"
and "QTest Device Emulation Testing Framework").
"""

from __future__ import annotations

import mmap
import socket
import struct
import subprocess
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from hesper.display.geometry import Size

MEMORY = 256 << 20
CONFIGURATION, REQUEST, PICTURE = 0x1000, 0x2000, 64 << 20
SELECTOR, DATA, DMA_HIGH, DMA_LOW = 0x510, 0x511, 0x514, 0x518
DIRECTORY = 0x19
SELECT, WRITE = 8, 16
XR24 = 0x34325258


class QemuScreen(AbstractContextManager["QemuScreen"]):
    """QEMU, its machine stopped, showing `pixels` by VNC at `port`."""

    def __init__(self, program: str, size: Size, port: int) -> None:
        """Start it.  Raises `OSError`."""
        self.port = port
        self._folder = tempfile.TemporaryDirectory(dir="/dev/shm")
        memory = Path(self._folder.name, "memory")
        with memory.open("wb") as file:
            file.truncate(MEMORY)
        listener = socket.socket(socket.AF_UNIX)
        path = Path(self._folder.name, "qtest")
        listener.bind(str(path))
        listener.listen(1)
        backend = f"memory-backend-file,id=m,size={MEMORY},mem-path={memory},share=on"
        self._process = subprocess.Popen(
            [
                *(program, "-M", "q35,memory-backend=m", "-m", str(MEMORY >> 20)),
                *("-object", backend, "-accel", "tcg", "-S", "-nodefaults", "-vga", "none"),
                *("-device", "ramfb", "-display", "none"),
                *("-vnc", f"127.0.0.1:{port - 5900},lossy=on,non-adaptive=on"),
                *("-qtest", f"unix:{path}", "-qtest-log", "none"),
            ],
            stderr=subprocess.DEVNULL,
        )
        listener.settimeout(20)
        self._qtest = listener.accept()[0].makefile("rw")
        listener.close()
        with memory.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), MEMORY)
        self._show(size)
        self.pixels = np.frombuffer(self._memory, "<u4", size.width * size.height, PICTURE)
        self.pixels = self.pixels.reshape(size.height, size.width)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def _ask(self, command: str) -> str:
        self._qtest.write(f"{command}\n")
        self._qtest.flush()
        while not (answer := self._qtest.readline()).startswith("OK"):
            if not answer or answer.startswith(("ERR", "FAIL")):
                raise OSError(f"QEMU says {answer!r} to {command}")
        return answer.partition(" ")[2].strip()

    def _read(self, count: int) -> bytes:
        return bytes(int(self._ask(f"inb {DATA:#x}"), 16) for _ in range(count))

    def _show(self, size: Size) -> None:
        self._ask(f"outw {SELECTOR:#x} {DIRECTORY:#x}")
        entries = [self._read(64) for _ in range(int.from_bytes(self._read(4)))]
        (key,) = [
            int.from_bytes(entry[4:6])
            for entry in entries
            if entry[8:].rstrip(b"\0") == b"etc/ramfb"
        ]
        width, height = size
        what = struct.pack(">QIIIII", PICTURE, XR24, 0, width, height, width * 4)
        request = struct.pack(">IIQ", key << 16 | SELECT | WRITE, len(what), CONFIGURATION)
        self._memory[CONFIGURATION : CONFIGURATION + len(what)] = what
        self._memory[REQUEST : REQUEST + len(request)] = request
        # The register is big-endian, what `outl` writes is not.
        self._ask(f"outl {DMA_HIGH:#x} 0")
        self._ask(f"outl {DMA_LOW:#x} {int.from_bytes(REQUEST.to_bytes(4), 'little'):#x}")

    def __enter__(self) -> Self:
        """It has been started."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()
