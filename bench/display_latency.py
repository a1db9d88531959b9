#!/usr/bin/env python3
"""Measure how late a picture is, from the guest's flush to the viewer's pixels, and what it costs.

    python bench/display_latency.py [--size 1280x800] [--seconds 3] [--rounds 3] [--qemu PROGRAM]

The guest draws a film, or flushes the same picture, 60 times a second, with the time as black and
white squares in the upper left corner.  The viewer, another process, decodes that corner (H.264:
all) as soon as an update has come, and asks for the next one.  With --qemu its own VNC server shows
the same drawing, by turns.  Nothing else should be running.  H.264 is decoded by PyAV (`pip install
av`), which Hesper itself neither wants nor uses: its wheels hold encoders under the GPL.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import resource
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from display_fps import Guest
from PIL import Image
from qemu_screen import QemuScreen

from hesper.display.geometry import Size
from hesper.display.rfb.server import VncServer
from hesper.display.rfb.service import RfbService
from hesper.display.scanout import Display

RAW, TIGHT, H264, LAST_RECT = 0, 7, 50, -224
ENCODINGS = {
    "H.264": (H264, TIGHT, -255, -26, LAST_RECT),
    "Tight, JPEG quality 6": (TIGHT, -255, -26),
    "Raw": (RAW,),
}
BITS, SQUARE = 24, 8
"""Of the time; edge of the square that shows one."""
TICKS = 10_000
"""A second; the time is modulo 28 minutes."""
RATE = 60
QEMU_PORT = 5977
TORN_SECONDS = 10.0
"""What seems older was read while it was written."""
SETTLE_SECONDS = 2.0
"""Not counted: until H.264 has begun, and a browser would have warmed up."""


def stamp(pixels: np.ndarray) -> None:
    """Show what time it is."""
    now = int(time.monotonic() * TICKS)
    bits = np.array([now >> bit & 1 for bit in range(BITS)], np.uint32) * np.uint32(0xFFFFFF)
    pixels[:SQUARE, : BITS * SQUARE] = np.repeat(bits, SQUARE)


def age(corner: np.ndarray) -> float:
    """Return how many seconds ago `corner`, of shape (8, 192), was stamped."""
    middles = corner[SQUARE // 2, SQUARE // 2 :: SQUARE]
    then = sum(1 << bit for bit in range(BITS) if middles[bit] > 127)
    return (int(time.monotonic() * TICKS) - then) % (1 << BITS) / TICKS


class Corner:
    """Decodes the corner of what a server sends."""

    def __init__(self, connection: socket.socket) -> None:
        """Nothing has come."""
        self._stream = connection.makefile("rb")
        self._inflaters = {stream: zlib.decompressobj() for stream in range(4)}
        self._video: Any = None
        self.pixels = np.zeros((SQUARE, BITS * SQUARE), np.uint8)
        self.bytes = 0
        self.videos = 0

    def read(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) != count:
            raise EOFError
        self.bytes += count
        return data

    def update(self) -> bool:
        """Read an update; returns whether the corner was in it."""
        _, _, count = struct.unpack(">BBH", self.read(4))
        has_corner = False
        for _ in range(count):
            x, y, width, height, encoding = struct.unpack(">HHHHi", self.read(12))
            if encoding == LAST_RECT:
                break
            green = self._rect(encoding, width, height, x < self.pixels.shape[1] and y < SQUARE)
            if green is not None and y < SQUARE:
                part = green[: SQUARE - y, : max(self.pixels.shape[1] - x, 0)]
                self.pixels[y : y + part.shape[0], x : x + part.shape[1]] = part
                has_corner = True
        return has_corner

    def _rect(self, encoding: int, width: int, height: int, wanted: bool) -> np.ndarray | None:
        if encoding == RAW:
            data = self.read(width * height * 4)
            return np.frombuffer(data, np.uint8).reshape(height, width, 4)[..., 1]
        if encoding == H264:
            length, flags = struct.unpack(">II", self.read(8))
            return self._h264(self.read(length), flags, width)
        return self._tight(width, height, wanted)

    def _h264(self, data: bytes, flags: int, width: int) -> np.ndarray:
        import av

        self.videos += 1
        if flags or self._video is None:
            self._video = av.CodecContext.create("h264", "r")
            self._video.thread_count = 1
        (picture,) = self._video.decode(av.Packet(data))
        plane = picture.planes[0]
        luma = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        return luma[:, : min(width, self.pixels.shape[1])]

    def _tight(self, width: int, height: int, wanted: bool) -> np.ndarray | None:
        control = self.read(1)[0]
        fresh = [stream for stream in range(4) if control >> stream & 1]
        self._inflaters.update((stream, zlib.decompressobj()) for stream in fresh)
        if control >> 4 == 8:
            return np.full((height, width), self.read(3)[1], np.uint8)
        if control >> 4 == 9:
            data = self.read(self._length())
            if not wanted:
                return None
            return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[..., 1]
        palette = None
        if control & 0x40 and self.read(1)[0] == 1:
            palette = np.frombuffer(self.read((self.read(1)[0] + 1) * 3), np.uint8)[1::3]
        row = width * 3 if palette is None else -(-width // 8) if len(palette) == 2 else width
        if row * height < 12:
            data = self.read(row * height)
        else:
            data = self._inflaters[control >> 4 & 3].decompress(self.read(self._length()))
        if not wanted:
            return None
        rows = np.frombuffer(data, np.uint8).reshape(height, row)
        if palette is None:
            return rows[:, 1::3]
        if len(palette) == 2:
            rows = np.unpackbits(rows, axis=1)[:, :width]
        return palette[rows]

    def _length(self) -> int:
        length = 0
        for shift in (0, 7, 14):
            byte = self.read(1)[0]
            length |= (byte if shift == 14 else byte & 0x7F) << shift
            if shift < 14 and not byte & 0x80:
                break
        return length


def view(port: int, encodings: tuple[int, ...], seconds: float) -> dict[str, Any]:
    """Be the viewer; returns what it has seen."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.settimeout(1.0)
    corner = Corner(connection)
    corner.read(12)
    connection.sendall(b"RFB 003.008\n")
    corner.read(2)
    connection.sendall(b"\x01")
    corner.read(4)
    connection.sendall(b"\x01")
    width, height = struct.unpack(">HH", corner.read(4))
    corner.read(16)
    corner.read(int.from_bytes(corner.read(4)))
    layout = struct.pack(">BBBBHHHBBBxxx", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
    connection.sendall(b"\0\0\0\0" + layout)
    connection.sendall(struct.pack(f">BxH{len(encodings)}i", 2, len(encodings), *encodings))
    request = struct.pack(">BBHHHH", 3, 1, 0, 0, width, height)
    connection.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
    begin = time.monotonic() + SETTLE_SECONDS
    ages: list[float] = []
    updates = first = videos = 0
    while (now := time.monotonic()) < begin + seconds:
        try:
            has_corner = corner.update()
        except TimeoutError:
            break  # a picture that stands still
        if now < begin:
            first, videos = corner.bytes, corner.videos
        else:
            updates += 1
            if has_corner and (late := age(corner.pixels)) < TORN_SECONDS:
                ages.append(late)
        connection.sendall(request)
    own = resource.getrusage(resource.RUSAGE_SELF)
    processor = own.ru_utime + own.ru_stime + children_seconds()
    total, shown = corner.bytes - first, corner.videos - videos
    return {
        "updates": updates,
        "bytes": total,
        "ages": ages,
        "videos": shown,
        "processor": processor,
    }


def children_seconds() -> float:
    """Processor time of the processes of this one that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Drawing(threading.Thread):
    """Draws and flushes until it is told to stop."""

    def __init__(self, guest: Guest, scene: str, flush: Callable[[list[Any]], None]) -> None:
        """`scene` is a method of the guest's; `flush` is told what it has drawn."""
        super().__init__()
        self._draw, self._guest, self._flush = getattr(guest, scene), guest, flush
        self._is_still = scene == "still"
        self.stop = threading.Event()
        self.processor = 0.0
        self.frames = 0

    def run(self) -> None:
        """Draw; a guest that is late draws at once."""
        due = time.monotonic()
        while not self.stop.wait(max(due - time.monotonic(), 0)):
            due = max(due + 1 / RATE, time.monotonic() - 1 / RATE)
            self.frames += 1
            rects = self._draw(self.frames)
            if not self._is_still:
                stamp(self._guest.pixels)
            self._flush(rects)
            self.processor = time.thread_time()


async def viewer(port: int, encodings: tuple[int, ...], seconds: float) -> dict[str, Any]:
    """Run the viewer in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--view", str(port)),
        *("--encodings", ",".join(map(str, encodings)), "--seconds", str(seconds)),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    found: dict[str, Any] = json.loads(out)
    return found


async def measure_hesper(
    size: Size, scene: str, encodings: tuple[int, ...], seconds: float
) -> dict[str, Any]:
    """One scene, one encoding."""
    display = Display()
    guest = Guest(size)
    display[0].show(guest.surface)
    drawing = Drawing(guest, scene, display[0].flush)
    async with (
        RfbService(display) as service,
        VncServer(service, port=0, is_open=True) as server,
    ):
        drawing.start()
        before, begin = time.process_time(), time.monotonic()
        children = children_seconds()
        found = await viewer(server.ports[0], encodings, seconds)
        drawing.stop.set()
        drawing.join()
        busy = time.process_time() - before - drawing.processor
        elapsed = time.monotonic() - begin
    # Encoders have ended by now, and so has the viewer, which says what it has used.
    busy += children_seconds() - children - found["processor"]
    found["busy"] = busy / elapsed
    return found


async def measure_qemu(
    program: str, size: Size, scene: str, encodings: tuple[int, ...], seconds: float
) -> dict[str, Any]:
    """The same by QEMU."""
    with QemuScreen(program, size, QEMU_PORT) as screen:
        guest = Guest(size, screen.pixels)
        drawing = Drawing(guest, scene, lambda _: None)
        drawing.start()
        before, begin = processor_seconds(screen.pid), time.monotonic()
        found = await viewer(QEMU_PORT, encodings, seconds)
        drawing.stop.set()
        drawing.join()
        busy = processor_seconds(screen.pid) - before
        found["busy"] = busy / (time.monotonic() - begin)
        del guest
    return found


def row(runs: list[dict[str, Any]], seconds: float) -> str:
    """Return the medians of several runs."""
    ages = [each["ages"] for each in runs]
    rate = float(np.median([each["updates"] for each in runs])) / seconds
    busy = float(np.median([each["busy"] for each in runs]))
    size = float(np.median([each["bytes"] / max(each["updates"], 1) for each in runs]))
    shown = f"{'-':>7} {'-':>7}"
    if any(ages):
        late = [np.median([np.percentile(each, p) for each in ages if each]) for p in (50, 99)]
        shown = " ".join(f"{value * 1000:7.1f}" for value in late)
    each = f"{busy / rate * 1000:9.1f}" if rate else f"{'-':>9}"
    share = sum(run["videos"] for run in runs) / max(sum(run["updates"] for run in runs), 1)
    return f"{rate:8.1f} {shown} {size / 1000:9.1f} {busy:10.2f} {each} {share:6.2f}"


async def measure_all(arguments: argparse.Namespace) -> None:
    """Every scene by every encoding, by turns."""
    size = Size(*map(int, arguments.size.split("x")))
    print(f"{arguments.size}, {arguments.rounds} rounds of {arguments.seconds} s", os.getloadavg())
    print(f"{'':38} frames/s  p50 ms  p99 ms  kB/frame processors  ms/frame  H.264")
    for scene in arguments.scenes.split(","):
        runs: dict[str, list[dict[str, Any]]] = {}
        for _ in range(arguments.rounds):
            for name, encodings in ENCODINGS.items():
                common = size, scene, encodings, arguments.seconds
                runs.setdefault(f"Hesper, {name}", []).append(await measure_hesper(*common))
                if arguments.qemu and name != "H.264":
                    found = await measure_qemu(arguments.qemu, *common)
                    runs.setdefault(f"QEMU, {name}", []).append(found)
        for name, each in runs.items():
            print(f"{scene:8}{name:30}{row(each, arguments.seconds)}", flush=True)


def main() -> None:
    """Measure, or be the viewer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", default="1280x800")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scenes", default="video,window,still")
    parser.add_argument("--qemu", help="a qemu-system-x86_64 with ramfb, to compare with")
    parser.add_argument("--view", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--encodings", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.view is not None:
        encodings = tuple(map(int, arguments.encodings.split(",")))
        print(json.dumps(view(arguments.view, encodings, arguments.seconds)))
        return
    asyncio.run(measure_all(arguments))


if __name__ == "__main__":
    main()
