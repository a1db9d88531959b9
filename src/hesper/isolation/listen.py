"""Unix sockets that clients connect to: bound by us, or handed over by who has bound them."""

from __future__ import annotations

import contextlib
import os
import socket
import stat

from hesper.errors import ListenError

BACKLOG = 128


class Listener:
    """A listening Unix stream socket, non-blocking.  `close` removes its file if it is ours."""

    def __init__(self, sock: socket.socket, path: str, identity: tuple[int, int] | None) -> None:
        """Use `bind` or `adopt`."""
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

    mode: permissions of the file before anybody can connect.
    Raises `ListenError`.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        sock.bind(path)
        identity = _identity(path)
        # Nobody can connect before `listen`.  The umask, which would do as well, is the process's.
        os.chmod(path, mode)
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
        f"cannot listen on {path}: a server is running there; stop it, or choose another path"
    )


def adopt(sock: socket.socket) -> Listener:
    """Listen on a socket that somebody else has bound; its file stays when it is closed.

    Raises `ListenError` for one that is no listening Unix stream socket.
    """
    listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if (sock.family, sock.type, bool(listening)) != (socket.AF_UNIX, socket.SOCK_STREAM, True):
        raise ListenError(f"descriptor {sock.fileno()} is no listening Unix stream socket")
    return Listener(sock, str(sock.getsockname()), None)
