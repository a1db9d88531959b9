"""Files that workers record their clients into: made here, as a worker can open none.

A worker gets the descriptor with its client.  It may write there whatever it likes, and nowhere
else; nothing that it has written is read here.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hesper.errors import OptionError
from hesper.isolation.cache_key import state_folder
from hesper.log import get_logger

if TYPE_CHECKING:
    from hesper.isolation.worker_process import WorkerProcess

_log = get_logger(__name__)

SUFFIX = ".hesper"
DEFAULT_MOST = 4 << 30
_LAST = "last-recording"
"""In the state folder: the path of the last one."""


class RecordOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is recorded of each client, and where."""

    folder: str
    """Where the files are made, one a client."""
    last: float = 0.0
    """Keep what happened in about so many last seconds, and that only where the client ends badly;
    0: everything."""
    most: int = DEFAULT_MOST
    """Bytes of a file; what would follow is left out."""
    seconds: float = 0.0
    """Record for so long; 0: to the end."""


def make_file(options: RecordOptions, of: str) -> int:
    """Make a file, and the folder, for what the process itself records: its descriptor.

    Raises `OptionError`.
    """
    folder = Path(options.folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(folder / _name(of), _FLAGS, 0o600)
    except OSError as error:
        raise OptionError("record", options.folder, f"must be a folder: {error}") from None


def _name(of: object) -> str:
    return f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}-{of}{SUFFIX}"


_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_APPEND


class Recordings:
    """The files of the workers that serve."""

    def __init__(self, options: RecordOptions) -> None:
        """Make the folder.  Raises `OptionError` where it cannot be used."""
        self._options = options
        self._folder = Path(options.folder)
        self._files: dict[int, list[Path]] = {}
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OptionError("record", options.folder, f"must be a folder: {error}") from None
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise OptionError("record", options.folder, "must be a folder that can be written to")

    def begin(self, client: int) -> list[int]:
        """Make the files of a client; their descriptors, none where that fails."""
        name = _name(client)
        paths = [self._folder / name]
        if self._options.last:
            paths.append(self._folder / f".{name}.other")
        fds: list[int] = []
        try:
            for path in paths:
                fds.append(os.open(path, _FLAGS, 0o600))  # noqa: PERF401  some are to be closed
        except OSError as error:
            _log.error("a client is not recorded", client=client, reason=str(error))
            for fd, path in zip(fds, paths, strict=False):
                os.close(fd)
                path.unlink(missing_ok=True)
            return []
        self._files[client] = paths
        return fds

    def end(self, worker: WorkerProcess) -> None:
        """Settle what becomes of the files of a worker that has ended."""
        paths = self._files.pop(worker.client, None)
        if paths is None:
            return
        path, *others = paths
        is_bad = bool(worker.reason or worker.crash or worker.killed or worker.process.returncode)
        with contextlib.suppress(OSError):
            for other in others:
                # The worker has written to the one or the other last.
                if is_bad and other.stat().st_mtime_ns > path.stat().st_mtime_ns:
                    other.replace(path)
                else:
                    other.unlink()
            if self._options.last and not is_bad:
                path.unlink()
                return
            worker.log.info("recorded", file=str(path), size=path.stat().st_size)
            _remember(path)


def _remember(path: Path) -> None:
    """Keep where this user's last recording is."""
    with contextlib.suppress(OSError, RuntimeError):
        note = state_folder() / _LAST
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = note.with_name(f"{_LAST}.{os.getpid()}")
        part.write_bytes(os.fsencode(path.resolve()))
        part.replace(note)


def last_recording() -> Path | None:
    """The last recording of this user's that is still there."""
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        path = Path(os.fsdecode((state_folder() / _LAST).read_bytes()))
        if path.suffix == SUFFIX and path.is_file():
            return path
    return None
