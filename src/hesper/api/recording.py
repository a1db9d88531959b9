"""Recording guests, and what becomes of recordings."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any

from hesper.api.options import HostOptions, for_workers
from hesper.errors import OptionError
from hesper.extras import needed
from hesper.isolation.recordings import SUFFIX, RecordOptions, make_file

if TYPE_CHECKING:
    from hesper.display.scanout import Display
    from hesper.trace.frames import Request
    from hesper.trace.picture import Picture  # noqa: TC004  a type
    from hesper.trace.replay import Outcome  # noqa: TC004  a type
    from hesper.trace.session import Said  # noqa: TC004  a type

__all__ = [
    "SUFFIX",
    "Outcome",
    "Picture",
    "RecordOptions",
    "Said",
    "ask",
    "check_recording",
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


def ask(
    paths: Sequence[str | os.PathLike[str]], request: Request, host: HostOptions
) -> Iterator[Said]:
    """Have recordings, which are hostile, read by a process in its sandbox; what it says of them.

    host: what a recording is replayed on.  Raises `errors.HesperError`: above all
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
            files, request, options, sandbox=host.sandbox, memory=host.limits.total_memory
        )
