"""Mesa's Venus driver of this machine, with what it needs, in a folder that containers can mount.

The folder has the driver, which looks for what it needs in `DRIVER_FOLDER` first; the libraries it
needs, under their own names; the Vulkan loader, for images that have none; and `set.json`.  glibc's
own libraries are not in it: a process has one C library, and that is its image's.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from hesper.api.client import venus_library
from hesper.containers.elf import ElfError, Library
from hesper.errors import HesperError, NoVenusError

DRIVER_FOLDER = "/run/hesper-driver"
"""In the container: the manifest, and links to those libraries that the image lacks."""

LOADER = "libvulkan.so.1"

_FILE = "set.json"
_MESA = re.compile(rb"\bMesa (\d{1,4})\.(\d{1,4})\.\d")
_C_LIBRARIES = frozenset(
    f"lib{name}"
    for name in ("c.so.6", "m.so.6", "pthread.so.0", "dl.so.2", "rt.so.1", "resolv.so.2")
)

_OPEN = """
import ctypes, sys
ctypes.CDLL(sys.argv[1])
try:
    ctypes.CDLL(sys.argv[2])
except OSError:
    pass
print(open("/proc/self/maps").read())
"""
"""Opens a driver, and the loader, in a process of its own: where their libraries are is known
then."""


class DriverSetError(HesperError):
    """A Venus driver that cannot be given to containers."""


@dataclass(frozen=True)
class DriverSet:
    """A folder as this module makes it."""

    folder: str
    driver: str
    """File name of Mesa's Venus driver."""
    api_version: str
    """As the driver's manifest has it."""
    libraries: tuple[str, ...]
    """Names of the libraries that it needs, and they in turn."""
    loader: str
    """Name of the Vulkan loader; empty where this machine has none."""

    def library(self, name: str) -> Library:
        """One of its files.  Raises `ElfError` and `OSError`."""
        path = Path(self.folder, name)
        return Library(path.read_bytes(), str(path))


def is_of_glibc(name: str) -> bool:
    """Whether a library of that name comes with the C library."""
    return name in _C_LIBRARIES or name.startswith("ld-linux")


def mesa_version(driver: Library) -> tuple[int, int] | None:
    """Mesa's version, as its driver has it in its strings; None if it says none."""
    found = _MESA.search(driver.data)
    return (int(found[1]), int(found[2])) if found else None


def load_set(folder: Path) -> DriverSet:
    """The set in `folder`.  Raises `DriverSetError`."""
    try:
        content = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        return DriverSet(
            folder=str(folder),
            driver=content["driver"],
            api_version=content["api_version"],
            libraries=tuple(content["libraries"]),
            loader=content["loader"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DriverSetError(
            f"{folder} has no driver for containers: {error}; run hesper cdi generate again"
        ) from None


def make_set(manifest: Path, parent: Path) -> DriverSet:
    """Make a set of the driver of `manifest`, in a folder of `parent` named by what is in it.

    A set that is there already is left as it is: containers may have it mounted.  Raises
    `DriverSetError`.
    """
    try:
        library, api_version = venus_library(manifest)
        files = _needed_files(library)
        contents = {name: Path(path).read_bytes() for name, path in files.items()}
        driver = Path(library).name
        contents[driver] = Library(contents[driver], files[driver]).with_search_path(DRIVER_FOLDER)
    except (NoVenusError, OSError, ElfError) as error:
        raise DriverSetError(f"the Venus driver cannot be given to containers: {error}") from None
    digest = hashlib.sha256()
    for name in sorted(contents):
        digest.update(name.encode() + b"\0" + contents[name])
    made = DriverSet(
        folder=str(parent.absolute() / digest.hexdigest()[:16]),
        driver=driver,
        api_version=api_version,
        libraries=tuple(sorted(set(contents) - {driver, LOADER})),
        loader=LOADER if LOADER in contents else "",
    )
    _write(made, contents)
    return made


def _write(made: DriverSet, contents: dict[str, bytes]) -> None:
    """Write a set's folder, whole or not at all."""
    folder = Path(made.folder)
    if (folder / _FILE).is_file():
        return
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.mkdtemp(prefix=".new-", dir=folder.parent)
        for name, data in contents.items():
            (path := Path(temporary, name)).write_bytes(data)
            path.chmod(0o755)
        (path := Path(temporary, _FILE)).write_text(json.dumps(asdict(made)), encoding="utf-8")
        path.chmod(0o644)
        Path(temporary).chmod(0o755)
        os.rename(temporary, folder)
    except OSError as error:
        raise DriverSetError(
            f"{folder}: cannot be written: {error.strerror}; name another folder (--driver-folder)"
        ) from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _needed_files(driver: str) -> dict[str, str]:
    """Paths, by name, of the driver, of what it needs but glibc's libraries, and of the loader."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", _OPEN, driver, LOADER],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        raise DriverSetError(f"the Venus driver {driver} cannot be opened: {reason}")
    opened: dict[str, str] = {}
    for line in done.stdout.splitlines():
        _, slash, path = line.partition("/")
        if slash and ".so" in path:
            opened.setdefault(_name(f"/{path}"), f"/{path}")
    name = Path(driver).name
    if name not in opened:
        raise DriverSetError(f"the Venus driver {driver} goes by another name than its file's")
    waiting, files = [name], {}
    if LOADER in opened:
        waiting.append(LOADER)
    while waiting:
        name = waiting.pop()
        if name in files or is_of_glibc(name):
            continue
        if name not in opened:
            raise DriverSetError(f"the Venus driver needs {name}, which is not there")
        files[name] = opened[name]
        waiting += Library(Path(files[name]).read_bytes(), files[name]).needed
    return files


def _name(path: str) -> str:
    """The name that others know a library by."""
    try:
        return Library(Path(path).read_bytes(), path).soname or Path(path).name
    except (ElfError, OSError):
        return Path(path).name
