"""What `hesper vm` can be told of a machine, and the machine that it makes of that."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from hesper import log
from hesper.cli._sizes import parse_size
from hesper.portable import physical_memory
from hesper.vm.cloud import Seed, made_up_password, own_key, seed_arguments
from hesper.vm.devices import parse_shares, usb_arguments
from hesper.vm.disks import DiskBoot, FileKind, disk_boot, file_kind
from hesper.vm.firmware import Firmware, find_firmware
from hesper.vm.machine import LEAST_MEMORY, Disk, Machine, default_cpus, default_memory
from hesper.vm.qemu import Qemu, host_architecture
from hesper.vm.uefi_console import name_screen

CLOUD_USER = "guest"

_log = log.get_logger(__name__)


@Parameter(name="*")
@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """What the machine is like."""

    kernel: Path | None = None
    """Boot this Linux kernel instead of a disk."""
    initrd: Path | None = None
    """Initial RAM file system for the kernel."""
    append: str = ""
    """Command line of the kernel."""
    arch: Literal["x86_64", "aarch64"] | None = None
    """Architecture of the guest. Default: the kernel's, else this host's."""
    memory: Annotated[str, Parameter(metavar="SIZE")] = ""
    """Memory of the guest, as in 8G. Default: a quarter of the host's, 4G at most."""
    cpus: int = 0
    """Processors of the guest. Default: the host's, 4 at most."""
    accel: Literal["hvf", "kvm", "tcg"] | None = None
    """How the guest runs. Default: the first of hvf, kvm and tcg (emulation) that works here."""
    uefi: Annotated[bool, Parameter(negative=())] = False
    """Boot with UEFI firmware, as aarch64 and disks that have no other boot code always do. The
    guest's UEFI variables are kept beside the first disk."""
    port: Annotated[tuple[str, ...], Parameter(metavar="HOST:GUEST", negative=())] = ()
    """Forward a TCP port of this machine's loopback to one of the guest, as in 2222:22. Can be
    repeated."""
    network: bool = True
    """Give the guest a network, behind this machine's."""
    audio: str | None = None
    """QEMU's audio driver, or `none` for a guest without sound. Default: the first that works
    here."""
    serial: str = "none"
    """The guest's serial port: `stdio`, `none`, or what QEMU's -serial takes."""
    snapshot: Annotated[bool, Parameter(negative=())] = False
    """Forget what the guest writes to its disks when it ends."""
    share: Annotated[tuple[str, ...], Parameter(metavar="DIR[:ro]", negative=())] = ()
    """Let the guest mount a folder: `mount -t 9p -o trans=virtio share /mnt`; the second is
    `share2`. Can be repeated."""
    usb: Annotated[tuple[str, ...], Parameter(metavar="VENDOR:PRODUCT", negative=())] = ()
    """Give the guest a USB device of this host, as lsusb shows it, or BUS.DEVICE. Can be
    repeated."""
    cloud: Annotated[bool, Parameter(negative=())] = False
    """The disk is a distribution's cloud image: give it a user `guest`, who may use sudo, and
    Mesa's packages at its first start."""
    ssh_key: Path | None = None
    """Public key that may log in to a cloud image. Default: this user's first; with none a
    password is made up and printed."""
    qmp: Path | None = None
    """Where you get a monitor of QEMU's (QMP)."""
    dual_gpu: Annotated[bool, Parameter(negative=())] = False
    """Give the guest a second GPU, QEMU's own, for its desktop; Hesper's only renders."""
    qemu: str | None = None
    """How to run QEMU, where it is not found by itself."""


def architecture_of(options: MachineOptions, boot: DiskBoot) -> str:
    """The guest's architecture: what was said, else what is booted, else the host's.

    Raises `OSError`, `QemuError`, and `ValueError` for a kernel of another than was said.
    """
    if options.kernel is not None:
        kind = file_kind(options.kernel)
        found = kind.value if kind.is_kernel else None
        if found and options.arch and found != options.arch:
            raise ValueError(f"--arch {options.arch}: {options.kernel} is a kernel for {found}")
    else:
        found = boot.architecture
    if found and not options.arch:
        _log.info("the guest's architecture is that of what it boots", architecture=found)
    return options.arch or found or host_architecture()


