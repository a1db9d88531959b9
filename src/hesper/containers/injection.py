"""What a container needs of this machine's Venus driver, and whether it works there.

An image that has a Venus driver keeps it.  One that has none gets this machine's, with those of the
libraries it needs that the image lacks, or has too old; the image's C library must have all that
they want of it.  Where it would not work, the container does not start, and is told why.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from hesper.containers.driver_set import DRIVER_FOLDER, DriverSet, is_of_glibc, mesa_version
from hesper.errors import HesperError

if TYPE_CHECKING:
    from hesper.containers.elf import Library
    from hesper.containers.rootfs import Root

HOST_FOLDER = "/run/hesper-host"
"""In the container: the `DriverSet`, mounted read-only."""

MANIFEST = f"{DRIVER_FOLDER}/venus.json"
"""In the container: what VK_DRIVER_FILES names."""

VENUS_MINIMUM = (24, 0)
"""Mesa's first version with a Venus that is worth using."""

MANIFEST_FOLDERS = tuple(
    f"{prefix}/vulkan/icd.d"
    for prefix in ("/usr/local/etc", "/etc", "/usr/local/share", "/usr/share")
)
"""Where the Vulkan loader looks for drivers, besides a user's own folders."""

_ADVICE = (
    "install Mesa 24.0 or newer in the image: mesa-vulkan-drivers (Debian, Ubuntu, Fedora),"
    " vulkan-virtio (Arch), mesa-vulkan-virtio (Alpine)"
)


class InjectionError(HesperError):
    """A container in which the driver cannot work; the text says why, and what can be done."""

    def __init__(self, reason: str) -> None:
        """Why not."""
        super().__init__(
            f"the image has no Venus driver that can be used, and this machine's cannot work in"
            f" it: {reason}; {_ADVICE}"
        )


@dataclass(frozen=True)
class Plan:
    """What a container gets."""

    manifest: dict[str, Any]
    """The driver manifest that its programs use."""
    links: dict[str, str] = field(default_factory=dict)
    """Links to make, by path in the container: what the image lacks."""
    summary: str = ""
    """What is done, in a sentence."""


def plan(root: Root, found: DriverSet) -> Plan:
    """What the container with that root gets.  Raises `InjectionError`."""
    driver = found.library(found.driver)
    machine = root.machine()
    own = _own_driver(root, driver.machine if machine is None else machine)
    if own is not None:
        return own
    if machine is None and root.library("libc.so.6", driver.machine) is None:
        raise InjectionError("it has neither a shell nor a dynamic linker that Hesper knows")
    if machine not in (None, driver.machine):
        raise InjectionError(f"it is for {machine}, the driver for {driver.machine}")
    if root.library("libc.so.6", driver.machine) is None:
        kind = "its C library is musl" if root.has_musl() else "it has no C library"
        raise InjectionError(f"{kind}, and the driver needs glibc")
    placed = _lacking(root, found, driver)
    links = {f"{DRIVER_FOLDER}/{name}": f"{HOST_FOLDER}/{name}" for name in placed}
    loader = root.library(_loader_name(found), driver.machine)
    if loader is None:
        if not found.loader:
            raise InjectionError(
                f"it has no Vulkan loader ({_loader_name(found)}), nor has this machine"
            )
        placed[found.loader] = found.library(found.loader)
        # Where the C library is, the dynamic linker looks for others, too.
        links[f"{_folder_of_libc(root, driver)}/{found.loader}"] = f"{HOST_FOLDER}/{found.loader}"
    _check_glibc(root, [(found.driver, driver), *placed.items()], driver.machine)
    manifest = {
        "file_format_version": "1.0.0",
        "ICD": {
            "library_path": f"{HOST_FOLDER}/{found.driver}",
            "api_version": found.api_version,
        },
    }
    also = f", with {', '.join(sorted(placed))}" if placed else ""
    return Plan(manifest, links, f"gets this machine's Venus driver{also}")


def _own_driver(root: Root, machine: str) -> Plan | None:
    """A plan that uses the image's own Venus driver, if it has one that is new enough."""
    for folder in MANIFEST_FOLDERS:
        for path in root.files(folder, ".json"):
            if not path.name.startswith("virtio"):
                continue
            try:
                icd = json.loads(root.text(path) or b"")["ICD"]
                name, version = str(icd["library_path"]), str(icd["api_version"])
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
            if "/" in name:
                name = str(PurePosixPath(path).parent / name)
            library = root.library(name, machine)
            if library is None or (mesa_version(library) or VENUS_MINIMUM) < VENUS_MINIMUM:
                continue
            icd = {"library_path": name, "api_version": version}
            manifest = {"file_format_version": "1.0.0", "ICD": icd}
            return Plan(manifest, summary=f"has a Venus driver, {path}, and keeps it")
    return None


def _lacking(root: Root, found: DriverSet, driver: Library) -> dict[str, Library]:
    """Libraries that the image lacks, or that lack there what the driver needs of them."""
    libraries = {name: found.library(name) for name in found.libraries}
    wanted = {symbol for each in (driver, *libraries.values()) for symbol in each.wanted}
    placed = {}
    for name, library in libraries.items():
        there = root.library(name, driver.machine)
        used = [symbol for symbol in wanted if library.provides(symbol)]
        if there is None or not all(map(there.provides, used)):
            placed[name] = library
    return placed


def _check_glibc(root: Root, libraries: Iterable[tuple[str, Library]], machine: str) -> None:
    """Raise `InjectionError` unless the image's glibc has all that `libraries` want of one."""
    for name, library in libraries:
        for file, versions in library.wanted_versions.items():
            if not is_of_glibc(file):
                continue
            there = root.library(file, machine)
            lacking = versions - (there.versions if there else frozenset())
            if lacking:
                newest = max(lacking, key=_version)
                raise InjectionError(
                    f"its glibc is too old (up to {_newest_glibc(root, machine)}): {name} needs"
                    f" {newest}"
                )


def _newest_glibc(root: Root, machine: str) -> str:
    there = root.library("libc.so.6", machine)
    known = [name for name in (there.versions if there else ()) if _version(name)]
    return max(known, key=_version, default="of no version")


def _version(name: str) -> tuple[int, ...]:
    """`GLIBC_2.34` as numbers; empty for what is no number, as GLIBC_PRIVATE."""
    try:
        return tuple(map(int, name.removeprefix("GLIBC_").split(".")))
    except ValueError:
        return ()


def _folder_of_libc(root: Root, driver: Library) -> str:
    for folder in root.library_folders(driver.machine):
        if folder not in root.environ.get("LD_LIBRARY_PATH", "").split(":") and root.read(
            f"{folder}/libc.so.6"
        ):
            return folder
    raise InjectionError("its C library is in no folder where a Vulkan loader can be put")


def _loader_name(found: DriverSet) -> str:
    return found.loader or "libvulkan.so.1"
