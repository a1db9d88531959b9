"""Vulkan drivers of this host: what is installed, what works, which one to use."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hesper.errors import NoDriverError
from hesper.host.loader import driver_environment, find_loader
from hesper.host.manifests import Manifest, ManifestError, manifest_paths, read_manifest
from hesper.host.ranking import best_driver, obstacle, rank
from hesper.host.seen import MemorySeen  # noqa: TC001 -- msgspec reads the annotation

GUEST_DRIVERS = {
    "virtio": "Venus is the guest's side: it would send Hesper's work back to Hesper",
    "gfxstream_vk": "gfxstream is the guest's side of another protocol",
}
"""Drivers that only make sense in a guest, by name, and why."""

_GUEST_DRIVER_IDS = {22}
"""VkDriverId of drivers that only make sense in a guest: MESA_VENUS."""

_FITTING_DRIVER_IDS = {4}
"""VkDriverId of drivers that fit themselves to an application: NVIDIA_PROPRIETARY."""

_ALIASES = {
    "lavapipe": "lvp",
    "llvmpipe": "lvp",
    "radv": "radeon",
    "anv": "intel",
    "kosmickrisp": "kosmickrisp_mesa",
}
"""What people call drivers whose manifests are named otherwise."""


_DEVICE = re.compile(r"(.+)#([0-9]{1,3})")
"""A driver, and one of its devices."""


@dataclass(frozen=True)
class Device:
    """One physical device, as the driver describes it."""

    name: str
    """What the driver calls it."""
    type: str
    """VkPhysicalDeviceType in words: `discrete`, `integrated`, `virtual`, `cpu`, `other`."""
    api_version: str
    """Version of Vulkan that it offers, as in `1.4.305`."""
    driver_id: int
    """VkDriverId; 0 where the driver does not say."""
    driver_name: str
    """What the driver calls itself, as `llvmpipe`."""
    driver_info: str
    """Its version, in its own words."""
    is_portability: bool
    """Whether it offers `VK_KHR_portability_subset`."""
    imports_host_memory: bool
    """Whether it offers `VK_EXT_external_memory_host`."""
    index: int = 0
    """Its place in the driver's own order."""
    memory: MemorySeen | None = None
    """What its memory was seen to be able to do; None where no device of it could be made."""
    conformance: str = ""
    """Version of the conformance tests it passes; empty where it says none."""
    features: tuple[str, ...] = ()
    """What it has of the features that `describe` looks for."""

    @property
    def is_software(self) -> bool:
        """Whether the processor does the drawing."""
        return self.type == "cpu"


@dataclass(frozen=True)
class Driver:
    """A driver that is installed.  `devices` is filled in by a probe."""

    name: str
    """Short name, made from the manifest's: `lvp`, `radeon`, `moltenvk`."""
    manifest: str
    """Path of the manifest."""
    library_path: str
    """The driver's own library."""
    api_version: str
    """Version of Vulkan that the manifest names."""
    is_portability: bool
    """Whether the manifest says that it leaves out parts of Vulkan."""
    library: str
    """What to dlopen: the Vulkan loader, or the driver itself where there is no loader."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables to set before `library` is opened."""
    devices: tuple[Device, ...] = ()
    """Its physical devices, best first."""
    only: int | None = None
    """The one device that guests are shown, by its `index`; None: all."""
    problem: str = ""
    """Why it cannot be used; empty when it can, or has not been probed."""

    @property
    def is_guest(self) -> bool:
        """Whether it only makes sense in a guest."""
        return self.name in GUEST_DRIVERS or any(
            device.driver_id in _GUEST_DRIVER_IDS for device in self.devices
        )

    @property
    def keeps_first_application(self) -> bool:
        """Whether the application of a process's first instance decides how it treats all of them.

        NVIDIA's driver 580 does: dispatches of `ggml-vulkan` take 0.8 us more on the GPU when an
        instance without a name came before.
        """
        return any(device.driver_id in _FITTING_DRIVER_IDS for device in self.devices)

    @property
    def is_software(self) -> bool:
        """Whether it was probed and has no device but the processor."""
        return bool(self.devices) and all(device.is_software for device in self.devices)

    @property
    def notice(self) -> str:
        """What a user should be told about this choice; empty when there is nothing."""
        if not self.devices:
            return ""
        why = obstacle(self.devices[0])
        if why:
            return f"no guest can be served: {self.devices[0].name} {why}"
        if not self.is_software:
            return ""
        return (
            f"no GPU is used: {self.devices[0].name} draws on the processor (driver {self.name});"
            " `hesper doctor` says why"
        )


@dataclass(frozen=True)
class Discovery:
    """What a search has found."""

    drivers: tuple[Driver, ...]
    broken: tuple[str, ...]
    """Manifests that cannot be used, one line each: path and reason."""


def find_drivers(environ: Mapping[str, str] = os.environ) -> Discovery:
    """Find installed drivers by their manifests.  No driver is opened."""
    drivers: list[Driver] = []
    broken: list[str] = []
    for path in manifest_paths(environ):
        try:
            manifest = read_manifest(path)
        except ManifestError as error:
            broken.append(str(error))
            continue
        drivers.append(_driver(manifest, {driver.name for driver in drivers}, environ))
    return Discovery(tuple(drivers), tuple(broken))