def boot(disks: Sequence[Disk]) -> DiskBoot:
    """How the disk is booted; nothing is known where it is a CD that is.  Raises `OSError`."""
    if not disks or any(disk.kind is FileKind.ISO for disk in disks):
        return DiskBoot(False, None)
    return disk_boot(disks[0].path, disks[0].kind)


def describe(
    options: MachineOptions,
    architecture: str,
    qemu: Qemu,
    disks: Sequence[Disk],
    boot: DiskBoot,
    extra: Sequence[str],
    *,
    folder: Path,
) -> Machine:
    """Describe the machine.  Raises `OSError`, `ValueError`, `FirmwareError`."""
    if options.qmp is not None and not options.qmp.absolute().parent.is_dir():
        raise ValueError(f"--qmp {options.qmp}: there is no folder {options.qmp.parent}")
    devices = [word for text in options.usb for word in usb_arguments(text)]
    if options.cloud:
        devices += seed_arguments(folder / "seed")
    firmware = variables = None
    uefi = options.uefi or architecture == "aarch64" or boot.uefi_only
    if options.kernel is None and uefi:
        firmware = find_firmware(architecture, qemu.command[-1])
        variables = _variables(firmware, disks, folder, kept=not options.snapshot)
        if not options.dual_gpu:
            name_screen(variables)
    return Machine(
        architecture=architecture,
        gpu_socket=folder / "gpu",
        monitor_socket=folder / "qmp",
        memory=_memory(options.memory),
        cpus=options.cpus or default_cpus(),
        disks=disks,
        kernel=options.kernel,
        initrd=options.initrd,
        append=options.append,
        firmware=firmware,
        firmware_variables=variables,
        accelerator=options.accel,
        audio=options.audio,
        network=options.network,
        ports=[_port(text) for text in options.port],
        serial=options.serial,
        dual_gpu=options.dual_gpu,
        snapshot=options.snapshot,
        shares=parse_shares(options.share),
        devices=devices,
        user_monitor=options.qmp,
        extra=extra,
    )


def _memory(text: str) -> int:
    """Bytes of memory for the guest.  Raises `ValueError` for what no guest can have here."""
    if not text:
        return default_memory()
    size = parse_size(text)
    if size < LEAST_MEMORY:
        raise ValueError(f"--memory {text}: too little for a guest; say it with a unit, as in 4G")
    if size > physical_memory():
        raise ValueError(
            f"--memory {text}: this host has {physical_memory() / (1 << 30):.1f}G in all"
        )
    return size


def _variables(firmware: Firmware, disks: Sequence[Disk], folder: Path, *, kept: bool) -> Path:
    """Where the guest's UEFI variables are: beside its disk, so that it finds its boot entry.

    kept: whether what the guest writes there is.
    """
    disk = next((disk for disk in disks if disk.kind is not FileKind.ISO), None)
    beside = None if disk is None else disk.path.with_name(f"{disk.path.name}.uefi")
    if beside is not None and kept:
        firmware.copy_variables(beside)
        return beside
    path = folder / "uefi"
    if beside is not None and beside.exists():
        firmware = dataclasses.replace(firmware, variables=beside)
    firmware.copy_variables(path)
    return path


def write_seed(options: MachineOptions, image: Path, folder: Path) -> None:
    """Write what a cloud image is told.  Raises `OSError`, `ValueError`."""
    key = own_key(options.ssh_key)
    password = "" if key else made_up_password()
    # The same image is told the same at its next start, which is then none that is the first.
    Seed(instance=f"hesper-{image.stem}", user=CLOUD_USER, key=key, password=password).write(folder)
    how = f"password {password}, if this is its first start" if password else "your SSH key"
    print(f"the guest's user is {CLOUD_USER}: {how}", flush=True)


def _port(text: str) -> tuple[int, int]:
    """Parse `HOST:GUEST`.  Raises `ValueError`."""
    host, separator, guest = text.partition(":")
    if not separator or not host.isdecimal() or not guest.isdecimal():
        raise ValueError(f"--port {text}: must be HOST:GUEST, as in 2222:22")
    return int(host), int(guest)
