"""Programs on this machine as clients: Mesa's Venus driver, and the variables that lead to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from hesper.errors import NoVenusError
from hesper.host.manifests import ManifestError, read_manifest, search_folders


def find_venus(
    named: str | os.PathLike[str] | None = None, environ: Mapping[str, str] = os.environ
) -> Path:
    """The manifest of Mesa's Venus driver: the one `named`, or the first installed.

    Raises `errors.NoVenusError`.
    """
    if named is not None:
        candidates = [Path(named)]
    else:
        folders = search_folders(environ)
        candidates = [path for folder in folders for path in sorted(folder.glob("virtio*.json"))]
    problems = []
    for path in candidates:
        try:
            return read_manifest(path).path
        except ManifestError as error:
            problems.append(f"\n  {error}")
    raise NoVenusError(
        "no Venus driver is installed, which programs need to reach Hesper."
        " Install Mesa's: mesa-vulkan-drivers (Debian, Ubuntu, Fedora), vulkan-virtio (Arch),"
        " mesa-vulkan-virtio (Alpine); or name its manifest (--venus)" + "".join(problems)
    )


def venus_library(manifest: Path) -> tuple[str, str]:
    """The library that the manifest of a Venus driver names, and the `api_version` that it states.

    The library is an absolute path, or a name that dlopen searches for.  Raises
    `errors.NoVenusError`.
    """
    try:
        found = read_manifest(manifest)
    except ManifestError as error:
        raise NoVenusError(str(error)) from None
    return found.library_path, found.api_version


def client_environment(
    manifest: Path, socket: str, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Variables, for `environ`, that make a program's Vulkan go to the server on `socket`.

    manifest: of Mesa's Venus driver, see `find_venus`.
    """
    # A program hears from vkAllocateMemory itself that there is no memory.
    perf = _with_word(environ.get("VN_PERF", ""), "no_async_mem_alloc")
    return {
        "VK_DRIVER_FILES": str(manifest),
        "VK_ICD_FILENAMES": str(manifest),  # loaders before 1.3.207
        "VN_DEBUG": _with_word(environ.get("VN_DEBUG", ""), "vtest"),
        "VN_PERF": perf,
        "VTEST_SOCKET_NAME": os.path.abspath(socket),
        # Memory of ours is no dma-buf, which is what a window system would want by itself.
        "MESA_VK_WSI_DEBUG": environ.get("MESA_VK_WSI_DEBUG", "sw"),
    }


def _with_word(words: str, word: str) -> str:
    """A list with commas, with `word` in it."""
    found = [each for each in words.split(",") if each]
    return ",".join(found if word in found else [*found, word])