def _driver(manifest: Manifest, taken: set[str], environ: Mapping[str, str]) -> Driver:
    """Describe the driver of `manifest`; its name is not in `taken`."""
    base = manifest.path.name.split(".")[0].lower().removesuffix("_icd")
    name, number = base, 2
    while name in taken:
        name, number = f"{base}-{number}", number + 1
    return Driver(
        name=name,
        manifest=str(manifest.path),
        library_path=manifest.library_path,
        api_version=manifest.api_version,
        is_portability=manifest.is_portability,
        library=find_loader() or manifest.library_path,
        environment=driver_environment(manifest.path, manifest.library_path, environ),
    )


def choose_driver(name: str | None = None, *, environ: Mapping[str, str] = os.environ) -> Driver:
    """The driver to serve guests with, probed.

    name: a driver's name (`lvp`, `moltenvk`), what its device or driver calls itself (`lavapipe`,
    `radv`), or the path of a manifest; `#` and a number after it takes that device alone, by its
    place in the driver's own order.  None takes the best one, see `ranking`.
    Raises `NoDriverError`.
    """
    from hesper.host.probe import probe_drivers

    if name is not None and (of_one := _DEVICE.fullmatch(name)) is not None:
        return _with_device(choose_driver(of_one[1], environ=environ), int(of_one[2]))
    if name is not None and (name.endswith(".json") or "/" in name):
        return _from_manifest(Path(name), environ)
    found = find_drivers(environ)
    if name is not None:
        return _by_name(name, found, environ)
    probed = probe_drivers([driver for driver in found.drivers if not driver.is_guest], environ)
    best = best_driver(probed)
    if best is None:
        guests = [driver for driver in found.drivers if driver.is_guest]
        raise NoDriverError(explain([*probed, *guests], found.broken))
    return best


def _with_device(driver: Driver, index: int) -> Driver:
    """The same with one of its devices alone.  Raises `NoDriverError`."""
    found = tuple(device for device in driver.devices if device.index == index)
    if not found:
        known = ", ".join(
            f"#{device.index} ({device.name})"
            for device in sorted(driver.devices, key=lambda each: each.index)
        )
        raise NoDriverError(f"driver {driver.name} has no device #{index}; there are {known}")
    return replace(driver, devices=found, only=index)


def _from_manifest(path: Path, environ: Mapping[str, str]) -> Driver:
    """The driver of one manifest, probed."""
    try:
        manifest = read_manifest(path)
    except ManifestError as error:
        raise NoDriverError(f"driver {error}") from None
    return _checked(_driver(manifest, set(), environ), environ)


def _by_name(name: str, found: Discovery, environ: Mapping[str, str]) -> Driver:
    """The installed driver that answers to `name`, probed."""
    from hesper.host.probe import probe_drivers

    wanted = name.lower()
    for driver in found.drivers:
        if driver.name in {wanted, _ALIASES.get(wanted)}:
            return _checked(driver, environ)
    for driver in probe_drivers([each for each in found.drivers if not each.is_guest], environ):
        if any(wanted in {d.driver_name.lower(), d.name.lower()} for d in driver.devices):
            return driver
    known = ", ".join(driver.name for driver in found.drivers if not driver.is_guest) or "none"
    raise NoDriverError(f"no driver answers to {name!r}; installed: {known}")


def _checked(driver: Driver, environ: Mapping[str, str]) -> Driver:
    """`driver` with its devices; raises `NoDriverError` when it cannot serve."""
    from hesper.host.probe import probe_drivers

    if driver.is_guest:
        raise NoDriverError(_refusal(driver))
    probed = probe_drivers([driver], environ)[0]
    if probed.is_guest:
        raise NoDriverError(_refusal(probed))
    if probed.problem:
        raise NoDriverError(f"driver {probed.name} ({probed.manifest}): {probed.problem}")
    return probed


def _refusal(driver: Driver) -> str:
    why = GUEST_DRIVERS.get(driver.name, GUEST_DRIVERS["virtio"])
    return f"driver {driver.name} ({driver.manifest}) cannot serve guests: {why}"


def explain(drivers: Sequence[Driver], broken: Sequence[str]) -> str:
    """Say why none of `drivers`, which were probed, can be used."""
    lines = ["no Vulkan driver can be used on this host; `hesper doctor` says what to install"]
    guests = [driver for driver in drivers if driver.is_guest]
    others = [driver for driver in drivers if not driver.is_guest]
    lines += [f"  {driver.name} ({driver.manifest}): {driver.problem}" for driver in others]
    lines += [f"  {driver.name} ({driver.manifest}): for guests only" for driver in guests]
    lines += [f"  {line}" for line in broken]
    return "\n".join(lines)


def sort_devices(driver: Driver, devices: Sequence[Device]) -> Driver:
    """`driver` with `devices`, best first."""
    ordered = sorted(devices, key=rank, reverse=True)
    return replace(driver, devices=tuple(ordered))
