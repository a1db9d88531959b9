"""A virtual machine as arguments of QEMU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hesper.api.gpu import CONFIG_SIZE, DEVICE_ID, QUEUE_COUNT
from hesper.portable import physical_memory
from hesper.vm import qemu_window
from hesper.vm.agent_wire import PORT_NAME
from hesper.vm.devices import Share, escape
from hesper.vm.disks import FileKind
from hesper.vm.qemu import DEVICE, VGA, Qemu

if TYPE_CHECKING:
    from hesper.vm.firmware import Firmware
    from hesper.vm.qemu_window import QemuWindow

QUEUE_SIZE = 256
SLOT = 0x10
"""Slot on the root bus, behind what QEMU places by itself.  Linux sets up GPUs in the order of
their slots, desktops take the first for their own, and Mesa's Venus takes the one made last: with
a second GPU (`--dual-gpu`) each finds the one it can use."""
MAX_DEFAULT_MEMORY = 4 << 30
LEAST_MEMORY = 64 << 20
"""Bytes; what is less was meant to have a unit."""
MAX_DEFAULT_CPUS = 4

MACHINES = {"x86_64": "q35", "aarch64": "virt"}
_DESKTOP_GPUS = {"x86_64": "virtio-vga", "aarch64": "virtio-gpu-pci"}
"""QEMU's own virtio-gpu; on a PC in the variant that the firmware and boot loaders show on."""


