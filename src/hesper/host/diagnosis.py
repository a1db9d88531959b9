"""What `hesper doctor` finds out: one function a topic, each with findings and how to mend them."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hesper.errors import NoDriverError, first_words
from hesper.host.drivers import GUEST_DRIVERS, Driver, choose_driver, find_drivers
from hesper.host.loader import find_loader
from hesper.host.probe import probe_drivers
from hesper.host.ranking import obstacle, why_lost
from hesper.portable import SharedMemory, architecture, has_memfd, is_translated, page_size, system
from hesper.vk.version import make_version, version_text

OK = "ok"
NOTE = "note"
"""Works, or is not needed for everything; worth knowing."""
BROKEN = "broken"
"""Hesper cannot serve like this."""

VENUS_MINIMUM = (24, 0)
"""Mesa before this has no Venus worth using."""
GUEST_PAGE = 4096
"""What a guest's pages are as a rule."""
QEMU_MINIMUM = (11, 1)
"""The first QEMU with `vhost-user-test-device-pci` and shared-memory maps."""
PROGRAM_SECONDS = 120.0
"""For another program to say its version; emulated, QEMU has taken more than twenty."""

_DEVICES = Path("/dev")
_CARDS = Path("/sys/class/drm")
_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}
_DRIVERS = {"NVIDIA": ("nvidia", "nouveau"), "AMD": ("radeon", "amd"), "Intel": ("intel",)}
"""How the manifests of their drivers begin."""


@dataclass(frozen=True)
class Finding:
    """One thing found out."""

    topic: str
    """What it is about, as `host driver`."""
    status: str
    """`ok`, `note` (works, or is not needed for everything) or `broken`."""
    text: str
    """What was found, perhaps in lines."""
    mend: str = ""
    """The command that mends it, or what to do where no command can; empty where all is well."""


Check = Callable[[Mapping[str, str]], Iterator[Finding]]
_CHECKS: list[Check] = []


def _check(function: Check) -> Check:
    """Register a topic; they run in the order in which they stand here."""
    _CHECKS.append(function)
    return function


def diagnose(environ: Mapping[str, str] = os.environ) -> list[Finding]:
    """Look at everything Hesper needs on this machine."""
    return [finding for check in _CHECKS for finding in check(environ)]


def install_command(*, apt: str, brew: str = "", pacman: str = "", dnf: str = "") -> str:
    """The command that installs something here; empty when no known package manager has it."""
    sudo = "" if os.geteuid() == 0 else "sudo "
    managers = (
        ("apt-get", f"{sudo}apt-get install {apt}", apt),
        ("dnf", f"{sudo}dnf install {dnf or apt}", dnf or apt),
        ("pacman", f"{sudo}pacman -S {pacman or apt}", pacman or apt),
        ("brew", f"brew install {brew}", brew),
    )
    for program, command, packages in managers:
        if packages and shutil.which(program):
            return command
    return ""


@_check
def _machine(_: Mapping[str, str]) -> Iterator[Finding]:
    """The machine itself: pages and shared memory."""
    simulated = "" if page_size() == mmap.PAGESIZE else f" (simulated; really {mmap.PAGESIZE})"
    text = (
        f"{system()} {architecture()}, Python {platform.python_version()},"
        f" {os.cpu_count()} processors, pages of {page_size()} bytes{simulated}"
    )
    if is_translated():
        mend = "/opt/homebrew/bin/brew install python   (then install Hesper with that Python)"
        text += "; this Python is for Intel Macs and runs under Rosetta, Hesper does not"
        yield Finding("machine", BROKEN, text, mend)
    else:
        yield Finding("machine", OK, text)
    try:
        SharedMemory.create(1 << 20, "hesper-doctor").close()
    except OSError as error:
        yield Finding(
            "shared memory",
            BROKEN,
            f"cannot be made: {error}",
            "make /dev/shm larger, or leave HESPER_SHARED_MEMORY unset",
        )
        return
    memfd = has_memfd()
    room = ""
    if not memfd and os.path.isdir("/dev/shm"):
        room = f", {shutil.disk_usage('/dev/shm').free >> 20} MiB free in /dev/shm"
    yield Finding("shared memory", OK, ("memfd" if memfd else "POSIX shm_open") + room)


@_check
def _guest_pages(_: Mapping[str, str]) -> Iterator[Finding]:
    """What guests need on a host whose pages are larger than most of theirs."""
    if page_size() > GUEST_PAGE:
        text = (
            f"virtual machines get Venus with a kernel before 7.2 that has pages of {page_size()}"
            " bytes (Debian 13's linux-image-arm64-16k), or with Linux 7.2 and Mesa 26.2.4; others"
            " would have no Vulkan at all with it: where their pages are seen to be smaller, it is"
            " withheld, and --no-blob-alignment has Linux 7.2 do as older ones"
        )
        yield Finding("guests' pages", NOTE, text)


