"""Unix sockets that clients connect to: bound by us, or handed over by systemd."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

BACKLOG = 128
_SYSTEMD_FIRST_FD = 3


class ListenError(Exception):
    """There can be no socket; the text says why and what to do."""


class Listener:
    """A listening Unix stream socket, non-blocking.  `close` removes its file if it is ours."""

    def __init__(self, sock: socket.socket, path: str, identity: tuple[int, int] | None) -> None:
        """Use `bind` or `from_systemd`."""
        sock.setblocking(False)
        self.sock = sock
        self.path = path
        self._identity = identity

    def close(self) -> None:
        """Stop listening.  May be called again."""
        if self._identity is not None and _identity(self.path) == self._identity:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
        self._identity = None
        self.sock.close()


def _identity(path: str) -> tuple[int, int] | None:
    """Device and inode of what lies at `path`, if anything does."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def bind(path: str, mode: int = 0o600) -> Listener:
    """Listen on `path`, replacing a socket that nobody listens on any more.

    mode: permissions of the file from its first moment on.
    Raises `ListenError`.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        # Single-threaded here; the file must never be open to others, not even for a moment.
        old = os.umask(~mode & 0o777)
        try:
            sock.bind(path)
        finally:
            os.umask(old)
        identity = _identity(path)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        # "AF_UNIX path too long" has no errno
        raise ListenError(f"cannot listen on {path}: {error.strerror or error}") from error
    except BaseException:
        sock.close()
        raise
    return Listener(sock, path, identity)


def _remove_stale(path: str) -> None:
    """Remove the socket of a server that is gone.  Raises `ListenError` for anything else."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise ListenError(f"cannot listen on {path}: there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # its queue is full: somebody listens, slowly
    raise ListenError(
        f"cannot listen on {path}: a server is running there; stop it, or choose another --socket"
    )


def from_systemd() -> list[Listener]:
    """The sockets systemd has opened for us (LISTEN_FDS), if any.

    Takes the variables out of the environment, so that no child takes them for its own.
    Raises `ListenError` for one that is no listening Unix stream socket.
    """
    count = os.environ.pop("LISTEN_FDS", "0")
    pid = os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    listeners = []
    for fd in range(_SYSTEMD_FIRST_FD, _SYSTEMD_FIRST_FD + int(count)):
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if (sock.family, sock.type, bool(listening)) != (
            socket.AF_UNIX,
            socket.SOCK_STREAM,
            True,
        ):
            raise ListenError(f"descriptor {fd} from systemd is no listening Unix stream socket")
        listeners.append(Listener(sock, str(sock.getsockname()), None))
    return listeners


def notify_systemd(state: str) -> None:
    """Tell systemd our state (`READY=1`), if it wants to know (NOTIFY_SOCKET)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.sendto(state.encode(), address)


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for sockets of our own, with a short path: theirs hold about 100 bytes."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    base = runtime if 0 < len(runtime) < 60 and os.access(runtime, os.W_OK) else "/tmp"
    with tempfile.TemporaryDirectory(prefix="hesper-", dir=base) as folder:
        yield Path(folder)
