"""Recording guests, and what becomes of recordings."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from hesper.api.options import HostOptions, for_workers
from hesper.errors import HesperError, OptionError
from hesper.extras import needed
from hesper.isolation.recordings import SUFFIX, RecordOptions, last_recording, make_file

if TYPE_CHECKING:
    from hesper.display.scanout import Display
    from hesper.trace.frames import Request
    from hesper.trace.outcome import Outcome  # noqa: TC004  a type
    from hesper.trace.picture import Picture  # noqa: TC004  a type
    from hesper.trace.session import Said  # noqa: TC004  a type

__all__ = [
    "SUFFIX",
    "Outcome",
    "Picture",
    "RecordOptions",
    "Said",
    "ask",
    "attach",
    "check_recording",
    "last_recording",
    "make_request",
    "record_screens",
]


def check_recording() -> None:
    """Raise `errors.MissingExtraError` where recordings cannot be written or read."""
    with needed("recordings", "trace"):
        import zstandard  # noqa: F401


def make_request(what: str, **values: Any) -> Request:
    """A `trace.frames.Request`.  Raises `errors.MissingExtraError`."""
    check_recording()
    import msgspec

    from hesper.trace.frames import Request

    return msgspec.convert({"what": what, **values}, Request)


@contextlib.contextmanager
def record_screens(display: Display, options: RecordOptions) -> Iterator[None]:
    """Record what a machine's screens show, two pictures a second at most, to a file of its own.

    Nothing with `options.last`, or without screens.  Raises `OptionError`.
    """
    if options.last or not len(display):
        yield
        return
    check_recording()
    from hesper.trace.recorder import describe_screens
    from hesper.trace.screens import ScreensRecorder

    fd = make_file(options, "screens")
    try:
        recorder = ScreensRecorder(display, fd, describe_screens(), options)
    except BaseException:
        os.close(fd)
        raise
    with recorder:
        yield


MOST_ATTACHED = 24 << 20
"""Bytes of a recording that goes with a report: what a mail may have."""


def attach(path: Path, to: Path, *, is_anonymous: bool = True) -> dict[str, Any]:
    """Write a copy of a recording beside a report, and say what it is, for JSON.

    is_anonymous: without what tells whose it is.  Where it cannot be written, or would be larger
    than `MOST_ATTACHED`, there is no file, and `left_out` says why.
    """
    about: dict[str, Any] = {"of": path.name, "anonymous": is_anonymous}
    digest, size = hashlib.sha256(), 0
    pieces = _anonymous(path) if is_anonymous else _whole(path)
    try:
        made = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with contextlib.closing(pieces), open(made, "wb") as file:
            for piece in pieces:
                size += len(piece)
                if size > MOST_ATTACHED:
                    raise HesperError(
                        f"it is larger than {MOST_ATTACHED >> 20} MiB: record less, with --last 10s"
                        " or --record-time"
                    )
                file.write(piece)
                digest.update(piece)
    except FileExistsError:
        return about | {"left_out": f"{to.name} is there already"}
    except (OSError, HesperError) as error:
        to.unlink(missing_ok=True)
        return about | {"left_out": str(error)}
    return about | {"file": to.name, "size": size, "sha256": digest.hexdigest()}


def _whole(path: Path) -> Generator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            yield piece


def _anonymous(path: Path) -> Generator[bytes]:
    for said in ask([path], make_request("anonymize"), HostOptions()):
        if said.file is not None:
            yield said.file[1]


def ask(
    paths: Sequence[str | os.PathLike[str]],
    request: Request,
    host: HostOptions,
    *,
    notice: Callable[[str], None] = lambda _: None,
) -> Iterator[Said]:
    """Have recordings, which are hostile, read by a process in its sandbox; what it says of them.

    host: what a recording is replayed on.  notice: is told what is waited for, where that takes
    long.  Raises `errors.HesperError`: above all
    `trace.chunks.RecordingError`, whose text has the offset.
    """
    from hesper.trace import session

    is_replay = request.what == "replay"
    options = for_workers(host) | {"wants_driver": is_replay}
    with ExitStack() as stack:
        files: list[IO[bytes]] = []
        for path in paths:
            try:
                files.append(stack.enter_context(open(path, "rb")))
            except OSError as error:
                raise OptionError("recording", os.fspath(path), str(error.strerror)) from None
        yield from session.ask(
            files,
            request,
            options,
            sandbox=host.sandbox,
            memory=host.limits.total_memory,
            notice=notice,
        )