@_check
def _loader(_: Mapping[str, str]) -> Iterator[Finding]:
    """The Vulkan loader."""
    loader = find_loader()
    if loader is None:
        mend = install_command(
            apt="libvulkan1", brew="vulkan-loader", pacman="vulkan-icd-loader", dnf="vulkan-loader"
        )
        yield Finding("Vulkan loader", NOTE, "not found; drivers are opened directly", mend)
        return
    version = ctypes.c_uint32(make_version(1, 0))
    ctypes.CDLL(loader).vkEnumerateInstanceVersion(ctypes.byref(version))
    yield Finding("Vulkan loader", OK, f"{loader}, Vulkan {version_text(version.value)}")


@_check
def _host_driver(environ: Mapping[str, str]) -> Iterator[Finding]:
    """The driver that guests would be served with."""
    only = environ.get("VK_DRIVER_FILES") or environ.get("VK_ICD_FILENAMES")
    if only:
        yield Finding("driver search", NOTE, f"restricted by the environment to {only}")
    for broken in find_drivers(environ).broken:
        yield Finding("manifest", NOTE, broken, f"remove or repair {broken.split(': ')[0]}")
    try:
        driver = choose_driver(environ=environ)
    except NoDriverError as error:
        details = str(error).partition("\n")[2]
        text = f"none can be used\n{details}" if details else "none is installed"
        yield Finding("host driver", BROKEN, text, _driver_mend(environ))
        return
    device = driver.devices[0]
    text = f"{driver.name}: {device.name} ({device.type}), Vulkan {device.api_version}"
    if device.driver_info:
        text += f", {device.driver_info}"
    if driver.is_software:
        yield from _why_software(text, environ)
    else:
        yield Finding("host driver", OK, text)
    why = obstacle(device)
    if why:
        yield Finding(
            "host memory",
            BROKEN,
            f"{driver.name} {why}",
            "update the driver, or choose another with --driver (`hesper drivers` lists them)",
        )
    usable = [each for each in find_drivers(environ).drivers if not each.is_guest]
    for other in probe_drivers(usable, environ) if len(usable) > 1 else ():
        if other.manifest != driver.manifest and (lost := why_lost(other, driver)):
            yield Finding("other driver", OK, f"{other.name}: not chosen, it {lost}")


def _driver_mend(environ: Mapping[str, str]) -> str:
    """How to get some driver, where the one that always works is not there yet."""
    if any(driver.name in {"lvp", "moltenvk"} for driver in find_drivers(environ).drivers):
        return ""
    return install_command(
        apt="mesa-vulkan-drivers",
        brew="molten-vk",
        pacman="vulkan-swrast",
        dnf="mesa-vulkan-drivers",
    )


