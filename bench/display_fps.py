#!/usr/bin/env python3
"""Measure what VNC delivers: frames per second, bytes, and processor time a frame.

    python bench/display_fps.py [--size 1280x800] [--seconds 3]

The guest is a thread that draws and flushes as fast as it can; the viewer is another process that
reads without decoding and asks for the next update at once.  Nothing else should be running.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

from hesper.display.formats import BY_NAME
from hesper.display.geometry import Rect, Size
from hesper.display.rfb.server import VncServer
from hesper.display.rfb.service import RfbService
from hesper.display.scanout import Display
from hesper.display.surface import MemorySurface

RAW, TIGHT, ZRLE = 0, 7, 16
ENCODINGS = {
    "Raw": (RAW,),
    "ZRLE": (ZRLE,),
    "Tight": (TIGHT, -255),
    "Tight, JPEG quality 6": (TIGHT, -255, -26),
}


@functools.cache
def _photo(size: Size) -> np.ndarray:
    y, x = np.mgrid[0 : size.height, 0 : size.width * 2].astype("<u4")
    noise = np.random.default_rng(1).integers(0, 4, x.shape, np.uint32)
    photo: np.ndarray = ((x // 3 & 255) << 16 | (y // 2 & 255) << 8 | (x + y) // 5 & 255) + noise
    return photo


@functools.cache
def _text(size: Size) -> np.ndarray:
    text = np.random.default_rng(2).random((size.height * 2, size.width)) < 0.12
    text[::16] = text[1::16] = False
    return np.where(text, 0xE0E0E0, 0x181818).astype("<u4")


class Guest:
    """Draws into a surface of its own."""

    def __init__(self, size: Size, pixels: np.ndarray | None = None) -> None:
        """Begin with black, in `pixels` if they are somebody else's."""
        self.size = size
        self.pixels = np.zeros((size.height, size.width), "<u4") if pixels is None else pixels
        memory = memoryview(self.pixels).cast("B")  # type: ignore[arg-type]
        self.surface = MemorySurface(memory, size, size.width * 4, BY_NAME["XRGB8888"])
        self._photo, self._text = _photo(size), _text(size)

    def video(self, number: int) -> list[Rect]:
        """Change every pixel, like a film."""
        x = number * 7 % self.size.width
        self.pixels[:] = self._photo[:, x : x + self.size.width]
        return [Rect(0, 0, *self.size)]

    def still(self, _number: int) -> list[Rect]:
        """Change nothing; flush everything."""
        return [Rect(0, 0, *self.size)]

    def window(self, number: int) -> list[Rect]:
        """Change a window of 500x500, like vkcube; flush everything, as compositors do."""
        x = number * 7 % self.size.width
        self.pixels[100:600, 100:600] = self._photo[100:600, x : x + 500]
        return [Rect(0, 0, *self.size)]

    def scroll(self, number: int) -> list[Rect]:
        """Scroll a page of text."""
        y = number * 16 % self.size.height
        self.pixels[:] = self._text[y : y + self.size.height]
        return [Rect(0, 0, *self.size)]


def view(port: int, encodings: tuple[int, ...], seconds: float) -> tuple[int, int]:
    """Be the viewer; returns updates and bytes."""
    connection = socket.create_connection(("127.0.0.1", port))
    stream = connection.makefile("rb")

    def read(count: int) -> bytes:
        data = stream.read(count)
        if len(data) != count:
            raise EOFError
        return data

    read(12)
    connection.sendall(b"RFB 003.008\n\x01")
    read(6)
    connection.sendall(b"\x01")
    width, height = struct.unpack(">HH", read(4))
    read(16)
    read(int.from_bytes(read(4)))
    connection.sendall(struct.pack(f">BxH{len(encodings)}i", 2, len(encodings), *encodings))
    request = struct.pack(">BBHHHH", 3, 1, 0, 0, width, height)
    connection.sendall(request)
    updates = total = 0
    end = 0.0
    while True:
        (count,) = struct.unpack(">xxH", read(4))
        for _ in range(count):
            *where, encoding = struct.unpack(">HHHHi", read(12))
            total += _skip(read, encoding, where[2], where[3])
        connection.sendall(request)
        now = time.monotonic()
        if not end:
            end = now + seconds  # the first update is the whole screen, and not counted
            total = 0
        else:
            updates += 1
        if now >= end:
            return updates, total


def _skip(read: Callable[[int], bytes], encoding: int, width: int, height: int) -> int:
    if encoding == RAW:
        return len(read(width * height * 4))
    if encoding == ZRLE:
        return len(read(int.from_bytes(read(4))))
    control = read(1)[0]
    if control >> 4 == 8:
        return len(read(3))
    plain = width * height * 3
    if control >> 4 != 9 and control & 0x40:
        read(1)
        colours = read(1)[0] + 1
        read(3 * colours)
        plain = -(-width // 8) * height if colours == 2 else width * height
    if control >> 4 != 9 and plain < 12:
        return len(read(plain))
    length = 0
    for shift in (0, 7, 14):
        byte = read(1)[0]
        length |= (byte if shift == 14 else byte & 0x7F) << shift
        if shift < 14 and not byte & 0x80:
            break
    return len(read(length))


async def measure(size: Size, scene: str, encodings: tuple[int, ...], seconds: float) -> str:
    """Run one scene through one encoding; returns a row of figures."""
    display = Display()
    guest = Guest(size)
    draw = getattr(guest, scene)
    display[0].show(guest.surface)
    stop = threading.Event()
    flushes: list[float] = []

    def work() -> None:
        number = 0
        # No guest draws faster than this, and one that spins would take the server's processor.
        while not stop.wait(1 / 250):
            number += 1
            rects = draw(number)
            start = time.perf_counter()
            display[0].flush(rects)
            flushes.append(time.perf_counter() - start)

    async with (
        RfbService(display, 1000) as service,
        VncServer(service, port=0, is_open=True) as server,
    ):
        thread = threading.Thread(target=work)
        thread.start()
        before = time.process_time()
        begin = time.monotonic()
        viewer = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "--view", str(server.ports[0])),
            *("--encodings", ",".join(map(str, encodings)), "--seconds", str(seconds)),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await viewer.communicate()
        busy = (time.process_time() - before) / (time.monotonic() - begin)
        stop.set()
        thread.join()
    updates, total = json.loads(out)
    median, late, slowest = np.percentile(flushes, (50, 99, 100)) * 1e6
    return (
        f"{updates / seconds:9.0f} {total / max(updates, 1) / 1000:11.0f} "
        f"{total / seconds / 1e6:9.1f} {busy:10.2f} {median:10.0f} {late:6.0f} {slowest:6.0f}"
    )


def main() -> None:
    """Measure every scene through every encoding, or be the viewer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", default="1280x800")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--view", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--encodings", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.view is not None:
        encodings = tuple(map(int, arguments.encodings.split(",")))
        print(json.dumps(view(arguments.view, encodings, arguments.seconds)))
        return
    size = Size(*map(int, arguments.size.split("x")))
    print(f"{arguments.size}, {arguments.seconds} s each")
    print(f"{'':32}  frames/s    kB/frame      MB/s  processors  flush us: p50    p99  worst")
    for scene in ("scroll", "window", "video"):
        for name, encodings in ENCODINGS.items():
            row = asyncio.run(measure(size, scene, encodings, arguments.seconds))
            print(f"{scene:8}{name:24}{row}")


if __name__ == "__main__":
    main()