def default_memory() -> int:
    """Bytes of memory for a guest: a quarter of the host's, 4 GiB at most, in whole 256 MiB."""
    step = 256 << 20
    return max(min(physical_memory() // 4, MAX_DEFAULT_MEMORY) // step * step, step)


def default_cpus() -> int:
    """Processors for a guest: the host's, 4 at most."""
    return min(os.cpu_count() or 1, MAX_DEFAULT_CPUS)


@dataclass(frozen=True)
class Disk:
    """A disk or a CD."""

    path: Path
    kind: FileKind


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A guest.  `arguments` is how QEMU is to be told."""

    architecture: str
    gpu_socket: Path
    monitor_socket: Path
    memory: int
    """Bytes."""
    cpus: int
    disks: Sequence[Disk] = ()
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    firmware: Firmware | None = None
    firmware_variables: Path | None = None
    """The guest's own copy; goes with `firmware`."""
    agent_socket: Path | None = None
    """Where the guest's agent is connected to; None: it has no port for one."""
    sound_socket: Path | None = None
    """Where QEMU lets Hesper hear what the guest plays (see `vm.sound`); None: nowhere."""
    vga_socket: Path | None = None
    """Where QEMU shows what a PC shows at first (see `vm.firmware_screen`); None: nowhere."""
    accelerator: str | None = None
    """None: the best that works."""
    audio: str | None = None
    """None: the best that works."""
    network: bool = True
    ports: Sequence[tuple[int, int]] = ()
    """Port of this host's loopback and port of the guest."""
    serial: str = "none"
    """As for QEMU's `-serial`."""
    has_gpu: bool = True
    """Whether Hesper's device is in it; a machine that only installs does without."""
    dual_gpu: bool = False
    """Whether QEMU has a virtio-gpu of its own for the desktop, on its own display."""
    window: QemuWindow | None = None
    """How QEMU shows the screens, too; None: it does not."""
    snapshot: bool = False
    """Whether what the guest writes to its disks is forgotten when it ends."""
    shares: Sequence[Share] = ()
    devices: Sequence[str] = ()
    """More arguments, for devices."""
    user_monitor: Path | None = None
    """Where the user gets a monitor (QMP)."""
    extra: Sequence[str] = ()

    def arguments(self, qemu: Qemu) -> list[str]:
        """Return everything after QEMU's name.  Raises `QemuError`."""
        accelerator = self.accelerator or qemu.accelerator
        # "max" has what the emulator can do; "host" needs a processor to pass through.
        cpu = "max" if accelerator == "tcg" else "host"
        return [
            *("-accel", accelerator, "-cpu", cpu, "-smp", str(self.cpus)),
            *("-machine", f"{self._machine()},memory-backend=ram"),
            *memory_arguments(qemu.memory_backend, self.memory),
            "-nodefaults",
            # Without Hesper it would run on with no screen, no input and no GPU.
            *("-run-with", "exit-with-parent=on"),
            *("-serial", self.serial),
            *_monitor(self.monitor_socket),
            *(_monitor(self.user_monitor) if self.user_monitor is not None else ()),
            *(gpu_arguments(self.gpu_socket, self.window) if self.has_gpu else ()),
            *(agent_arguments(self.agent_socket) if self.agent_socket is not None else ()),
            *sleep_arguments(self.architecture),
            *self._display(),
            *self._boot(),
            *self._disks(),
            *self._network(),
            *self._audio(qemu),
            *("-device", "virtio-rng-pci"),
            *INPUT_ARGUMENTS,
            *(word for share in self.shares for word in share.arguments()),
            *self.devices,
            *self.extra,
        ]

    def _machine(self) -> str:
        # Where SeaBIOS's system management code would lie, such a card has its memory: it hangs.
        return f"{MACHINES[self.architecture]}{',smm=off' if self.vga_socket is not None else ''}"

    @property
    def wants_vga(self) -> bool:
        """Whether firmware or a boot loader would show something on a VGA card, and only there."""
        is_pc = self.architecture == "x86_64" and self.firmware is None
        return is_pc and self.kernel is None and not self.dual_gpu

    def _display(self) -> list[str]:
        if self.window is not None:
            return self.window.arguments
        if self.dual_gpu:
            return ["-device", _DESKTOP_GPUS[self.architecture]]
        arguments = ["-display", "none"]
        if self.vga_socket is not None:
            arguments += ["-device", VGA, "-vnc", f"unix:{escape(self.vga_socket)}"]
        return arguments

    def _boot(self) -> list[str]:
        arguments: list[str] = []
        if self.firmware is not None and self.firmware_variables is not None:
            code, variables = escape(self.firmware.code), escape(self.firmware_variables)
            flash = "if=pflash,format=raw"
            arguments += ["-drive", f"{flash},unit=0,readonly=on,file={code}"]
            arguments += ["-drive", f"{flash},unit=1,file={variables}"]
        if self.kernel is not None:
            arguments += ["-kernel", str(self.kernel)]
            if self.initrd is not None:
                arguments += ["-initrd", str(self.initrd)]
            if self.append:
                arguments += ["-append", self.append]
        return arguments

    def _disks(self) -> list[str]:
        """CDs come first when the guest boots: who names one wants to install from it."""
        arguments: list[str] = []
        if any(disk.kind is FileKind.ISO for disk in self.disks):
            arguments += ["-device", "virtio-scsi-pci"]
        order = sorted(self.disks, key=lambda disk: disk.kind is not FileKind.ISO)
        for index, disk in enumerate(order):
            name = f"disk{index}"
            boot = "" if self.kernel is not None else f",bootindex={index}"
            if disk.kind is FileKind.ISO:
                drive, device = "media=cdrom,readonly=on,format=raw", "scsi-cd"
            else:
                drive, device = f"discard=unmap,format={disk.kind.value}", "virtio-blk-pci"
                drive += ",snapshot=on" if self.snapshot else ""
            arguments += ["-drive", f"if=none,id={name},{drive},file={escape(disk.path)}"]
            arguments += ["-device", f"{device},drive={name}{boot}"]
        return arguments

    def _network(self) -> list[str]:
        if not self.network:
            return []
        forward = "".join(f",hostfwd=tcp:127.0.0.1:{host}-:{guest}" for host, guest in self.ports)
        return ["-netdev", f"user,id=net{forward}", "-device", "virtio-net-pci,netdev=net"]

    def _audio(self, qemu: Qemu) -> list[str]:
        audio = self.audio or qemu.audio
        if audio == "none" and self.sound_socket is None:
            return []
        return sound_arguments(audio, self.sound_socket)


def _monitor(socket: Path) -> list[str]:
    return ["-qmp", f"unix:{escape(socket)},server=on,wait=off"]


def memory_arguments(backend: str, size: int) -> list[str]:
    """How the guest's memory is shared with the device; the machine needs memory-backend=ram."""
    return ["-m", f"{size >> 20}M", "-object", f"{backend},id=ram,size={size},share=on"]


def gpu_arguments(socket: Path, window: QemuWindow | None = None) -> list[str]:
    """Return what connects the device at `socket`.  window: QEMU's of its screens."""
    port = f"pcie-root-port,id=gpu-port,chassis={SLOT},addr={SLOT:#x}"
    if window is None:
        name = DEVICE
        properties = (
            f"virtio-id={DEVICE_ID},num_vqs={QUEUE_COUNT}"
            f",vq_size={QUEUE_SIZE},config_size={CONFIG_SIZE}"
        )
    else:
        name, properties = qemu_window.DEVICE, window.properties
    # A guest that sleeps would reset the device, and lose all that is in it.
    device = f"{name},bus=gpu-port,chardev=gpu,{properties},x-pcie-pm-no-soft-reset=on"
    chardev = f"socket,id=gpu,path={escape(socket)}"
    return ["-chardev", chardev, "-device", port, "-device", device]


def sleep_arguments(architecture: str) -> list[str]:
    """Return what leaves a guest the one kind of sleep that its GPU survives, suspend to idle."""
    # Out of suspend to memory QEMU wakes a PC by a reset, which the guest's driver does not expect.
    return ["-global", "ICH9-LPC.disable_s3=1"] if architecture == "x86_64" else []


def monitor_arguments(socket: Path) -> list[str]:
    """Return what connects QEMU's monitor to `vm.monitor_server` at `socket`."""
    return ["-qmp", f"unix:{escape(socket)}"]


def sound_arguments(audio: str, socket: Path | None) -> list[str]:
    """Return a sound card that plays by `audio`, QEMU's audio driver.

    socket: where QEMU is to let Hesper hear it (see `vm.sound`); None: nowhere.
    """
    arguments = ["-audiodev", f"{audio},id=audio"]
    arguments += ["-device", "intel-hda", "-device", "hda-duplex,audiodev=audio"]
    if socket is not None:
        arguments += ["-vnc", f"unix:{escape(socket)},audiodev=audio"]
    return arguments


def agent_arguments(socket: Path) -> list[str]:
    """Return what connects the guest's agent, if it has one, to `vm.agent` at `socket`."""
    chardev = f"socket,id=agent,path={escape(socket)}"
    port = f"virtserialport,chardev=agent,name={PORT_NAME}"
    return ["-chardev", chardev, "-device", "virtio-serial-pci", "-device", port]


INPUT_ARGUMENTS = (
    *("-device", "qemu-xhci", "-device", "usb-kbd", "-device", "usb-tablet"),
    # Keys go here once the guest has a driver for it: its queue is longer, and not polled.
    *("-device", "virtio-keyboard-pci"),
)
"""Keyboard and pointer of the guest."""
