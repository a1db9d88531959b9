"""The QEMU of this host: which one, and what it can do here.  Asked and tried, not guessed."""

from __future__ import annotations

import functools
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from hesper.errors import HesperError, first_words
from hesper.portable import architecture

LEAST_VERSION = (11, 1)
DEVICE = "vhost-user-test-device-pci"
VGA = "isa-cirrus-vga"
"""For what a PC shows before its guest's driver does (see `vm.firmware_screen`)."""
ACCELERATORS = ("hvf", "kvm", "tcg")
"""Best first."""
AUDIO = ("coreaudio", "pipewire", "pa", "sdl", "alsa")
"""Best first."""
DIRECT_AUDIO = ("sdl", "alsa")
"""Those that open a device themselves; without one they start all the same, and then complain."""
MEMORY_BACKENDS = ("memory-backend-memfd", "memory-backend-shm")
"""Best first: a memfd needs no room in /dev/shm."""
SOUND_DEVICES = Path("/dev/snd")
"""Linux's."""
TRY_SECONDS = 120.0
"""For QEMU to answer; emulated, or on a busy machine, it has taken more than twenty."""

ARCHITECTURES = ("x86_64", "aarch64")

_INSTALL = "install QEMU 11.1 or later (Debian: from trixie-backports or sid; Homebrew: qemu)"


class QemuError(HesperError):
    """QEMU is missing or cannot do what is needed; the text says what to do."""


def host_architecture() -> str:
    """The architecture of this host, as QEMU calls it.  Raises `QemuError` for others."""
    machine = architecture()
    if machine not in ARCHITECTURES:
        raise QemuError(f"no guests on a host of architecture {machine}")
    return machine


class Qemu:
    """One QEMU binary."""

    def __init__(self, command: Sequence[str]) -> None:
        """`command`: how it is run, without arguments."""
        self.command = list(command)

    @classmethod
    def find(cls, architecture: str, command: str | None = None) -> Qemu:
        """Return a QEMU for guests of `architecture` that can have Hesper's device.

        command: what to run instead of `qemu-system-ARCHITECTURE`.  Raises `QemuError`.
        """
        words = shlex.split(command) if command else [f"qemu-system-{architecture}"]
        if not words or shutil.which(words[0]) is None:
            raise QemuError(f"there is no {command or words[0]}: {_INSTALL}")
        qemu = cls(words)
        found = qemu.version
        if found < LEAST_VERSION:
            version = ".".join(map(str, found))
            raise QemuError(f"{words[-1]} is version {version}, which is too old: {_INSTALL}")
        if not qemu.has_device(DEVICE):
            raise QemuError(f"{words[-1]} was built without {DEVICE}: {_INSTALL}")
        return qemu

    @property
    def path(self) -> str | None:
        """The program's whole path; None where it is run by another program."""
        return shutil.which(self.command[0]) if len(self.command) == 1 else None

    @functools.cached_property
    def version(self) -> tuple[int, int]:
        """Major and minor.  Raises `QemuError` when it is no QEMU, or one that cannot start."""
        done = self._run("--version")
        match = re.search(r"version (\d+)\.(\d+)", done.stdout)
        if match is None:
            why = first_words(done.stderr.strip() or done.stdout, done.returncode)
            raise QemuError(f"{shlex.join(self.command)} does not say which QEMU it is: {why}")
        return int(match[1]), int(match[2])

    def ask(self, *arguments: str) -> str:
        """Return what QEMU prints.  Raises `QemuError` when it cannot be run."""
        return self._run(*arguments).stdout

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [*self.command, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TRY_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise QemuError(f"{shlex.join(self.command)} cannot be run: {error}") from None

    def has_device(self, name: str) -> bool:
        """Whether it was built with that device.  Raises `QemuError` when it cannot be run."""
        return f'"{name}"' in self._devices

    @functools.cached_property
    def _devices(self) -> str:
        return self.ask("-device", "help")

    def works_with(self, *arguments: str) -> bool:
        """Whether QEMU starts with `arguments`."""
        command = [*self.command, "-nodefaults", "-machine", "none", "-display", "none", *arguments]
        try:
            done = subprocess.run(
                [*command, "-monitor", "stdio"],
                input=b"quit\n",
                capture_output=True,
                timeout=TRY_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0

    @functools.cached_property
    def accelerator(self) -> str:
        """The best accelerator that works here."""
        known = self.ask("-accel", "help").split()
        return next(
            name
            for name in ACCELERATORS
            if name == "tcg" or (name in known and self.works_with("-accel", name))
        )

    @functools.cached_property
    def audio(self) -> str:
        """The best audio driver that works here; `none` if none does."""
        known = self.ask("-audiodev", "help").split()
        no_device = "coreaudio" not in known and not any(SOUND_DEVICES.glob("pcmC*"))
        for name in AUDIO:
            if no_device and name in DIRECT_AUDIO:
                continue
            if name in known and self.works_with("-audiodev", f"{name},id=audio"):
                return name
        return "none"

    @functools.cached_property
    def has_vnc(self) -> bool:
        """Whether it was built with a VNC server; those that are not do not start with one."""
        return self.works_with("-vnc", "none")

    @functools.cached_property
    def memory_backend(self) -> str:
        """The best object for memory that can be shared.  Raises `QemuError` without any."""
        known = self.ask("-object", "help").split()
        for name in MEMORY_BACKENDS:
            if name in known:
                return name
        raise QemuError(f"{shlex.join(self.command)} has no memory that can be shared: {_INSTALL}")
