"""The key of the host's user, with which pipeline caches are signed (`guest.pipeline_cache`).

Whoever starts workers reads it and hands it to them: a worker itself may see no files.
"""

from __future__ import annotations

import functools
import os
import secrets
import stat
from pathlib import Path

from hesper.log import get_logger
from hesper.portable import name_beside

SIZE = 32
"""Bytes."""
_MODE = 0o600

_log = get_logger(__name__)


def state_folder() -> Path:
    """Where what outlives a run is kept, by the XDG base directory specification."""
    named = Path(os.environ.get("XDG_STATE_HOME", ""))
    base = named if named.is_absolute() else Path.home() / ".local" / "state"
    return base / "hesper"


@functools.cache
def cache_key() -> bytes:
    """The user's key, made when it is needed first.

    Where it cannot be kept, it is good as long as this process: guests then begin with empty caches
    each time.
    """
    path = state_folder() / "cache.key"
    try:
        return _read(path) or _make(path)
    except (OSError, RuntimeError) as error:
        _log.info("pipeline caches will not outlive this server", reason=str(error))
        return secrets.token_bytes(SIZE)


def _read(path: Path) -> bytes | None:
    """The key that is kept there; None where there is none, or one that others know."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:
        about = os.fstat(fd)
        key = file.read(SIZE + 1)
    is_private = about.st_uid == os.geteuid() and not stat.S_IMODE(about.st_mode) & 0o077
    if is_private and len(key) == SIZE:
        return key
    _log.warning("another key is made: others could read the old one, or it is damaged", path=path)
    path.unlink()
    return None


def _make(path: Path) -> bytes:
    """Make a key there, unless somebody else does at the same time."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = secrets.token_bytes(SIZE)
    new = name_beside(path)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    try:
        with open(fd, "wb") as file:
            file.write(key)
        try:
            os.link(new, path)
        except FileExistsError:
            return _read(path) or key
        return key
    finally:
        new.unlink()
