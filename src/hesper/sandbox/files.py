"""Which files a worker needs: its own, the system's libraries, the driver's, and a shader cache."""

from __future__ import annotations

import contextlib
import functools
import glob
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hesper.portable import has_memfd
from hesper.sandbox.landlock import Files
from hesper.sandbox.needs import Needs, table
from hesper.sandbox.process import own_files

SHARED_MEMORY = "/dev/shm"
"""Where Linux keeps POSIX shared memory, which is used for tests only."""
LIBRARIES = (
    *("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec"),
    *("/usr/local/lib", "/usr/local/lib64", "/nix/store", "/gnu/store", "/run/opengl-driver"),
)
"""Where programs and libraries lie that come with systems: nothing in them is anybody's own."""
_MANIFESTS = ("VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_ADD_DRIVER_FILES")
_LAYERS = ("VK_LAYER_PATH", "VK_ADD_LAYER_PATH", "VK_IMPLICIT_LAYER_PATH")
_EGL = ("__EGL_VENDOR_LIBRARY_FILENAMES", "__EGL_VENDOR_LIBRARY_DIRS")
"""By which NVIDIA's driver finds a part of itself, also for Vulkan."""
CACHE_BYTES = 1 << 30
"""What a driver is to keep of shaders at most."""
_CACHES = (
    "CUDA_CACHE_PATH",
    "MESA_SHADER_CACHE_DIR",
    "MESA_GLSL_CACHE_DIR",  # its name before Mesa 23.1
    "__GL_SHADER_DISK_CACHE_PATH",
    "AMD_SHADER_DISK_CACHE_PATH",
)
_CACHE_SIZES = {
    "CUDA_CACHE_MAXSIZE": str(CACHE_BYTES),
    "MESA_SHADER_CACHE_MAX_SIZE": f"{CACHE_BYTES >> 20}M",
    "MESA_GLSL_CACHE_MAX_SIZE": f"{CACHE_BYTES >> 20}M",
    "__GL_SHADER_DISK_CACHE_SIZE": str(CACHE_BYTES),
}
_NO_CACHES = {
    "CUDA_CACHE_DISABLE": "1",
    "MESA_SHADER_CACHE_DISABLE": "true",
    "MESA_GLSL_CACHE_DISABLE": "true",
    "__GL_SHADER_DISK_CACHE": "0",
}
_LAYER_FOLDERS = ("explicit_layer.d", "implicit_layer.d")


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where workers' caches of shaders are: folders that no other program reads.

    A guest that has taken over a worker may write what it likes there, and drivers run what they
    find.
    """
    base = environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME") or "/", ".cache")
    return Path(base, "hesper", "shaders")


def cache_variables(folder: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Make drivers keep shaders in a folder, and nowhere else; empty: not at all.

    Also where the user has named another for programs: it is these that would run what a guest has
    left there.
    """
    if not folder:
        return {**dict.fromkeys(_CACHES, os.devnull), **_NO_CACHES}
    sizes = {name: size for name, size in _CACHE_SIZES.items() if name not in environ}
    return {**dict.fromkeys(_CACHES, folder), **sizes}


def needed(needs: Needs, driver: Sequence[str], cache: str = "") -> Files:
    """What may be used.  driver: its manifest and libraries.  cache: the worker's, for shaders."""
    read = [*common(), *_with_folder(driver)]
    write = [*table().files.write]
    write.append(cache)
    if not has_memfd():
        write.append(SHARED_MEMORY)
    for need in needs:
        read += glob.glob(need.read) if need.read else []
        write += glob.glob(need.write) if need.write else []
    return Files(_absolute(read), _absolute(write))


@functools.cache
def common() -> Sequence[str]:
    """What may be read whatever the driver: the same in all processes that are forked from this."""
    environ = os.environ
    read = [*LIBRARIES, *own_files(), *_modules(), *table().files.read]
    read += environ.get("LD_LIBRARY_PATH", "").split(":") + _configured()
    read += environ.get("LD_PRELOAD", "").replace(" ", ":").split(":")
    for name in (*_MANIFESTS, *_EGL):
        read += _drivers(environ.get(name, ""))
    read += [path for name in _LAYERS for path in _layers(environ.get(name, "").split(":"))]
    read += list(_layers(_layer_folders(environ)))
    read.append(environ.get("VK_LAYER_SETTINGS_PATH", ""))
    return [path for path in _absolute(read) if os.path.exists(path)]


def _absolute(paths: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(path for path in paths if path.startswith("/")))


def _modules() -> Iterator[str]:
    """Folders of compiled modules, which a source tree has elsewhere."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and file.endswith((".so", ".dylib")):
            yield os.path.dirname(os.path.realpath(file))


def _configured() -> list[str]:
    """Folders that the dynamic linker is told to search (`ld.so.conf(5)`)."""
    found = []
    for file in ["/etc/ld.so.conf", *glob.glob("/etc/ld.so.conf.d/*.conf")]:
        with contextlib.suppress(OSError):
            lines = Path(file).read_text(encoding="utf-8", errors="replace").split("\n")
            found += [line.strip() for line in lines]
    return [path for path in found if os.path.isabs(path)]


def _with_folder(files: Sequence[str]) -> Iterator[str]:
    """Files, and what lies beside libraries: their own libraries do."""
    for file in files:
        if os.path.isabs(file):
            yield file
            if not file.endswith(".json"):
                yield os.path.dirname(os.path.realpath(file))


def _drivers(places: str) -> Iterator[str]:
    """Manifests that variables name, and their libraries."""
    for place in filter(None, places.split(":")):
        files = glob.glob(f"{place}/*.json") if os.path.isdir(place) else [place]
        yield place
        for file in files:
            yield from _with_folder(_library(file, "ICD"))


def _layer_folders(environ: Mapping[str, str]) -> Iterator[str]:
    """The folders in which the loader searches for layers that users have installed."""
    home = environ.get("HOME") or "/"
    bases = [environ.get("XDG_DATA_HOME") or f"{home}/.local/share", f"{home}/.local/share"]
    bases += [environ.get("XDG_CONFIG_HOME") or f"{home}/.config"]
    for base in (*bases, "/usr/share", "/usr/local/share", "/etc"):
        for folder in _LAYER_FOLDERS:
            yield f"{base}/vulkan/{folder}"


def _layers(folders: Iterator[str] | Sequence[str]) -> Iterator[str]:
    """Manifests of layers, and their libraries."""
    for folder in filter(None, folders):
        yield folder
        for file in glob.glob(f"{folder}/*.json") if os.path.isdir(folder) else [folder]:
            yield from _with_folder(_library(file, "layer"))


def _library(manifest: str, kind: str) -> list[str]:
    """The library that a manifest names, if by a path."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        content = json.loads(Path(manifest).read_text(encoding="utf-8"))
        entries = [content[kind]] if kind in content else content["layers"]
        paths = [entry["library_path"] for entry in entries if "library_path" in entry]
        return [os.path.join(os.path.dirname(manifest), path) for path in paths if "/" in path]
    return []
