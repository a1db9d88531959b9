"""Unix sockets that clients connect to: bound by us, or handed over by who has bound them."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import Literal, NamedTuple

from hesper.errors import ListenError
from hesper.portable import accept, hang_up, set_mode

BACKLOG = 128


class Access(NamedTuple):
    """Who may connect."""

    mode: int = 0o600
    """Permissions of the socket's file, before anybody can connect."""
    group: int | None = None
    """Its group; None: as the system has it."""


class Handed(NamedTuple):
    """A listening socket that one server hands to the next."""

    path: str
    kind: str
    """Name of the class of its clients, if it has one."""
    identity: tuple[int, int] | None
    """Device and inode of its file, if that is the server's; None for one it was given itself."""
    sock: socket.socket


class Listener:
    """A listening Unix stream socket, non-blocking.  `close` removes its file if it is ours."""

    def __init__(
        self,
        sock: socket.socket,
        path: str,
        identity: tuple[int, int] | None,
        access: Access = Access(),  # noqa: B008  immutable
        kind: str = "",
    ) -> None:
        """Use `bind` or `adopt`.  kind: name of the class of its clients, if it has one."""
        sock.setblocking(False)
        self.sock = sock
        self.path = path
        self._identity = identity
        self._access = access
        self.kind = kind

    @property
    def is_ours(self) -> bool:
        """Whether we have made the file, and not closed it."""
        return self._identity is not None

    def leads_to(self) -> Literal["us", "nothing", "another"]:
        """Where the path leads."""
        found = _identity(self.path)
        if found is None:
            return "nothing"
        return "us" if found == self._identity else "another"

    def bind_again(self) -> socket.socket:
        """Listen on the path anew, which leads nowhere; returns the socket that it led to.

        Raises `ListenError`.
        """
        new = bind(self.path, self._access)
        old = self.sock
        self.sock, self._identity = new.sock, _identity(self.path)
        return old

    def handed(self) -> Handed:
        """The same socket for another server, by a descriptor of its own; this one goes on."""
        return Handed(self.path, self.kind, self._identity, self.sock.dup())

    def own(self, identity: tuple[int, int] | None, access: Access) -> None:
        """Have the file from now on, which another server has made; with this access.

        A file that is no longer that one is left alone.  Raises `OSError`.
        """
        self._access = access
        if identity is None or _identity(self.path) != identity:
            return
        self._identity = identity
        if access.group is not None:
            os.chown(self.path, -1, access.group, follow_symlinks=False)
        set_mode(self.path, access.mode)

    def close(self, *, keeps_file: bool = False) -> None:
        """Stop listening.  May be called again.

        keeps_file: another server has the socket, and its file.
        """
        is_there = self._identity is not None and _identity(self.path) == self._identity
        if is_there and not keeps_file:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
        if self._identity is not None and not keeps_file:
            _turn_away(self.sock)
        self._identity = None
        self.sock.close()


def _turn_away(sock: socket.socket) -> None:
    """Hang up on those who have connected and were not let in."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
        while True:
            hang_up(accept(sock))


def _identity(path: str) -> tuple[int, int] | None:
    """Device and inode of what lies at `path`, if anything does."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def bind(
    path: str,
    access: Access = Access(),  # noqa: B008  immutable
    kind: str = "",
) -> Listener:
    """Listen on `path`, replacing a socket that nobody listens on any more.

    Its folder is made if it is missing, and then only those may enter it who may connect.
    Raises `ListenError`.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _make_folder(os.path.dirname(path), access)
        _remove_stale(path)
        sock.bind(path)
        identity = _identity(path)
        # Nobody can connect before `listen`.  The umask, which would do as well, is the process's.
        # A container that has the folder for writing may have put a link there by now.
        set_mode(path, access.mode)
        if access.group is not None:
            os.chown(path, -1, access.group, follow_symlinks=False)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        # Python says so itself, without a number: the system is not asked.
        length = f"{len(os.fsencode(path))} bytes are too long for a socket's path: choose another"
        raise ListenError(f"cannot listen on {path}: {error.strerror or length}") from error
    except BaseException:
        sock.close()
        raise
    return Listener(sock, path, identity, access, kind)


def _make_folder(path: str, access: Access) -> None:
    """Make a folder that those may enter who may connect, unless there is one.

    Nobody else may write in it: who can, can put a socket in the place of ours.
    """
    if os.path.isdir(path or "."):
        return
    os.mkdir(path, 0o700)
    if access.group is not None:
        os.chown(path, -1, access.group, follow_symlinks=False)
    entry = (0o050 if access.mode & 0o070 else 0) | (0o005 if access.mode & 0o007 else 0)
    set_mode(path, 0o700 | entry)


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


def adopt(sock: socket.socket, kind: str = "") -> Listener:
    """Listen on a socket that somebody else has bound; its file stays when it is closed.

    Raises `ListenError` for one that is no listening Unix stream socket.
    """
    listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if (sock.family, sock.type, bool(listening)) != (socket.AF_UNIX, socket.SOCK_STREAM, True):
        raise ListenError(f"descriptor {sock.fileno()} is no listening Unix stream socket")
    return Listener(sock, str(sock.getsockname()), None, kind=kind)
