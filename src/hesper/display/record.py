"""Recording a scanout to a video file.

AVI is written by Hesper itself.  For MP4, WebM, Matroska and GIF frames are piped to `ffmpeg`.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from PIL import Image

from hesper.display.avi import AviFullError, AviWriter
from hesper.display.frame import Capture
from hesper.display.geometry import Size
from hesper.display.snapshot import to_image
from hesper.errors import HesperError

if TYPE_CHECKING:
    from types import TracebackType

    from hesper.display.scanout import Cursor, Scanout

JPEG_QUALITY = 90
FFMPEG_ARGUMENTS = {
    ".mp4": ("-pix_fmt", "yuv420p", "-movflags", "+faststart"),
    ".mkv": ("-pix_fmt", "yuv420p"),
    ".webm": ("-pix_fmt", "yuv420p"),
    ".gif": ("-filter_complex", "split[a][b];[a]palettegen[p];[b][p]paletteuse"),
}
"""What ffmpeg is told for each kind of file, beyond its name."""


class RecordError(HesperError):
    """A video cannot be made or finished."""


class _Sink(Protocol):
    def add(self, image: Image.Image | None) -> None:
        """Append a frame; None repeats the one before."""

    def close(self) -> None:
        """Complete the file."""


class _AviSink:
    def __init__(self, path: Path, size: Size, rate: int) -> None:
        self._stack = ExitStack()
        self._writer = AviWriter(self._stack.enter_context(path.open("wb")), size, rate)

    def add(self, image: Image.Image | None) -> None:
        data = io.BytesIO()
        if image is not None:
            image.save(data, "JPEG", quality=JPEG_QUALITY)
        try:
            self._writer.add(data.getvalue())
        except AviFullError:
            raise RecordError("an AVI file holds 2 GiB: record to .mp4 or .mkv") from None

    def close(self) -> None:
        with self._stack:
            self._writer.close()


class _FfmpegSink:
    def __init__(self, path: Path, size: Size, rate: int) -> None:
        program = shutil.which("ffmpeg")
        if program is None:
            raise RecordError(f"{path.suffix} needs ffmpeg: install it, or record to .avi")
        self._last = b""
        self._process = subprocess.Popen(
            [
                *(program, "-loglevel", "error", "-nostdin", "-y"),
                *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size.width}x{size.height}"),
                *("-r", str(rate), "-i", "pipe:0", *FFMPEG_ARGUMENTS[path.suffix], str(path)),
            ],
            stdin=subprocess.PIPE,
        )

    def add(self, image: Image.Image | None) -> None:
        if image is not None:
            self._last = image.tobytes()
        if self._process.stdin is None:
            raise RecordError("ffmpeg has no standard input")
        try:
            self._process.stdin.write(self._last)
        except BrokenPipeError:
            raise RecordError(f"ffmpeg ended with {self._process.wait()}") from None

    def close(self) -> None:
        try:
            self._process.communicate()
        except BrokenPipeError:
            self._process.wait()
        if self._process.returncode:
            raise RecordError(f"ffmpeg ended with {self._process.returncode}")


class Recorder:
    """Records a scanout from `__enter__` to `__exit__`, on a thread of its own.

    The video has the size that the scanout has at the start; later sizes are fitted into it.
    """

    def __init__(self, scanout: Scanout, path: Path, frames_per_second: int = 30) -> None:
        """Choose the kind of video by the suffix of `path`.

        Raises `RecordError` for a suffix that is not known, `ValueError` for a rate that is not
        1 to 120.
        """
        if path.suffix != ".avi" and path.suffix not in FFMPEG_ARGUMENTS:
            known = ", ".join((".avi", *FFMPEG_ARGUMENTS))
            raise RecordError(f"video {path.name}: the name has to end in one of {known}")
        if not 1 <= frames_per_second <= 120:
            raise ValueError(f"{frames_per_second} frames per second: must be 1 to 120")
        self.frames = 0
        """Frames written so far."""
        self._scanout = scanout
        self._path = path
        self._rate = frames_per_second
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._record, name="record")

    def __enter__(self) -> Self:
        """Begin.  Raises `RecordError` or `OSError` when the file cannot be begun."""
        self._capture = Capture(self._scanout, _nothing)
        try:
            self._first = to_image(self._capture.take())
            kind = _AviSink if self._path.suffix == ".avi" else _FfmpegSink
            # Video codecs want even edges.
            self._size = Size(self._first.width // 2 * 2 or 2, self._first.height // 2 * 2 or 2)
            self._sink: _Sink = kind(self._path, self._size, self._rate)
        except BaseException:
            self._capture.close()
            raise
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the video and complete the file; what went wrong meanwhile is raised here."""
        self._stop.set()
        self._thread.join()
        self._capture.close()
        if self._error is not None and error is None:
            raise self._error

    def _record(self) -> None:
        try:
            try:
                self._write_frames()
            finally:
                self._sink.close()
        except (RecordError, OSError) as error:
            self._error = error

    def _write_frames(self) -> None:
        start = time.monotonic()
        self._write(self._first)
        last_cursor: tuple[Cursor | None, tuple[int, int]] = (None, (0, 0))
        image: Image.Image | None = None
        ending = False
        while not ending:
            # One more after the order to stop: a video ends with what was shown last.
            ending = self._stop.is_set()
            picture = self._capture.take()
            cursor = (picture.cursor, picture.cursor_position)
            if picture.changed or cursor != last_cursor:
                image = to_image(picture)
            last_cursor = cursor
            # Frames are due by the clock: what was missed is made up by repeating.
            due = int((time.monotonic() - start) * self._rate) + 1
            if ending and image is not None:
                due = max(due, self.frames + 1)
            while self.frames < due:
                self._write(image)
                image = None
            self._stop.wait(start + self.frames / self._rate - time.monotonic())

    def _write(self, image: Image.Image | None) -> None:
        self._sink.add(self._fitted(image) if image is not None else None)
        self.frames += 1

    def _fitted(self, image: Image.Image) -> Image.Image:
        if image.size == self._size:
            return image
        if image.width - self._size.width in {0, 1} and image.height - self._size.height in {0, 1}:
            return image.crop((0, 0, *self._size))
        scale = min(self._size.width / image.width, self._size.height / image.height)
        small = image.resize((max(1, int(image.width * scale)), max(1, int(image.height * scale))))
        result = Image.new("RGB", self._size)
        left, top = (self._size.width - small.width) // 2, (self._size.height - small.height) // 2
        result.paste(small, (left, top))
        return result


def _nothing() -> None:
    pass
