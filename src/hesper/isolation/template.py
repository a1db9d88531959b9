"""The process that workers are forked from, see `isolation.launch`.

Run as `python -m hesper.isolation.template FD SERVICE SANDBOX`.  It imports what workers of the
module SERVICE need and then does what comes over the socket FD, until that is closed:
  f, b    with a socket       fork a worker that has this control socket; b: in the background
  l       with a pipe         load the libraries whose paths are in there, with zeros between them
and answers in lines of JSON:
  {"pid": N}                  with an `exit_watch`: it runs
  {"pid": 0, "problem": T}    it could not be forked
  {"pid": N, "status": S}     it has ended; S is negative for a signal
  {"without": T}              workers have no namespaces of their own, and why

Nothing here may open a driver or start a thread: a fork would have half of either.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
from importlib import import_module
from typing import TYPE_CHECKING, cast

from hesper.isolation import start, worker  # noqa: F401  for the workers
from hesper.portable import exit_watch, never_garbage, raise_descriptor_limit, threads
from hesper.sandbox.template import enclose

if TYPE_CHECKING:
    from hesper.sandbox import Mode

_MAX_ORDERS = 64


class ForkedError(BaseException):
    """Raised in a fork, which is a worker: to leave everything that is the template's."""

    def __init__(self, fd: int, *, background: bool) -> None:
        """fd: the worker's control socket."""
        super().__init__()
        self.fd = fd
        self.background = background


def serve(control: socket.socket) -> None:
    """Fork workers until the supervisor is gone.  Raises `ForkedError` in each of them."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    running: dict[int, int] = {}  # process ids by exit watch
    while True:
        for fd, _ in poll.poll():
            if fd != control.fileno():
                poll.unregister(fd)
                _report(control, running.pop(fd))
                os.close(fd)
                continue
            try:
                orders, fds, _, _ = socket.recv_fds(control, _MAX_ORDERS, _MAX_ORDERS)
            except ConnectionError:
                return
            if not orders:
                return
            for order, client in zip(orders, fds, strict=True):
                if order == ord("l"):
                    _load(client)
                    continue
                watch = _fork(control, client, running, background=order == ord("b"))
                if watch >= 0:
                    poll.register(watch, select.POLLIN)


def _load(names: int) -> None:
    """Load libraries that drivers use: what that makes of memory, all forks have in common."""
    with open(names, encoding="utf-8") as file:
        for name in filter(None, file.read().split("\0")):
            with contextlib.suppress(OSError):  # each worker will say so
                ctypes.CDLL(name)
    if threads() != 1:
        raise SystemExit("a library starts threads when it is loaded: there can be no forks")


def _fork(control: socket.socket, client: int, running: dict[int, int], *, background: bool) -> int:
    """Fork a worker; return its exit watch, -1 when there is none."""
    try:
        pid = os.fork()
    except OSError as error:
        os.close(client)
        _say(control, {"pid": 0, "problem": f"cannot fork a worker: {error.strerror}"})
        return -1
    if pid == 0:
        # A process group of its own, as `portable.spawn` has it.
        os.setpgid(0, 0)
        control.close()
        for fd in running:
            os.close(fd)
        raise ForkedError(client, background=background)
    os.close(client)
    watch = exit_watch(pid)
    if watch < 0:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        _say(control, {"pid": 0, "problem": "no descriptor for a worker"})
        return -1
    running[watch] = pid
    _say(control, {"pid": pid}, [watch])
    return watch


def _report(control: socket.socket, pid: int) -> None:
    """Tell how a worker has ended."""
    _, status = os.waitpid(pid, 0)
    _say(control, {"pid": pid, "status": os.waitstatus_to_exitcode(status)})


def _say(control: socket.socket, message: dict[str, object], fds: list[int] | None = None) -> None:
    # Where the supervisor is gone, `serve` will notice.
    with contextlib.suppress(OSError):
        socket.send_fds(control, [json.dumps(message).encode() + b"\n"], fds or [])


def main() -> None:
    """Be the template, and in its forks a worker."""
    fd = int(sys.argv[1])
    raise_descriptor_limit()
    try:
        preload = getattr(import_module(sys.argv[2]), "preload", None)
        if preload is not None:
            preload()
    except Exception:
        # A worker that imports it itself says what is wrong.
        raise SystemExit(1) from None
    if threads() != 1:
        raise SystemExit(f"{sys.argv[2]} starts threads when it is imported: it cannot be forked")
    # What is there now is never garbage; looking at it would only copy pages in each fork.
    never_garbage()
    try:
        control = socket.socket(fileno=fd)
        enclose(cast("Mode", sys.argv[3]), lambda why: _say(control, {"without": why}))
        serve(control)
        return
    except ForkedError as forked:
        work = forked
    how = [sys.argv[3], *(["background"] if work.background else [])]
    sys.argv = [start.__file__, str(work.fd), *how]
    start.main()


if __name__ == "__main__":
    main()
