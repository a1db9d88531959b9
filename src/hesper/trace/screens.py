"""What a machine's screens show, as a recording: pictures, some a second."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from hesper.display.frame import Capture
from hesper.log import get_logger
from hesper.trace.chunks import ABOUT, MAGIC, RECORDS, pack, write_all
from hesper.trace.picture import PIXEL
from hesper.trace.records import Kind, cut, record_of
from hesper.trace.shown import BODY

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from hesper.display.scanout import Display
    from hesper.isolation.recordings import RecordOptions
    from hesper.trace.records import About, Record

_log = get_logger(__name__)

PAUSE = 0.5
"""Seconds between two pictures of a screen."""
_CHUNK = 16 << 20
"""Bytes of pixels in one chunk."""


class ScreensRecorder:
    """Records what the screens of `display` show, from `__enter__` to `__exit__`, on a thread."""

    def __init__(self, display: Display, fd: int, about: About, options: RecordOptions) -> None:
        """Record to the file `fd`, which is taken over."""
        self._captures = [Capture(scanout, _nothing) for scanout in display]
        self._options = options
        self._fd = fd
        self._start = MAGIC + pack(ABOUT, 0, msgspec.msgpack.encode(about))
        self._begun = time.monotonic()
        self._number = 1
        self._written = 0
        self._sizes: dict[int, tuple[int, int]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="screens")

    def __enter__(self) -> Self:
        """Begin.  Raises `OSError`."""
        self._write(self._start)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Record the last pictures, and close the file."""
        self._stop.set()
        self._thread.join()
        for capture in self._captures:
            capture.close()
        os.close(self._fd)

    def _run(self) -> None:
        is_over = False
        reason = ""
        try:
            while not is_over and not reason:
                # Once more after the order to stop: what was shown last is in it.
                is_over = self._stop.is_set()
                for screen in range(len(self._captures)):
                    self._take(screen)
                reason = self._limit()
                self._stop.wait(PAUSE)
            self._put(record_of(Kind.END, reason.encode(), time=self._now()))
        except OSError as error:
            _log.error("the recording of the screens ends here", reason=str(error))

    def _limit(self) -> str:
        """Why there is to be no more."""
        if self._written > self._options.most:
            return f"the recording has reached {self._options.most} bytes"
        if self._options.seconds and self._now() >= self._options.seconds * 1e9:
            return f"the recording has reached {self._options.seconds:g} s"
        return ""

    def _now(self) -> int:
        return int((time.monotonic() - self._begun) * 1e9)

    def _take(self, screen: int) -> None:
        """Record where a screen has changed, in strips of some megabytes."""
        picture = self._captures[screen].take()
        width, height = size = picture.frame.size
        left, top, right, bottom = 0, 0, width, height
        if self._sizes.get(screen) == size:
            if not picture.changed:
                return
            left = min(rect.x for rect in picture.changed)
            top = min(rect.y for rect in picture.changed)
            right = min(width, max(rect.x + rect.width for rect in picture.changed))
            bottom = min(height, max(rect.y + rect.height for rect in picture.changed))
        self._sizes[screen] = size
        rows = max(1, _CHUNK // (PIXEL * (right - left)))
        for first in range(top, bottom, rows):
            last = min(bottom, first + rows)
            pixels = picture.frame.pixels[first:last, left:right].tobytes()
            head = BODY.pack(screen, width, height, left, first, right - left, last - first)
            self._put(record_of(Kind.PICTURE, head + pixels, time=self._now()))

    def _put(self, record: Record) -> None:
        self._write(pack(RECORDS, self._number, b"".join(cut(record))))
        self._number += 1

    def _write(self, data: bytes) -> None:
        self._written += len(data)
        write_all(self._fd, data)


def _nothing() -> None:
    pass
