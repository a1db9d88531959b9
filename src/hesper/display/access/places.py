"""Where a server of screens listens: a host and a port, or a Unix socket."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from hesper.isolation import listen
from hesper.isolation.listen import Access

__all__ = [
    "Access",
    "Address",
    "Place",
    "Sockets",
    "UnixPath",
    "is_asked_here",
    "is_local",
    "listen_on",
    "parse_place",
    "resolve",
]

BACKLOG = 128
UNIX = "unix:"
ANY_HOST = frozenset({"", "0.0.0.0", "::"})
"""Stand for every address of this machine; nobody can connect to them by these names."""


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, default: Address) -> Address:
        """Parse `HOST:PORT`, `HOST`, `:PORT` or `PORT`.  Raises `ValueError`."""
        host, separator, port = text.rpartition(":")
        if not separator:
            host, port = (default.host, text) if text.isdecimal() else (text, str(default.port))
        elif not host:
            host = default.host
        if not host or not port.isdecimal() or int(port) > 0xFFFF:
            raise ValueError(f"{text!r} is no address: say HOST:PORT, HOST or PORT")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        """As in an URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixPath:
    """A socket in a folder, which only its owner can connect to."""

    path: Path

    def __str__(self) -> str:
        """As on the command line."""
        return f"{UNIX}{self.path}"


Place: TypeAlias = Address | UnixPath


def parse_place(text: str, default: Address) -> Place:
    """Parse `unix:PATH`, or what `Address.parse` takes.  Raises `ValueError`."""
    if text.startswith(UNIX):
        path = text.removeprefix(UNIX)
        if not path:
            raise ValueError(f"{text!r} is no socket: say {UNIX}PATH")
        return UnixPath(Path(path).absolute())
    return Address.parse(text, default)


class Sockets:
    """Listening sockets, and what has to be removed when they are closed."""

    def __init__(self, sockets: list[socket.socket], file: listen.Listener | None = None) -> None:
        """Use `listen_on`."""
        self.sockets = sockets
        self._file = file

    @property
    def port(self) -> int:
        """The port of the first; 0 for a Unix socket."""
        name = self.sockets[0].getsockname()
        return int(name[1]) if isinstance(name, tuple) else 0

    @property
    def path(self) -> Path | None:
        """Where a Unix socket's file lies."""
        return Path(self._file.path) if self._file is not None else None

    def move(self, path: Path) -> None:
        """Have a Unix socket's file lie there; who has connected stays.  Raises `OSError`."""
        if self._file is not None:
            Path(self._file.path).rename(path)
            self._file.path = str(path)

    def close(self) -> None:
        """Stop listening."""
        for sock in self.sockets:
            sock.close()
        if self._file is not None:
            self._file.close()


def resolve(host: str) -> list[tuple[socket.AddressFamily, str]]:
    """Return the addresses that `host` stands for.  Raises `ValueError` when there are none."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        message = f"host {host!r} cannot be resolved: {error}"
        raise ValueError(message) from error
    return list(dict.fromkeys((entry[0], str(entry[4][0])) for entry in found))


def is_local(place: Place) -> bool:
    """Tell whether only this machine can connect to `place`.

    Raises `ValueError` when its host cannot be resolved.
    """
    if isinstance(place, UnixPath):
        return True
    return all(ipaddress.ip_address(host).is_loopback for _, host in resolve(place.host))


def is_asked_here(place: Address, host: str) -> bool:
    """Tell whether an HTTP request's `Host` is a name that only this machine has for `place`.

    The owner of any other name can have it lead to this machine, and a page that a browser has got
    from there read what is here as if it were its own (DNS rebinding).  Ports are not compared: a
    tunnel has another.
    """
    with contextlib.suppress(ValueError):
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        if name in {"localhost", place.host.lower()} or name.endswith(".localhost"):
            return True
        return ipaddress.ip_address(name).is_loopback
    return False


def listen_on(
    place: Place,
    *,
    local: bool,
    access: Access = Access(),  # noqa: B008  immutable
) -> Sockets:
    """Listen on `place`, and with `local` on nothing that others can reach.

    access: who may connect to a Unix socket; its owner alone unless something else is said.

    Raises `OSError` when it is taken, `ListenError` for a Unix socket, `ValueError` for a host
    that cannot be resolved or is not local after all.
    """
    if isinstance(place, UnixPath):
        file = listen.bind(str(place.path), access)
        return Sockets([file.sock], file)
    sockets: list[socket.socket] = []
    port = place.port
    try:
        for family, host in resolve(place.host):
            # A name's addresses may change after anybody has looked: what is bound counts.
            if local and not ipaddress.ip_address(host).is_loopback:
                raise ValueError(f"{place.host} is {host}, which others can reach")
            sock = socket.create_server((host, port), family=family, backlog=BACKLOG)
            sock.setblocking(False)
            sockets.append(sock)
            port = port or sock.getsockname()[1]
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return Sockets(sockets)
