"""The file system of a container that is about to start, seen from outside of it.

Whoever made the image chose its links: a path is followed within the root, as a program in the
container would, and never leads out of it.  Nothing runs in the container yet; in one that it
shares a volume with something may, and change what is there between two looks (see `inside`).
"""

from __future__ import annotations

import contextlib
from pathlib import Path, PurePosixPath

from hesper.containers.elf import ElfError, Library, machine_of
from hesper.containers.inside import Inside
from hesper.errors import HesperError

MOST_BYTES = 256 << 20
"""Of a library that is read."""

MOST_TEXT = 1 << 20
"""Of any other file: what is made of its text takes thirty times as much."""

MOST_IN_ALL = 2 << 30
"""Bytes that are read of an image."""

_PROGRAMS = ("/bin/sh", "/bin/busybox", "/usr/bin/env")
"""Of which an image has one or another."""

_MOST_FILES = 1000
"""Of a folder that are looked at, and of what names others; and folders of libraries."""


class RootError(HesperError):
    """A container's root that cannot be used as it is."""


class Root:
    """A container's root folder."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        """`folder` is the root on this machine; `environ` is what its programs get.

        Raises `OSError` where there is no such folder.
        """
        self._inside = Inside(folder)
        self.environ = environ
        self._libraries: dict[str, Library | None] = {}
        self._left = MOST_IN_ALL
        self._configurations = 0
        self._folders: dict[str, list[str]] = {}

    def folder(self, path: str | PurePosixPath) -> contextlib.AbstractContextManager[int | None]:
        """A descriptor of one of its folders, to name what is in it by; None if there is none.

        Raises `PathError` for links without end.
        """
        return self._inside.folder(path)

    def read(self, path: str | PurePosixPath) -> bytes | None:
        """What is in the file `path`; None if there is no such file, or it is too large.

        Raises `RootError` where too much has been read of the image.
        """
        return self._read(path, MOST_BYTES)

    def text(self, path: str | PurePosixPath) -> bytes | None:
        """The same of a file that is to be made sense of as a whole."""
        return self._read(path, MOST_TEXT)

    def _read(self, path: str | PurePosixPath, most: int) -> bytes | None:
        fd = self._inside.open_file(path, most)
        if fd is None:
            return None
        with open(fd, "rb") as file:
            data = file.read(most)
        self._left -= len(data)
        if self._left < 0:
            raise RootError(f"{path}: too much would have to be read of the image")
        return data

    def files(self, folder: str | PurePosixPath, suffix: str) -> list[PurePosixPath]:
        """Paths of what lies in `folder` and ends in `suffix`, in order."""
        names = sorted(self._inside.names(folder, _MOST_FILES))
        return [PurePosixPath(folder, name) for name in names if name.endswith(suffix)]

    def has_musl(self) -> bool:
        """Whether its programs are linked with musl."""
        return any(
            path.name.startswith("ld-musl-")
            for folder in ("/lib", "/usr/lib")
            for path in self.files(folder, ".so.1")
        )

    def library_folders(self, machine: str) -> list[str]:
        """Where its dynamic linker looks for libraries, first place first; machine: see `elf`.

        Raises `RootError` for more of them than an image can mean.
        """
        if machine not in self._folders:
            triple = f"{machine}-linux-gnu"
            folders = [each for each in self.environ.get("LD_LIBRARY_PATH", "").split(":") if each]
            folders += self._configured("/etc/ld.so.conf", 0)
            folders += [f"/lib/{triple}", f"/usr/lib/{triple}"]
            folders += ["/lib64", "/usr/lib64", "/lib", "/usr/lib"]
            known = list(dict.fromkeys(each for each in folders if each.startswith("/")))
            if len(known) > _MOST_FILES:
                raise RootError(f"the image has libraries in {len(known)} folders")
            self._folders[machine] = known
        return self._folders[machine]

    def _configured(self, path: str, depth: int) -> list[str]:
        """The folders that /etc/ld.so.conf names."""
        self._configurations += 1
        if self._configurations > _MOST_FILES:
            raise RootError(f"{path}: too many files say where the image has libraries")
        folders: list[str] = []
        text = (self.text(path) or b"").decode("utf-8", "replace")
        for line in text.splitlines()[:_MOST_FILES]:
            words = line.partition("#")[0].split()
            if words[:1] == ["include"] and len(words) == 2 and depth < 3:
                pattern = PurePosixPath("/etc", words[1])
                for file in self.files(pattern.parent, ".conf"):
                    if file.match(str(pattern)):
                        folders += self._configured(str(file), depth + 1)
            elif words:
                folders.append(words[0])
        return folders

    def library(self, name: str, machine: str) -> Library | None:
        """The library its programs get for `name`, if one for that machine is there."""
        if name not in self._libraries:
            self._libraries[name] = self._find(name, machine)
        return self._libraries[name]

    def _find(self, name: str, machine: str) -> Library | None:
        places = [name] if "/" in name else [f"{f}/{name}" for f in self.library_folders(machine)]
        for place in places:
            data = self.read(place)
            if data is None:
                continue
            try:
                library = Library(data, place)
            except ElfError:
                continue  # as the dynamic linker does with what is for another machine
            if library.machine == machine:
                return library
        return None

    def machine(self) -> str | None:
        """What its programs are compiled for, by its shell or dynamic linker; None if unknown."""
        linkers = [
            path
            for folder in ("/lib64", "/lib", "/usr/lib64", "/usr/lib")
            for path in self.files(folder, "")
            if path.name.startswith("ld-")
        ]
        for path in (*map(PurePosixPath, _PROGRAMS), *linkers):
            data = self.read(path)
            machine = None if data is None else machine_of(data)
            if machine is not None:
                return machine
        return None
