"""Paths of a folder that somebody else may change meanwhile, followed without ever leaving it.

Each step is made from a descriptor of the folder before, and follows no link by itself: a link's
text is read, and its parts are steps in turn.  So it is one and the same folder that is looked at
and that is used, whatever its name leads to by then.  (The kernel's `openat2` with
RESOLVE_IN_ROOT does the same in one call, from Linux 5.6 on; this needs nothing but POSIX.)
"""

from __future__ import annotations

import contextlib
import os
import stat
import weakref
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from hesper.errors import HesperError

_MOST_LINKS = 40
_MOST_DEPTH = 100
"""Folders in each other: a descriptor each."""

_LOOK = getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC
"""Opens what is there and not what a link leads to; where the system can, for no more than to name
it: opening a device for reading may have it do something."""

_ODD = (OSError, ValueError)
"""What looking for something raises that is not there."""


class PathError(HesperError):
    """A path that leads nowhere, though it is there."""


class Inside:
    """A folder, by a descriptor that it holds as long as it is there itself."""

    def __init__(self, folder: Path) -> None:
        """Raises `OSError` where there is no such folder."""
        self._top = os.open(folder, _LOOK & ~os.O_NOFOLLOW | os.O_DIRECTORY)
        weakref.finalize(self, os.close, self._top)

    @contextlib.contextmanager
    def folder(self, path: str | PurePosixPath) -> Iterator[int | None]:
        """A descriptor of a folder, to name what is in it by; None if there is none.

        Raises `PathError` for links without end.
        """
        with _Walk(self._top) as walk:
            fd = None
            with contextlib.suppress(*_ODD):
                name = walk.to(path)
                fd = walk.enter(name)
            yield fd

    def open_file(self, path: str | PurePosixPath, most: int) -> int | None:
        """Open a file of some bytes, so many at most: its descriptor; None if there is none.

        Empty ones are none: those of the kernel say that they are, and may have no end.
        Raises `PathError` for links without end.
        """
        with _Walk(self._top) as walk, contextlib.suppress(*_ODD):
            name = walk.to(path)
            found = os.open(name, _LOOK | os.O_NONBLOCK, dir_fd=walk.here)
            try:
                status = os.fstat(found)
                if stat.S_ISREG(status.st_mode) and 0 < status.st_size <= most:
                    return os.open(f"/dev/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
            finally:
                os.close(found)
        return None

    def names(self, path: str | PurePosixPath, most: int) -> list[str]:
        """Names of what lies in a folder, so many at most; none if there is no such folder.

        Raises `PathError` for links without end.
        """
        with self.folder(path) as fd, contextlib.suppress(*_ODD):
            if fd is not None:
                reading = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
                try:
                    with os.scandir(reading) as entries:
                        return [each.name for each, _ in zip(entries, range(most), strict=False)]
                finally:
                    os.close(reading)
        return []


class _Walk(contextlib.ExitStack):
    """The folders from the top to where a path has led so far."""

    def __init__(self, top: int) -> None:
        super().__init__()
        self._folders = [top]
        self.callback(self._up_to, 1)

    @property
    def here(self) -> int:
        return self._folders[-1]

    def to(self, path: str | PurePosixPath) -> str:
        """Go to the folder of what `path` leads to; its name there, which was no link."""
        waiting = list(reversed(PurePosixPath(path).parts))
        links = 0
        while waiting:
            part = waiting.pop()
            if part == "/":
                self._up_to(1)
            elif part == "..":
                # Where it has come from: a folder may have been moved since.
                self._up_to(max(1, len(self._folders) - 1))
            elif (text := self._link(part)) is not None:
                links += 1
                if links > _MOST_LINKS:
                    raise PathError(f"{path}: too many links in the image")
                waiting += reversed(PurePosixPath(text).parts)
            elif waiting:
                self.enter(part)
            else:
                return part
        return "."

    def enter(self, name: str) -> int:
        """Go to a folder of this one, which is no link; its descriptor."""
        if len(self._folders) > _MOST_DEPTH:
            raise PathError(f"{name}: too many folders in each other in the image")
        self._folders.append(os.open(name, _LOOK | os.O_DIRECTORY, dir_fd=self.here))
        return self.here

    def _link(self, name: str) -> str | None:
        """Where a link leads; None for what is none.  Raises `OSError` where there is nothing."""
        if stat.S_ISLNK(os.lstat(name, dir_fd=self.here).st_mode):
            return os.readlink(name, dir_fd=self.here)
        return None

    def _up_to(self, count: int) -> None:
        while len(self._folders) > count:
            os.close(self._folders.pop())
