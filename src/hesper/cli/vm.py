"""Run a virtual machine with the host's GPU in it."""

from __future__ import annotations

import dataclasses
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from hesper import log
from hesper.cli import EXIT_FAILURE, fail
from hesper.cli._gpu import (
    DeviceOptions,
    DisplayOptions,
    Stop,
    running,
    wait,
)
from hesper.cli._signals import STOPPING, handled
from hesper.cli._sizes import parse_size
from hesper.cli._watch import WatchOptions
from hesper.portable import physical_memory, private_folder
from hesper.sandbox.helper import harden
from hesper.vm.disks import DiskBoot, FileKind, check_disk, disk_boot, file_kind
from hesper.vm.firmware import Firmware, FirmwareError, find_firmware
from hesper.vm.machine import (
    LEAST_MEMORY,
    Disk,
    Machine,
    default_cpus,
    default_memory,
)
from hesper.vm.monitor import Monitor
from hesper.vm.process import QemuProcess
from hesper.vm.qemu import Qemu, QemuError, host_architecture

STOP_PATIENCE = 10.0
"""Seconds that QEMU has to end once it has been told to."""

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
    """QEMU's audio driver, or `none`. Default: the first that works here."""
    serial: str = "none"
    """The guest's serial port: `stdio`, `none`, or what QEMU's -serial takes."""
    dual_gpu: Annotated[bool, Parameter(negative=())] = False
    """Give the guest a second GPU, QEMU's own, for its desktop; Hesper's only renders."""
    qemu: str | None = None
    """How to run QEMU, where it is not found by itself."""


def command(
    *words: Annotated[str, Parameter(allow_leading_hyphen=False)],
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    machine: MachineOptions = MachineOptions(),
    device: DeviceOptions = DeviceOptions(),  # noqa: B008  frozen
    display: DisplayOptions = DisplayOptions(),  # noqa: B008  frozen
    watch: WatchOptions = WatchOptions(),  # noqa: B008  frozen
) -> None:
    """Run a virtual machine with the host's GPU in it.

    Files are disk images and ISO images (which are booted first). What follows `--` is passed to
    QEMU. Ctrl-C presses the guest's power button; a second one ends the machine at once.

    Examples: `hesper vm debian.qcow2`, `hesper vm disk.qcow2 install.iso`,
    `hesper vm --kernel vmlinuz --initrd initrd.img --append console=ttyS0 --serial stdio`

    Parameters
    ----------
    words:
        Disk images, ISO images, and QEMU's arguments after `--`.
    dry_run:
        Print how QEMU would be run, and do nothing else.
    machine:
        What the machine is like.
    device:
        What the GPU is like.
    display:
        Where the screens are shown.
    watch:
        How it can be seen what programs do.
    """
    log.configure(level=device.log_level)
    log.take_over("asyncio", "aiohttp")
    files, extra = _split(words)
    if not files and machine.kernel is None:
        fail("nothing to boot: name a disk image, an ISO image, or --kernel")
    if machine.dual_gpu:
        device = dataclasses.replace(device, scanouts=0)
    with private_folder() as folder:
        try:
            disks = [Disk(path, check_disk(path)) for path in files]
            boot = _boot(disks)
            architecture = _architecture(machine, boot)
            qemu = Qemu.find(architecture, machine.qemu)
            guest = _machine(machine, architecture, qemu, disks, boot, extra, folder=folder)
            arguments = [*qemu.command, *guest.arguments(qemu)]
            device = device.fitting(guest, qemu)
        except (QemuError, FirmwareError, ValueError) as error:
            fail(str(error))
        except OSError as error:
            fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        if dry_run:
            print(shlex.join(arguments))
            return
        status = _run(arguments, guest, device, display, watch)
    raise SystemExit(status)


