"""Be the GPU of a virtual machine, for a QEMU that you start."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hesper import log
from hesper.cli import EXIT_FAILURE
from hesper.cli._gpu import DeviceOptions, DisplayOptions, Stop, running, wait
from hesper.cli._signals import STOPPING, handled
from hesper.cli._watch import WatchOptions
from hesper.sandbox.helper import harden
from hesper.vm.libvirt import libvirt_xml
from hesper.vm.machine import MACHINES, gpu_arguments, memory_arguments
from hesper.vm.qemu import Qemu, QemuError, host_architecture


def command(
    *,
    socket: Annotated[Path, Parameter(negative=())],
    print_qemu: Annotated[bool, Parameter(negative=())] = False,
    print_libvirt: Annotated[bool, Parameter(negative=())] = False,
    device: DeviceOptions = DeviceOptions(),  # noqa: B008  frozen
    display: DisplayOptions = DisplayOptions(),  # noqa: B008  frozen
    watch: WatchOptions = WatchOptions(),  # noqa: B008  frozen
) -> None:
    """Be the GPU of a virtual machine, for a QEMU that you start.

    QEMU 11.1 or later connects to the socket; its arguments are printed. One machine at a time;
    when it has gone, the next may come. Runs until Ctrl-C or SIGTERM.

    The screens are Hesper's to show: QEMU has no display for this device. Keyboard and pointer
    reach the guest by QEMU's monitor, which only `hesper vm` sets up.

    Parameters
    ----------
    socket:
        Where QEMU connects.
    print_qemu:
        Print QEMU's arguments and do nothing else.
    print_libvirt:
        Print the XML for libvirt and do nothing else.
    device:
        What the GPU is like.
    display:
        Where the screens are shown.
    watch:
        How it can be seen what programs do.
    """
    log.configure(level=device.log_level)
    log.take_over("asyncio", "aiohttp")
    path = socket.absolute()
    device.options()  # what cannot be is said before anything is printed
    if print_qemu:
        print(_qemu_line(path))
        return
    if print_libvirt:
        print(libvirt_xml(path))
        return
    stop = Stop()
    with (
        handled(STOPPING, lambda _: stop()),
        running(path, device, display, watch, stop, kind="gpu") as (gpu, outputs),
    ):
        print(f"ready on {path} with {gpu.about.device} ({gpu.about.driver})")
        for place in outputs.places:
            print(place)
        print(f"QEMU: {_qemu_line(path)}", flush=True)
        harden(device.sandbox)
        wait(stop, gpu.display, window=display.window)
    if stop.failed:
        raise SystemExit(EXIT_FAILURE)


def _qemu_line(socket: Path) -> str:
    """The arguments as one would type them, of this host's QEMU; memory of 4 GiB stands for any."""
    machine, backend = "q35", "memory-backend-shm"
    # Without a QEMU here there is one elsewhere, perhaps; it can do that.
    with contextlib.suppress(QemuError):
        architecture = host_architecture()
        machine = MACHINES[architecture]
        backend = Qemu.find(architecture).memory_backend
    memory = memory_arguments(backend, 4 << 30)
    arguments = [*memory, "-machine", f"{machine},memory-backend=ram", *gpu_arguments(socket)]
    return shlex.join(arguments)
