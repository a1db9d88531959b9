"""One H.264 stream: an `ffmpeg` process that gives a picture for each that it gets."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import select
import shutil
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from hesper.display.video.flv import StreamError, Unpacker
from hesper.errors import HesperError
from hesper.sandbox.environment import scrubbed

if TYPE_CHECKING:
    from hesper.display.geometry import Size

CODEC = "libx264"
QUALITIES = (20, 24, 28, 32, 36)
"""libx264's constant rate factors, the best first."""
START_SECONDS, PICTURE_SECONDS = 20.0, 5.0
"""An encoder that has given no picture for so long is taken for dead."""
ASK_SECONDS = 10.0
PIPE_BYTES = 1 << 20
READ_BYTES = 1 << 18
MOST_SAID = 300

# ITU-T H.264, annex E: primaries of BT.709, sRGB's transfer, BT.601's matrix, limited range.
# Viewers that look at none of it take just that.
_COLOURS = (
    "h264_metadata=colour_primaries=1:transfer_characteristics=13:matrix_coefficients=6"
    ":video_full_range_flag=0"
)


class EncoderError(HesperError):
    """There is no encoder, or it has failed."""


@functools.cache
def find_ffmpeg() -> str:
    """Return the path of an `ffmpeg` that can encode H.264.  Raises `EncoderError`."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise EncoderError("ffmpeg is not installed")
    program = os.path.abspath(program)
    try:
        answer = subprocess.run(
            [program, "-hide_banner", "-loglevel", "error", "-encoders"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ASK_SECONDS,
            env=scrubbed(os.environ),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EncoderError(f"{program}: {error}") from None
    if f" {CODEC} ".encode() not in answer.stdout:
        raise EncoderError(f"{program} has no {CODEC}")
    return program


def command(program: str, size: Size, quality: int) -> list[str]:
    """What is started: pictures of `size` in 4:2:0 on standard input, FLV on standard output."""
    return [
        *(sys.executable, "-m", "hesper.display.video.confined"),
        *(program, "-hide_banner", "-loglevel", "error", "-nostdin", "-threads", "1"),
        *("-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{size.width}x{size.height}"),
        *("-r", "60", "-probesize", "32", "-analyzeduration", "0"),
        *("-i", "pipe:0", "-an", "-fps_mode", "passthrough", "-c:v", CODEC),
        *("-preset", "superfast", "-tune", "zerolatency", "-profile:v", "baseline"),
        # One thread and one slice: noVNC takes each slice for a picture, and threads that have a
        # picture each are late by as many.  No key picture after the first: nothing is lost.
        *("-threads", "1", "-slices", "1", "-x264-params", "sliced-threads=0"),
        *("-g", "1000000000", "-sc_threshold", "0", "-crf", str(QUALITIES[quality])),
        *("-bsf:v", _COLOURS, "-flush_packets", "1", "-f", "flv", "pipe:1"),
    ]


class Encoder:
    """A running encoder.  Its owner closes it."""

    def __init__(self, size: Size, quality: int) -> None:
        """Start it, and wait until it works.  Raises `EncoderError`.

        size: even.  quality: an index of `QUALITIES`.
        """
        self.size = size
        self.quality = quality
        self._unpacker = Unpacker()
        self._at_work = threading.Lock()
        program = find_ffmpeg()
        try:
            self._process = subprocess.Popen(
                command(program, size, quality),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=scrubbed(os.environ),
                process_group=0,
            )
        except OSError as error:
            raise EncoderError(f"{program}: {error}") from None
        self._pipes = [
            stream.fileno()
            for stream in (self._process.stdin, self._process.stdout, self._process.stderr)
            if stream is not None
        ]
        for fd in self._pipes:
            os.set_blocking(fd, False)
        with contextlib.suppress(AttributeError, OSError):  # Linux alone has it
            fcntl.fcntl(self._pipes[0], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        count = size.width * size.height
        black = b"\x10" * count + b"\x80" * (count // 2)
        try:
            self.head = self._encode(memoryview(black), START_SECONDS)
            """A black picture, which those that follow begin with."""
        except EncoderError:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def encode(self, planes: memoryview) -> bytes:
        """Return the picture that `planes` has, as one slice in Annex B.  Raises `EncoderError`.

        planes: Y, U and V of `size`, one after the other.
        """
        with self._at_work:
            return self._encode(planes, PICTURE_SECONDS)

    def _encode(self, planes: memoryview, patience: float) -> bytes:
        given, taken, _ = self._pipes
        end = time.monotonic() + patience
        left = planes
        waiting = select.poll()
        waiting.register(taken, select.POLLIN)
        waiting.register(given, select.POLLOUT)
        while (seconds := end - time.monotonic()) > 0:
            for fd, _events in waiting.poll(seconds * 1000):
                try:
                    if fd == given:
                        left = left[os.write(given, left) :]
                        if not left:
                            waiting.unregister(given)
                    elif (picture := self._read(taken)) is not None:
                        return picture
                except BlockingIOError:
                    continue
                except (OSError, StreamError) as error:
                    raise EncoderError(self._why(str(error))) from None
        raise EncoderError(self._why(f"no picture within {patience:g} s"))

    def _read(self, fd: int) -> bytes | None:
        data = os.read(fd, READ_BYTES)
        if not data:
            raise StreamError("it has ended")
        pictures = list(self._unpacker.feed(data))
        if len(pictures) > 1:
            raise StreamError("more pictures than it was given")
        return pictures[0] if pictures else None

    def _why(self, reason: str) -> str:
        """What went wrong, and what the encoder has to say about it."""
        with contextlib.suppress(OSError):
            said = os.read(self._pipes[2], READ_BYTES).decode(errors="replace").strip()
            reason = f"{reason}: {said[-MOST_SAID:]}" if said else reason
        return f"ffmpeg: {reason}"

    def close(self) -> None:
        """End the process, at once, also while a thread is in `encode`.  May be called again."""
        self._process.kill()
        self._process.wait()
        with self._at_work:
            for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
