"""Writes what a context's tape notes to a file, on a thread of its own."""

from __future__ import annotations

import collections
import os
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import msgspec

from hesper.isolation.recordings import RecordOptions
from hesper.kernel.tape import Tape
from hesper.log import get_logger
from hesper.portable import page_size
from hesper.protocol import summary
from hesper.trace.chunks import ABOUT, MAGIC, RECORDS, pack
from hesper.trace.records import LAYOUTS, About, Kind, put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hesper.isolation.driver import OpenDriver

_log = get_logger(__name__)

try:
    _VERSION = version("hesper")
except PackageNotFoundError:
    _VERSION = ""

PATIENCE_NS = 250_000_000
"""How long at most something is noted before it is in the file."""


def describe(program: str, host: OpenDriver, transport: str, last: float) -> About:
    """What a recording of `program` is of."""
    return About(
        hesper=_VERSION,
        registry=summary().header_version,
        program=program,
        driver=host.driver.name,
        device=host.about["device"],
        profile=host.profile.name if host.profile is not None else "",
        transport=transport,
        started=time.time(),
        page=page_size(),
        last=last,
        records={kind.name: int(kind) for kind in Kind},
        layouts=LAYOUTS,
    )


class Recorder:
    """Records one context, which gets `tape`.

    Life: made, the context made, used and closed, `close`d.
    """

    def __init__(self, files: Sequence[int], about: About, options: RecordOptions) -> None:
        """Record to the first of `files`, which are taken over.

        With `options.last` there must be two: they are written to in turns.  Raises `OSError`.
        """
        self.tape = Tape()
        self._files = list(files)
        self._options = options
        self._start = MAGIC + pack(ABOUT, 0, msgspec.msgpack.encode(about))
        self._number = 1
        self._written = 0
        self._kept: collections.deque[tuple[float, bytes]] = collections.deque()
        self._begun = time.monotonic()
        self._since = self._begun
        self._write(self._start)
        self.tape.written(self._number, self._files[0])
        self.tape.die_with(self._files[0])
        self._thread = threading.Thread(target=self._run, name="recorder")
        self._thread.start()

    def close(self) -> None:
        """Write what is left; returns when it is in the file.  After the context is closed."""
        self.tape.close()
        self._thread.join()
        for fd in self._files:
            os.close(fd)

    def _run(self) -> None:
        """Be the thread that writes."""
        while (data := self.tape.take(PATIENCE_NS)) is not None:
            if not data:
                continue
            try:
                if not self.tape.is_over:
                    self.put(data)
            except OSError as error:
                _log.error("the recording ends here", reason=str(error))
                self.tape.stop()
            self.tape.written(self._number, self._files[0])

    def put(self, data: bytes) -> None:
        """Write one chunk, or why there are no more."""
        now = time.monotonic()
        chunk = pack(RECORDS, self._number, data)
        if self._options.last:
            self._keep(now, chunk)
        elif self._written + len(chunk) > self._options.most:
            self._stop(f"the recording has reached {self._options.most} bytes")
            return
        self._write(chunk)
        self._number += 1
        if self._options.seconds and now - self._begun >= self._options.seconds:
            self._stop(f"the recording has reached {self._options.seconds:g} s")

    def _stop(self, reason: str) -> None:
        self.tape.stop()
        record = put(Kind.END, reason.encode(), time=self.tape.now)
        self._write(pack(RECORDS, self._number, record))
        self._number += 1
        _log.info("the recording ends here", reason=reason)

    def _keep(self, now: float, chunk: bytes) -> None:
        """Keep the last chunks, and begin a file with them where the other has grown old."""
        last = self._options.last
        while self._kept and (now - self._kept[0][0] > last or self._written > self._options.most):
            self._written -= len(self._kept.popleft()[1])
        self._kept.append((now, chunk))
        if now - self._since > 2 * last or self._written > self._options.most:
            self._since = self._kept[0][0]
            self._files.reverse()
            os.ftruncate(self._files[0], 0)
            self._written = 0
            # This chunk is still to be written.
            self._write(self._start + b"".join(old for _, old in list(self._kept)[:-1]))

    def _write(self, data: bytes) -> None:
        self._written += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._files[0], view) :]


def begin(files: Sequence[int], program: str, host: OpenDriver, transport: str) -> Recorder | None:
    """Record a client to `files`, which are taken over; None, and a line of the log, where not."""
    options = host.recording or RecordOptions(folder="")
    try:
        return Recorder(files, describe(program, host, transport, options.last), options)
    except OSError as error:
        _log.error("the client is not recorded", reason=str(error))
        return None
