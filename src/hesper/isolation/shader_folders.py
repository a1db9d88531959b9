"""Folders in which drivers keep compiled shaders, as they lie on disk.

    ROOT/NAME/files   what workers write to: all that they may of it
    ROOT/NAME/lock    locked by every server whose workers use it; its time is that of the last use
    ROOT/of/KEY       a link to NAME: whose it is.  Without one, a folder is nobody's afterwards
    ROOT/swept        its time is when somebody last looked for what nobody will use

What is in `files` a guest may have made that has taken a worker over: it is measured and removed
here, and never read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hesper.portable import set_mode

MOST_BYTES = 3 << 29
"""Of a folder; drivers are told to take less (`sandbox.files.CACHE_BYTES`)."""
MOST_IN_ALL = 4 << 30
"""Of those together that nobody uses."""
MOST_FOLDERS = 512
OLDEST = 60 * 86400.0
"""Seconds after which a folder goes that nobody has used."""
SWEEP_SECONDS = 3600.0
"""Between two looks for those,"""
SWEEP_AFTER = 64
"""or so many new ones."""
DEEPEST = 8
"""Folders in each other; drivers make two."""
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors for which no folder is to blame."""
_LEAST = 4096
"""Bytes that a file counts at least: else there could be any number of them."""
_NEW = 60.0
"""Seconds in which whoever makes a folder has locked it."""

_NAME = re.compile("[0-9a-f]{32}")
_FILES, _LOCK, _LINKS, _SWEPT, _REFUSE = "files", "lock", "of", "swept", "refuse-"


