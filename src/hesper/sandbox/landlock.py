"""Landlock: which files a process may use, and that it reaches nobody by network or signals.

Numbers and meanings are those of `linux/landlock.h` and of the kernel's document "Landlock:
unprivileged access control"; what a kernel knows goes by its ABI.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hesper.sandbox.system import call

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_FOLDER = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_FOLDER, _REMOVE_FILE, _MAKE_FOLDER, _MAKE_REGULAR = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_REFER, _TRUNCATE, _DEVICE_IOCTL = 1 << 13, 1 << 14, 1 << 15

_READ = _EXECUTE | _READ_FILE | _READ_FOLDER
_WRITE = (
    _READ_FILE | _READ_FOLDER | _WRITE_FILE | _TRUNCATE | _DEVICE_IOCTL
    | _REMOVE_FOLDER | _REMOVE_FILE | _MAKE_FOLDER | _MAKE_REGULAR | _REFER
)  # fmt: skip
_OF_FILES = _EXECUTE | _READ_FILE | _WRITE_FILE | _TRUNCATE | _DEVICE_IOCTL
"""What makes sense for what is no folder."""

_ABI_FILES = {1: (1 << 13) - 1, 2: _REFER, 3: _TRUNCATE, 5: _DEVICE_IOCTL}
"""Rights of files that came with each ABI."""
_ABI_TCP, _TCP = 4, 3
"""LANDLOCK_ACCESS_NET_BIND_TCP, _CONNECT_TCP."""
_ABI_SCOPES, _SCOPES = 6, 3
"""LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, _SIGNAL."""
_VERSION = 1
_PATH_BENEATH = 1


def abi() -> int:
    """Ask the kernel for its ABI.  Raises `OSError`, where it has none or is told not to use it."""
    return call("landlock_create_ruleset", None, 0, _VERSION)


@dataclass(frozen=True)
class Files:
    """Files and folders that may be used; those that are not there are not."""

    read: Sequence[str]
    write: Sequence[str]


def make_rules(files: Files) -> int:
    """Return a descriptor of rules that allow nothing but those files.  Raises `OSError`."""
    version = abi()
    handled = 0
    for since, rights in _ABI_FILES.items():
        handled |= rights if version >= since else 0
    tcp = _TCP if version >= _ABI_TCP else 0
    scopes = _SCOPES if version >= _ABI_SCOPES else 0
    words = 1 + (version >= _ABI_TCP) + (version >= _ABI_SCOPES)
    attributes = struct.pack(f"={words}Q", *(handled, tcp, scopes)[:words])
    rules = call("landlock_create_ruleset", attributes, len(attributes), 0)
    try:
        _allow(rules, files.read, _READ & handled)
        _allow(rules, files.write, _WRITE & handled)
    except BaseException:
        os.close(rules)
        raise
    return rules


def _allow(rules: int, paths: Iterable[str], rights: int) -> None:
    for path in dict.fromkeys(paths):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                is_folder = stat.S_ISDIR(os.fstat(fd).st_mode)
                allowed = rights if is_folder else rights & _OF_FILES
                call("landlock_add_rule", rules, _PATH_BENEATH, struct.pack("=Qi", allowed, fd), 0)
            finally:
                os.close(fd)


def obey(rules: int) -> None:
    """Obey rules from now on, on this thread and those it starts.  Raises `OSError`."""
    call("landlock_restrict_self", rules, 0)
