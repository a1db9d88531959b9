"""Writes what a context's tape notes to a file, on a thread of its own."""

from __future__ import annotations

import os
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import msgspec

from hesper.isolation.recordings import RecordOptions
from hesper.kernel.tape import Tape
from hesper.log import get_logger
from hesper.portable import page_size
from hesper.protocol import summary
from hesper.trace.chunks import ABOUT, MAGIC, RECORDS, RecordingError, pack, write_all
from hesper.trace.decoded import UNREADABLE, codec
from hesper.trace.journal import Journal
from hesper.trace.records import HEAD, LAYOUTS, About, Kind, put

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

_JOURNAL_CHUNK = 8 << 20
"""Bytes of what lives in one chunk; a record more."""


def describe(program: str, host: OpenDriver, transport: str, last: float) -> About:
    """What a recording of `program` is of."""
    return _about(
        program=program,
        driver=host.driver.name,
        device=host.about["device"],
        profile=host.profile.name if host.profile is not None else "",
        transport=transport,
        last=last,
    )


def describe_screens() -> About:
    """What a recording of a machine's screens is of."""
    return _about(program="screens", driver="", device="", transport="virtio-gpu")


def _about(**what: Any) -> About:
    """The same, with what all recordings of this Hesper begin with."""
    return About(
        hesper=_VERSION,
        registry=summary().header_version,
        started=time.time(),
        page=page_size(),
        records={kind.name: int(kind) for kind in Kind},
        layouts=LAYOUTS,
        **what,
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
        self._begun = time.monotonic()
        self._journal = Journal() if options.last else None
        self._young: list[bytes] | None = None
        """What the other file is to begin with: what lived at `_since`, and what has come then."""
        self._since = self._begun
        self._wants_cut = False
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
        try:
            self._write_all()
        except Exception:
            _log.exception("the recording ends here")
            # Nobody makes room any more, for which the client would wait.
            self.tape.stop()

    def _write_all(self) -> None:
        while (data := self.tape.take(PATIENCE_NS)) is not None:
            if not data:
                continue
            try:
                if not self.tape.is_over:
                    self.put(data)
            except (OSError, RecordingError, *UNREADABLE) as error:
                # The client goes on, whatever it has said.
                _log.error("the recording ends here", reason=str(error))
                self.tape.stop()
            self.tape.written(self._number, self._files[0])

    def put(self, data: bytes) -> None:
        """Write one chunk, or why there are no more."""
        now = time.monotonic()
        if self._journal is not None:
            self._put_last(now, data, self._journal)
        else:
            self._add(data)
        if self._options.seconds and now - self._begun >= self._options.seconds:
            self._stop(f"the recording has reached {self._options.seconds:g} s")

    def _add(self, data: bytes) -> None:
        """Write one chunk, or why there are no more."""
        if self.tape.is_over:
            return
        chunk = pack(RECORDS, self._number, data)
        if self._young is not None and self._written + len(chunk) > self._options.most:
            self._begin_anew()
        if self._written + len(chunk) > self._options.most:
            self._stop(f"the recording has reached {self._options.most} bytes")
            return
        self._write(chunk)
        if self._young is not None:
            self._young.append(chunk)
        self._number += 1

    def _put_last(self, now: float, data: bytes, journal: Journal) -> None:
        """Write what is of the last seconds alone, in the end."""
        at = journal.feed(data)
        while at >= 0:
            self._add(data[:at])
            self._cut(now, journal)
            data = data[at:]
            at = journal.feed(data[HEAD.size :])
            at += HEAD.size if at >= 0 else 0
        self._add(data)
        if not self._wants_cut and now - self._since >= self._options.last:
            self._wants_cut = True
            self.tape.want_whole()

    def _cut(self, now: float, journal: Journal) -> None:
        """Have what follows stand alone: what came before the last such place is not needed."""
        if self._young is not None:
            self._begin_anew()
        self._young, held = [], bytearray()
        for record in journal.records():
            held += record
            if len(held) > _JOURNAL_CHUNK:
                self._young.append(pack(RECORDS, len(self._young) + 1, bytes(held)))
                held.clear()
        held += journal.begun()
        self._young.append(pack(RECORDS, len(self._young) + 1, bytes(held)))
        self._number = max(self._number, len(self._young) + 1)
        if sum(map(len, self._young)) > self._options.most:
            self._young = None
        self._since, self._wants_cut = now, False

    def _begin_anew(self) -> None:
        """Write to the other file, which begins later."""
        self._files.reverse()
        os.ftruncate(self._files[0], 0)
        self._written = 0
        self._write(self._start + b"".join(self._young or ()))
        self._young = None

    def _stop(self, reason: str) -> None:
        self.tape.stop()
        record = put(Kind.END, reason.encode(), time=self.tape.now)
        self._write(pack(RECORDS, self._number, record))
        self._number += 1
        _log.info("the recording ends here", reason=reason)

    def _write(self, data: bytes) -> None:
        self._written += len(data)
        write_all(self._files[0], data)


def prepare(options: RecordOptions) -> None:
    """Read what is needed, before the sandbox closes."""
    if options.last:
        codec()


def begin(files: Sequence[int], program: str, host: OpenDriver, transport: str) -> Recorder | None:
    """Record a client to `files`, which are taken over; None, and a line of the log, where not."""
    options = host.recording or RecordOptions(folder="")
    try:
        return Recorder(files, describe(program, host, transport, options.last), options)
    except OSError as error:
        _log.error("the client is not recorded", reason=str(error))
        return None