class ShaderFolders:
    """Those of a user.  Several servers may have the same; from any thread."""

    def __init__(self, root: Path) -> None:
        """Nothing is made before `make`."""
        self.root = root
        self._made = 0

    def find(self, key: str) -> str:
        """Name of the folder that belongs to `key`; empty if there is none."""
        with contextlib.suppress(OSError):
            name = os.readlink(self.root / _LINKS / key)
            if _NAME.fullmatch(name) and (self.root / name).is_dir():
                return name
        return ""

    def make(self) -> str:
        """Make one that is nobody's yet; return its name.  Raises `OSError`."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = secrets.token_hex(16)
        (self.root / name).mkdir(mode=0o700)
        (self.root / name / _FILES).mkdir(mode=0o700)
        (self.root / name / _LOCK).touch(mode=0o600, exist_ok=False)
        self._made += 1
        return name

    def own(self, name: str, key: str) -> bool:
        """Let a folder belong to `key`; whether none did.  Raises `OSError`."""
        links = self.root / _LINKS
        links.mkdir(mode=0o700, exist_ok=True)
        try:
            os.symlink(name, links / key)
        except FileExistsError:
            if self.find(key):
                return False
            (links / key).unlink(missing_ok=True)
            os.symlink(name, links / key)
        return True

    def disown(self, key: str) -> None:
        """Let what belongs to `key` be nobody's."""
        with contextlib.suppress(OSError):
            (self.root / _LINKS / key).unlink()

    def lock(self, name: str) -> int:
        """Take a folder into use for as long as the descriptor is open.

        Raises `OSError` where it is about to be removed, or has been.
        """
        path = self.root / name / _LOCK
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(fd), os.stat(path)):
                raise FileNotFoundError(path)
            os.utime(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def files(self, name: str) -> Path:
        """What a worker may write to."""
        return self.root / name / _FILES

    def used(self, name: str) -> int:
        """Bytes of a folder, more than `MOST_BYTES` for one with folders too deep.

        Raises `OSError` where this process lacks what it takes to look.
        """
        return _used(str(self.files(name)))

    def remove(self, name: str, *, locked: bool = False) -> None:
        """Remove a folder that nobody uses; nothing where somebody does.  Raises `OSError`.

        locked: the caller has its lock alone.
        """
        if locked:
            self._remove(name)
            return
        with self._alone(name) as fd:
            if fd >= 0:
                self._remove(name)

    def _remove(self, name: str) -> None:
        refuse = f"{_REFUSE}{secrets.token_hex(8)}"
        os.rename(self.root / name, self.root / refuse)
        _empty(self.root / refuse)

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[int]:
        """A descriptor of the folder's lock, which nobody else has; -1 where somebody does."""
        try:
            fd = os.open(self.root / name / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            yield -1
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            yield -1
            return
        try:
            yield fd
        finally:
            os.close(fd)

    def sweep(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """Remove what nobody will use: leftovers, what is old, the oldest of what is too much.

        Nothing where that was done a short time ago.  is_over: whether to leave the rest.  Raises
        `OSError`.
        """
        if not self._is_due():
            return
        owned = self._owned()
        rest: list[tuple[float, int, str]] = []
        for name in os.listdir(self.root):
            if is_over():
                return
            if _NAME.fullmatch(name):
                self._sweep(name, name in owned, rest)
            elif name not in {_LINKS, _SWEPT}:  # of an older Hesper's, or left by a removal
                _empty(self.root / name)
        total = 0
        for place, (_, size, name) in enumerate(sorted(rest, reverse=True)):
            total += size
            if (total > MOST_IN_ALL or place >= MOST_FOLDERS) and not is_over():
                self.remove(name)
        for key in os.listdir(self.root / _LINKS) if owned else ():
            if not self.find(key):
                self.disown(key)

    def _is_due(self) -> bool:
        """Whether it is time to look; nobody else then does for a while."""
        mark = self.root / _SWEPT
        with contextlib.suppress(FileNotFoundError):
            is_recent = 0 <= time.time() - mark.stat().st_mtime < SWEEP_SECONDS
            if is_recent and self._made < SWEEP_AFTER:
                return False
        self._made = 0
        if self.root.is_dir():
            mark.touch(mode=0o600)
            return True
        return False

    def _sweep(self, name: str, is_owned: bool, rest: list[tuple[float, int, str]]) -> None:
        """Remove a folder that is nobody's or old; add others to `rest`, unless they are in use."""
        folder = self.root / name
        with self._alone(name) as fd, contextlib.suppress(FileNotFoundError):
            now = time.time()
            if fd >= 0:
                last = os.fstat(fd).st_mtime
                if now - last > (OLDEST if is_owned else _NEW):
                    self._remove(name)
                else:
                    rest.append((last, self.used(name), name))
            elif not (folder / _LOCK).exists() and now - folder.stat().st_mtime > _NEW:
                _empty(folder)

    def _owned(self) -> set[str]:
        """Names of folders that belong to somebody."""
        found = set()
        with contextlib.suppress(OSError):
            for key in os.listdir(self.root / _LINKS):
                with contextlib.suppress(OSError):
                    found.add(os.readlink(self.root / _LINKS / key))
        return found

    def count(self) -> tuple[int, int]:
        """How many folders there are, and their bytes."""
        names = self.list()
        return len(names), sum(map(self.used, names))

    def list(self) -> list[str]:
        """Their names."""
        with contextlib.suppress(OSError):
            return [name for name in os.listdir(self.root) if _NAME.fullmatch(name)]
        return []


def _used(top: str) -> int:
    try:
        return _used_in(top, None, MOST_BYTES, 0)
    except FileNotFoundError:
        return 0


def _used_in(name: str, parent: int | None, most: int, depth: int) -> int:
    """Bytes of what is in the folder `name` of another, and below; more than `most` is enough.

    Raises `FileNotFoundError` where it is gone.
    """
    if depth > DEEPEST:
        return most + 1
    try:
        # Its maker may put a link in its place, or in that of a folder above, at any time.
        how = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, how, dir_fd=parent)
    except OSError as error:
        if error.errno in _OURS or isinstance(error, FileNotFoundError):
            raise
        return most + 1  # no driver makes what cannot be looked into
    size = 0
    try:
        for bytes_, inner in _entries(fd, most):
            size += bytes_
            if inner and size <= most:
                with contextlib.suppress(FileNotFoundError):  # meanwhile
                    size += _used_in(inner, fd, most - size, depth + 1)
            if size > most:
                break
    finally:
        os.close(fd)
    return size


def _entries(fd: int, most: int) -> Iterator[tuple[int, str]]:
    """Bytes of what is in a folder, and the name if it is a folder; until it is more than most."""
    with os.scandir(fd) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                about = entry.stat(follow_symlinks=False)
                found = max(about.st_blocks * 512, _LEAST)
                yield found, entry.name if stat.S_ISDIR(about.st_mode) else ""
                most -= found
            if most < 0:
                return


def _empty(path: Path) -> None:
    """Remove a file, or a folder and what is in it, however deep.

    What is in a folder of a folder moves up before its own turn comes: names stay short, and no
    more is open or kept in mind than one of them.
    """
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            path.unlink()
            return
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        while names := os.listdir(top):
            for name in names:
                _remove_one(top, name)
    finally:
        os.close(top)
    path.rmdir()


def _remove_one(top: int, name: str) -> None:
    """Remove what is in `top` by that name; what a folder has in it comes into `top`."""
    if not stat.S_ISDIR(os.lstat(name, dir_fd=top).st_mode):
        os.unlink(name, dir_fd=top)
        return
    set_mode(name, 0o700, dir_fd=top)  # to be looked into, and to be moved
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        with os.scandir(fd) as inner:
            for entry in inner:
                if entry.is_dir(follow_symlinks=False):
                    set_mode(entry.name, 0o700, dir_fd=fd)
                    os.rename(entry.name, secrets.token_hex(16), src_dir_fd=fd, dst_dir_fd=top)
                else:
                    os.unlink(entry.name, dir_fd=fd)
    finally:
        os.close(fd)
    with contextlib.suppress(OSError):  # else in the next round: more was in it than was told
        os.rmdir(name, dir_fd=top)
