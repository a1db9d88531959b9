"""Driver manifests: where they lie and what they say.

The search order is the one of the Vulkan loader's document "Driver interface to the Vulkan Loader"
(sections "Driver Discovery on Linux" and "on macOS"), followed by the folders where Homebrew and
the LunarG SDK put MoltenVK and KosmicKrisp, which the loader finds only with their own variables
set.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_SUFFIX = Path("vulkan", "icd.d")

EXTRA_PREFIXES = ("/opt/homebrew/share", "/opt/homebrew/etc", "/usr/local/etc")
"""Folders besides the loader's own: Homebrew on Apple Silicon, Homebrew on Intel."""

SDK_FOLDERS = ("share", "macOS/share", "etc")
"""Where an SDK's manifests lie below its own folder."""


class ManifestError(Exception):
    """A manifest that cannot be used; the text says which and why."""


@dataclass(frozen=True)
class Manifest:
    """What one driver manifest says."""

    path: Path
    library_path: str
    """Absolute path of the driver, or a bare name that dlopen searches for."""
    api_version: str
    """Vulkan version the driver was built for, as written there: `1.4.305`."""
    is_portability: bool


def manifest_paths(environ: Mapping[str, str]) -> list[Path]:
    """Every manifest there is, in the loader's order; each file once.

    `VK_DRIVER_FILES` (or its older name `VK_ICD_FILENAMES`) replaces the search, and
    `VK_ADD_DRIVER_FILES` goes in front of it.  Each may name files and folders.
    """
    only = environ.get("VK_DRIVER_FILES") or environ.get("VK_ICD_FILENAMES")
    if only:
        places = _split(only)
    else:
        places = _split(environ.get("VK_ADD_DRIVER_FILES", "")) + search_folders(environ)
    found: dict[Path, Path] = {}
    for place in places:
        files = sorted(place.glob("*.json")) if place.is_dir() else [place]
        for file in files:
            # A folder that is not there is normal; a named file that is not there is an error,
            # which reading it reports.
            if file.suffix == ".json" or file.is_file():
                found.setdefault(file.resolve(), file)
    return list(found.values())


def search_folders(environ: Mapping[str, str]) -> list[Path]:
    """Folders that hold manifests, most important first; most of them do not exist."""
    home = Path(environ.get("HOME") or "/")
    prefixes = [Path(environ.get("XDG_CONFIG_HOME") or home / ".config")]
    prefixes += _split(environ.get("XDG_CONFIG_DIRS") or "/etc/xdg")
    prefixes += [Path("/usr/local/etc"), Path("/etc")]
    prefixes += [Path(environ.get("XDG_DATA_HOME") or home / ".local/share")]
    prefixes += _split(environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share")
    prefixes += [home / ".local/share", Path("/usr/local/share"), Path("/usr/share")]
    prefixes += [Path(prefix) for prefix in EXTRA_PREFIXES]
    for sdk in _sdk_roots(environ, home):
        prefixes += [sdk / folder for folder in SDK_FOLDERS]
    return [prefix / _SUFFIX for prefix in dict.fromkeys(prefixes)]


def _sdk_roots(environ: Mapping[str, str], home: Path) -> list[Path]:
    """Folders of LunarG SDKs: the one in use, then those below ~/VulkanSDK, newest first."""
    roots = _split(environ.get("VULKAN_SDK", ""))
    installed = home / "VulkanSDK"
    if installed.is_dir():
        roots += sorted(
            (folder for folder in installed.iterdir() if folder.is_dir()),
            key=lambda folder: [
                int(part) if part.isdigit() else 0 for part in folder.name.split(".")
            ],
            reverse=True,
        )
    return roots


def _split(paths: str) -> list[Path]:
    """The paths of a colon-separated list."""
    return [Path(path).expanduser() for path in paths.split(":") if path]


def read_manifest(path: Path) -> Manifest:
    """Read one manifest and check that its library is there.

    Raises `ManifestError`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such file") from None
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ManifestError(f"{path}: no valid JSON: {error}") from None
    icd = content.get("ICD") if isinstance(content, dict) else None
    if not isinstance(icd, dict):
        raise ManifestError(f'{path}: no driver manifest: it has no "ICD" object')
    library = icd.get("library_path")
    version = icd.get("api_version")
    if not isinstance(library, str) or not library or not isinstance(version, str):
        raise ManifestError(f'{path}: "library_path" or "api_version" is missing')
    if icd.get("library_arch", "64") != "64":
        raise ManifestError(f"{path}: the driver is for {icd['library_arch']}-bit programs")
    if "/" in library:
        resolved = (path.parent / library).resolve()
        if not resolved.is_file():
            # The manifest may be a link to where it was installed.
            resolved = (path.resolve().parent / library).resolve()
        if not resolved.is_file():
            raise ManifestError(f"{path}: its library is missing: {resolved}")
        library = str(resolved)
    return Manifest(path, library, version, icd.get("is_portability_driver") is True)