def _why_software(text: str, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Tell a machine without a GPU from one whose GPU is not used."""
    nodes = [*sorted(_DEVICES.glob("dri/renderD*")), *sorted(_DEVICES.glob("nvidia[0-9]"))]
    cards = _graphics_cards()
    text = f"software only: {text}"
    if not nodes and not cards:
        yield Finding("host driver", NOTE, f"{text}; this machine shows no GPU")
        return
    closed = [str(node) for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if closed:
        group = Path(closed[0]).group()
        yield Finding(
            "host driver",
            NOTE,
            f"{text}, because {', '.join(closed)} may not be opened",
            f"sudo usermod -aG {group} $USER   (then log in again)",
        )
        return
    text = f"{text}, although there is a GPU ({', '.join(cards) or nodes[0]})"
    prefixes = tuple(prefix for card in cards for prefix in _DRIVERS.get(card, ()))
    if any(driver.name.startswith(prefixes) for driver in find_drivers(environ).drivers):
        mend = "see `hesper drivers` for what its driver says"
        yield Finding("host driver", NOTE, f"{text}, whose driver cannot use it", mend)
        return
    package = "nvidia-driver" if "NVIDIA" in cards else "mesa-vulkan-drivers"
    mend = install_command(apt=package)
    yield Finding("host driver", NOTE, f"{text}: its driver is missing", mend)


def _graphics_cards() -> list[str]:
    """Vendors of the graphics cards that the kernel shows."""
    cards = []
    for card in sorted(_CARDS.glob("card[0-9]/device/vendor")):
        vendor = card.read_text(encoding="utf-8").strip()
        cards.append(_VENDORS.get(vendor, f"vendor {vendor}"))
    return cards


@_check
def _venus(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Mesa's Venus, which clients on this machine need (`hesper run`, containers)."""
    search = {
        key: value
        for key, value in environ.items()
        if key not in {"VK_DRIVER_FILES", "VK_ICD_FILENAMES"}
    }
    guests = [driver for driver in find_drivers(search).drivers if driver.name == "virtio"]
    mend = install_command(
        apt="mesa-vulkan-drivers", pacman="vulkan-virtio", dnf="mesa-vulkan-drivers"
    )
    if not guests:
        text = "Mesa's Venus driver is not installed: `hesper run` cannot work on this machine"
        yield Finding("Venus client", NOTE, f"{text} (virtual machines bring their own)", mend)
        return
    version = venus_version(guests[0].library_path)
    if version is None:
        yield Finding("Venus client", NOTE, f"{guests[0].manifest}: its library is missing", mend)
        return
    text = f"Mesa {version} ({guests[0].manifest})"
    if _numbers(version) < VENUS_MINIMUM:
        wanted = ".".join(map(str, VENUS_MINIMUM))
        text += f"; too old, {wanted} or newer is needed (docs: Installing)"
        yield Finding("Venus client", NOTE, text, mend)
        return
    yield Finding("Venus client", OK, text)


def venus_version(library: str) -> str | None:
    """Version of the Mesa that a driver library belongs to; None where it is not to be found."""
    folders = ["", *os.environ.get("LD_LIBRARY_PATH", "").split(":")]
    folders += [f"/usr/lib/{architecture()}-linux-gnu", "/usr/lib64", "/usr/lib"]
    for folder in folders:
        path = os.path.join(folder, library)
        if not os.path.isfile(path):
            continue
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
            found = re.search(rb"\0(\d{2}\.\d+\.\d+[\w.~+-]*)\0", content)
            return found[1].decode() if found else None
    return None


@_check
def _qemu(_: Mapping[str, str]) -> Iterator[Finding]:
    """QEMU, which only virtual machines need."""
    name = f"qemu-system-{architecture()}"
    mend = install_command(apt="qemu-system", brew="qemu", pacman="qemu-full", dnf="qemu-kvm")
    offered = _apt_offers("qemu-system")
    if offered and _numbers(offered) < QEMU_MINIMUM:
        wanted = ".".join(map(str, QEMU_MINIMUM))
        mend = f"take QEMU {wanted} from your release's backports: apt would install {offered}"
    program = shutil.which(name)
    if program is None:
        yield Finding("QEMU", NOTE, f"{name} is not installed (only `hesper vm` needs it)", mend)
        return
    try:
        answer = _printed(program, "--version")
    except OSError as error:
        yield Finding("QEMU", NOTE, f"{program} cannot be run: {error}", mend)
        return
    found = re.search(r"version (\d+\.\d+\S*)", answer)
    if found is None or _numbers(found[1]) < QEMU_MINIMUM:
        version = found[1] if found else "of unknown version"
        wanted = ".".join(map(str, QEMU_MINIMUM))
        yield Finding(
            "QEMU", NOTE, f"{version} is too old for `hesper vm`: {wanted} is needed", mend
        )
        return
    kvm = Path("/dev/kvm")
    speed = ""
    if kvm.exists() and not os.access(kvm, os.R_OK | os.W_OK):
        yield Finding(
            "QEMU",
            NOTE,
            f"{found[1]}; /dev/kvm may not be opened: machines will be slow",
            "sudo usermod -aG kvm $USER   (then log in again)",
        )
        return
    if kvm.exists():
        speed = ", /dev/kvm can be opened"
    yield Finding("QEMU", OK, f"{found[1]}{speed}")


def _apt_offers(package: str) -> str:
    """The version that apt would install; empty without apt, and for what it does not know."""
    if not shutil.which("apt-cache"):
        return ""
    try:
        answer = _printed("apt-cache", "policy", package)
    except OSError:
        return ""
    found = re.search(r"Candidate: (?:\d+:)?(\d\S*)", answer)
    return found[1] if found else ""


def _printed(*command: str) -> str:
    """What another program prints.

    Raises `OSError` when it cannot be run (it may be for another processor, or lack a library), and
    when it does not end.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env={**os.environ, "LC_ALL": "C"},
            timeout=PROGRAM_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"it has not ended after {PROGRAM_SECONDS:g} s") from None
    if done.returncode:
        raise OSError(first_words(done.stderr, done.returncode))
    return done.stdout


def _numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def guest_only(driver: Driver) -> str:
    """Why a driver is not for hosts; empty when it is."""
    return GUEST_DRIVERS.get(driver.name, GUEST_DRIVERS["virtio"]) if driver.is_guest else ""
