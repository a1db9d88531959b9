"""Run a virtual machine with the host's GPU in it."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from hesper import log
from hesper.cli import EXIT_FAILURE, _daemon, _machines, fail
from hesper.cli._gpu import (
    DeviceOptions,
    DisplayOptions,
    Stop,
    running,
    sharing,
    wait,
)
from hesper.cli._machine import MachineOptions, architecture_of, boot, describe, write_seed
from hesper.cli._signals import STOPPING, handled
from hesper.cli._watch import WatchOptions
from hesper.display.access.places import UnixPath, listen_on
from hesper.portable import never_garbage, private_folder
from hesper.sandbox.helper import harden
from hesper.vm import raw_disks, registry
from hesper.vm.control import Control
from hesper.vm.disks import FileKind, check_disk
from hesper.vm.firmware import FirmwareError
from hesper.vm.firmware_screen import FirmwareScreen
from hesper.vm.machine import Disk, Machine
from hesper.vm.monitor import Monitor
from hesper.vm.process import QemuProcess
from hesper.vm.qemu import VGA, Qemu, QemuError
from hesper.vm.sound import QemuSound

if TYPE_CHECKING:
    from hesper import GpuDevice
    from hesper.vm.outputs import Outputs

STOP_PATIENCE = 10.0
"""Seconds that QEMU has to end once it has been told to."""

_log = log.get_logger(__name__)

command = App(name="vm", help="Run a virtual machine with the host's GPU in it.")
_machines.add_to(command)


@command.default
def run(
    *words: Annotated[str, Parameter(allow_leading_hyphen=False)],
    name: str = "",
    daemon: Annotated[bool, Parameter(negative=())] = False,
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    machine: MachineOptions = MachineOptions(),  # noqa: B008  frozen
    device: DeviceOptions = DeviceOptions(),  # noqa: B008  frozen
    display: DisplayOptions = DisplayOptions(),  # noqa: B008  frozen
    watch: WatchOptions = WatchOptions(),  # noqa: B008  frozen
) -> None:
    """Run a virtual machine with the host's GPU in it.

    Files are disk images and ISO images (which are booted first). What follows `--` is passed to
    QEMU. Ctrl-C presses the guest's power button; a second one ends the machine at once.

    A machine has a name, by which `hesper vm list`, `show`, `stop`, `screenshot` and `send-key`
    know it while it runs.

    Examples: `hesper vm debian.qcow2`, `hesper vm disk.qcow2 install.iso`,
    `hesper vm --kernel vmlinuz --initrd initrd.img --append console=ttyS0 --serial stdio`

    Parameters
    ----------
    words:
        Disk images, ISO images, and QEMU's arguments after `--`.
    name:
        The machine's name. Default: the first disk's.
    daemon:
        Run it in the background; return once it runs.
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
    _check(files, machine, daemon=daemon)
    if machine.dual_gpu:
        device = dataclasses.replace(device, scanouts=0)
    with private_folder() as folder:
        try:
            disks = [Disk(path, check_disk(path)) for path in files]
            booted = boot(disks)
            architecture = architecture_of(machine, booted)
            qemu = Qemu.find(architecture, machine.qemu)
            guest = describe(machine, architecture, qemu, disks, booted, extra, folder=folder)
            if machine.cloud and not dry_run and not daemon:
                write_seed(machine, files[0], folder / "seed")
            if device.scanouts:
                guest = _shared(guest, display, qemu, folder)
            device = device.fitting(guest, qemu)
            if display.qemu_window is not None:
                window = device.window(qemu, display.qemu_window)
                guest = dataclasses.replace(guest, window=window)
            arguments = [*qemu.command, *guest.arguments(qemu)]
        except (QemuError, FirmwareError, ValueError) as error:
            fail(str(error))
        except OSError as error:
            fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        if dry_run:
            print(shlex.join(arguments))
            return
        taken = set(registry.names())
        if name in taken:
            fail(f"a machine {name} runs already: choose another --name")
        own = name or registry.name_for(files[0] if files else machine.kernel or Path(), taken)
        if daemon:
            line = _daemon.without_daemon(sys.argv[2:])
            _daemon.run_apart(own, ["vm", *([] if name else ["--name", own]), *line])
            return
        status = _run(arguments, guest, device, display, watch, own)
    raise SystemExit(status)


