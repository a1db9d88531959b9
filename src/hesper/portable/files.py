"""Files in folders where somebody else may put a link in the place of one."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path


def name_beside(path: Path) -> Path:
    """Return a name for what becomes `path` when it is whole: nobody can have put a link at it."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


def set_mode(path: str, mode: int, *, dir_fd: int | None = None) -> None:
    """Set the permissions of what is at `path`, never of what a link there leads to.

    dir_fd: of the folder that `path` begins at.  Raises `OSError`.
    """
    if not hasattr(os, "O_PATH"):
        os.chmod(path, mode, dir_fd=dir_fd, follow_symlinks=False)
        return
    # Linux has a call for it from 6.6 on, and glibc this way from 2.32 on.
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)