def _split(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Tell files from what came after `--`, which the command line's parser leaves out."""
    extra = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    files = [Path(word) for word in words[: len(words) - len(extra)]]
    return files, extra


def _architecture(options: MachineOptions, boot: DiskBoot) -> str:
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


def _boot(disks: Sequence[Disk]) -> DiskBoot:
    """How the disk is booted; nothing is known where it is a CD that is.  Raises `OSError`."""
    if not disks or any(disk.kind is FileKind.ISO for disk in disks):
        return DiskBoot(False, None)
    return disk_boot(disks[0].path, disks[0].kind)


def _machine(
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
    firmware = variables = None
    uefi = options.uefi or architecture == "aarch64" or boot.uefi_only
    if options.kernel is None and uefi:
        firmware = find_firmware(architecture, qemu.command[-1])
        variables = _variables(firmware, disks, folder)
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


def _variables(firmware: Firmware, disks: Sequence[Disk], folder: Path) -> Path:
    """Where the guest's UEFI variables are: beside its disk, so that it finds its boot entry."""
    disk = next((disk for disk in disks if disk.kind is not FileKind.ISO), None)
    path = folder / "uefi" if disk is None else disk.path.with_name(f"{disk.path.name}.uefi")
    firmware.copy_variables(path)
    return path


def _port(text: str) -> tuple[int, int]:
    """Parse `HOST:GUEST`.  Raises `ValueError`."""
    host, separator, guest = text.partition(":")
    if not separator or not host.isdecimal() or not guest.isdecimal():
        raise ValueError(f"--port {text}: must be HOST:GUEST, as in 2222:22")
    return int(host), int(guest)


def _run(
    arguments: list[str],
    guest: Machine,
    device: DeviceOptions,
    display: DisplayOptions,
    watch: WatchOptions,
) -> int:
    """Run the machine; returns the exit status."""
    stop = Stop()
    interrupts = 0
    # A guest whose serial port is our terminal must be in its foreground, and gets its Ctrl-C.
    on_terminal = "stdio" in guest.serial
    monitor: Monitor | None = None

    def signalled(number: int) -> None:
        nonlocal interrupts
        interrupts += 1
        if monitor is None or number != signal.SIGINT or interrupts > 1 or on_terminal:
            stop()
            return
        print("asking the guest to shut down; Ctrl-C again ends it at once", flush=True)
        monitor.power_down()

    with (
        handled(STOPPING, signalled),
        running(guest.gpu_socket, device.options(), display, watch, stop, kind="vm") as (
            gpu,
            outputs,
        ),
    ):
        try:
            process = QemuProcess(arguments, own_group=not on_terminal)
        except OSError as error:
            fail(f"cannot run {arguments[0]}: {error.strerror}")
        # Now: QEMU is not ours to confine.
        harden(device.sandbox)
        threading.Thread(target=_watch, args=[process, stop], daemon=True).start()

        def welcome() -> None:
            print(f"GPU: {gpu.about.device} ({gpu.about.driver})")
            print(*outputs.places, sep="\n", flush=True)

        monitor = Monitor(str(guest.monitor_socket), gpu.display, outputs, stop.fail, welcome)
        monitor.start()
        wait(stop, gpu.display, window=display.window)
        status = _end(process, monitor)
    return EXIT_FAILURE if stop.failed else status


def _watch(process: QemuProcess, stop: Stop) -> None:
    """End all when QEMU ends."""
    process.wait()
    stop()


def _end(process: QemuProcess, monitor: Monitor) -> int:
    """End QEMU, or say how it has ended; returns the exit status as a shell has it."""
    by_itself = process.poll() is not None
    if not by_itself:
        monitor.quit()
        try:
            process.wait(STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            _log.warning("QEMU does not end: killing it", seconds=STOP_PATIENCE)
            process.kill()
    status = process.wait_for_end()
    if by_itself and status < 0:
        _log.error("QEMU has ended", signal=signal.Signals(-status).name)
    elif by_itself and status > 0:
        _log.error("QEMU has ended", status=status)
    return status if status >= 0 else 128 - status