def _check(files: Sequence[Path], machine: MachineOptions, *, daemon: bool) -> None:
    """End the program where something does not go together."""
    if not files and machine.kernel is None:
        fail("nothing to boot: name a disk image, an ISO image, or --kernel")
    if machine.cloud and not files:
        fail("--cloud: name the image")
    if daemon and "stdio" in machine.serial:
        fail("--daemon: there is no terminal for --serial stdio")


def _split(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Tell files from what came after `--`, which the command line's parser leaves out."""
    extra = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    files = [Path(word) for word in words[: len(words) - len(extra)]]
    return files, extra


def _remember(guest: Machine) -> None:
    """Keep in mind which disks the guest may write to byte by byte."""
    for disk in guest.disks:
        if disk.kind is FileKind.RAW and not guest.snapshot:
            raw_disks.remember(disk.path)


def _run(
    arguments: list[str],
    guest: Machine,
    device: DeviceOptions,
    display: DisplayOptions,
    watch: WatchOptions,
    name: str,
) -> int:
    """Run the machine; returns the exit status."""
    _remember(guest)
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

    options = dataclasses.replace(device.options(), machine=_booted(guest) or name)
    with (
        handled(STOPPING, signalled),
        contextlib.closing(listen_on(UnixPath(registry.socket_of(name)), local=True)) as door,
        sharing(guest.agent_socket) as share,
        running(
            guest.gpu_socket,
            options,
            display,
            watch,
            stop,
            kind="vm",
            sound=QemuSound(guest.sound_socket) if guest.sound_socket is not None else None,
        ) as (gpu, outputs),
    ):
        share(outputs)
        try:
            process = QemuProcess(arguments, own_group=not on_terminal)
        except OSError as error:
            fail(f"cannot run {arguments[0]}: {error.strerror}")
        never_garbage()
        # Now: QEMU is not ours to confine.
        harden(device.sandbox)
        threading.Thread(target=_watch, args=[process, stop], daemon=True).start()

        facts = _facts(name, guest) | {"gpu": f"{gpu.about.device} ({gpu.about.driver})"}

        firmware = _firmware_screen(guest, gpu, outputs)

        def welcome() -> None:
            control.start()
            firmware()
            print(f"GPU: {facts['gpu']}")
            print(*outputs.places, sep="\n", flush=True)

        path = str(guest.monitor_socket)
        monitor = Monitor(path, gpu.display, outputs, stop.fail, welcome, firmware)
        control = Control(door.sockets[0], facts, gpu.display, outputs, monitor, stop)
        monitor.start()
        wait(stop, gpu.display, window=display.window)
        status = _end(process, monitor)
    return EXIT_FAILURE if stop.failed else status


def _shared(guest: Machine, display: DisplayOptions, qemu: Qemu, folder: Path) -> Machine:
    """The same with what its viewers see and share of it beside the GPU's screens."""
    heard = display.hears and guest.audio != "none" and qemu.has_vnc
    # A VNC server of QEMU's, which has none beside a window of its own.
    has_vnc = qemu.has_vnc and display.qemu_window is None
    seen = guest.wants_vga and has_vnc and qemu.has_device(VGA)
    return dataclasses.replace(
        guest,
        agent_socket=folder / "agent" if display.clipboard else None,
        sound_socket=folder / "sound" if heard else None,
        vga_socket=folder / "vga" if seen else None,
    )


def _firmware_screen(guest: Machine, gpu: GpuDevice, outputs: Outputs) -> Callable[[], None]:
    """What shows the firmware's picture at the machine's start, and when it starts over."""
    if guest.vga_socket is None:
        return lambda: None
    return FirmwareScreen(guest.vga_socket, gpu.display[0], outputs).start


def _booted(guest: Machine) -> str:
    """Path of what a machine boots; empty where that is not known."""
    boots = guest.kernel or next((disk.path for disk in guest.disks), None)
    return "" if boots is None else str(boots.absolute())


def _facts(name: str, guest: Machine) -> dict[str, Any]:
    """What is said of a machine that is asked for by its name."""
    return {
        "name": name,
        "architecture": guest.architecture,
        "memory": guest.memory,
        "cpus": guest.cpus,
        "boots": _booted(guest),
        "disks": [str(disk.path.absolute()) for disk in guest.disks],
        "qmp": "" if guest.user_monitor is None else str(guest.user_monitor.absolute()),
    }


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
