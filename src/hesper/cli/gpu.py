"""Be the GPU of a virtual machine, for a QEMU that you start."""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hesper import log
from hesper.cli import EXIT_FAILURE, fail
from hesper.cli._gpu import DeviceOptions, DisplayOptions, Stop, running, sharing, wait
from hesper.cli._server import permissions
from hesper.cli._signals import STOPPING, handled
from hesper.cli._watch import WatchOptions
from hesper.display.access.places import UnixPath, listen_on
from hesper.portable import never_garbage
from hesper.sandbox.helper import harden
from hesper.vm.libvirt import libvirt_xml
from hesper.vm.machine import (
    INPUT_ARGUMENTS,
    MACHINES,
    agent_arguments,
    gpu_arguments,
    memory_arguments,
    monitor_arguments,
    sleep_arguments,
    sound_arguments,
)
from hesper.vm.monitor_server import MonitorServer
from hesper.vm.qemu import Qemu, QemuError, host_architecture
from hesper.vm.sound import QemuSound

if TYPE_CHECKING:
    from hesper.vm.qemu_window import QemuWindow

MEMORY = 4 << 30
"""Bytes; stand for any in what is printed."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SocketOptions:
    """Where QEMU connects, and whose may."""

    socket: Annotated[Path, Parameter(negative=())]
    """Where QEMU connects for the GPU."""
    monitor: Path | None = None
    """Where QEMU connects its monitor. Default: the socket's name with `.monitor`."""
    agent: Path | None = None
    """Where QEMU connects the guest's agent, for its clipboard. Default: the socket's name with
    `.agent`."""
    sound_socket: Path | None = None
    """Where QEMU listens, and lets Hesper hear what the guest plays. Default: the socket's name
    with `.sound`."""
    socket_mode: str = "0600"
    """Permissions of the sockets, in octal: whose QEMU may connect. If their folder is missing it
    is made, with permissions to match."""
    socket_group: str | None = None
    """Group of the sockets, and of that folder, as `libvirt-qemu`."""


def command(
    *,
    where: SocketOptions,
    print_qemu: Annotated[bool, Parameter(negative=())] = False,
    print_libvirt: Annotated[bool, Parameter(negative=())] = False,
    device: DeviceOptions = DeviceOptions(),  # noqa: B008  frozen
    display: DisplayOptions = DisplayOptions(),  # noqa: B008  frozen
    watch: WatchOptions = WatchOptions(),  # noqa: B008  frozen
) -> None:
    """Be the GPU of a virtual machine, for a QEMU that you start.

    QEMU 11.1 or later connects to the sockets; its arguments are printed. One machine at a time;
    when it has gone, the next may come. Runs until Ctrl-C or SIGTERM.

    The screens are Hesper's to show: QEMU has no display for this device. Keyboard and pointer
    reach the guest by QEMU's monitor, which connects to the second socket; text that is copied by
    the guest's agent (spice-vdagent), whose serial port connects to the third. What the guest plays
    is heard on the web page by a socket that QEMU makes, beside the others.

    Parameters
    ----------
    where:
        Where QEMU connects, and whose may.
    print_qemu:
        Print QEMU's arguments and do nothing else.
    print_libvirt:
        Print a domain's XML for libvirt and do nothing else.
    device:
        What the GPU is like.
    display:
        Where the screens are shown.
    watch:
        How it can be seen what programs do.
    """
    log.configure(level=device.log_level)
    log.take_over("asyncio", "aiohttp")
    path = where.socket.absolute()
    monitor = (where.monitor or path.with_name(f"{path.name}.monitor")).absolute()
    agent = (where.agent or path.with_name(f"{path.name}.agent")).absolute()
    has_screens = bool(device.scanouts)
    shared = agent if display.clipboard and has_screens else None
    heard = (where.sound_socket or path.with_name(f"{path.name}.sound")).absolute()
    sound = heard if display.hears and has_screens else None
    # What cannot be is said before anything is printed.
    mode = permissions("--socket-mode", where.socket_mode)
    options = device.options(mode=mode, group=where.socket_group)
    window = None if display.qemu_window is None else _window(device, display.qemu_window)
    line = _qemu_line(path, monitor, shared, sound, window, has_screens=has_screens)
    if print_qemu:
        print(line)
        return
    if print_libvirt:
        print(_libvirt(path, monitor, shared, window, has_screens=has_screens))
        return
    stop = Stop()
    # The monitor's socket is bound first and closed last: the outputs' thread listens on it.
    with (
        handled(STOPPING, lambda _: stop()),
        contextlib.closing(
            listen_on(UnixPath(monitor), local=True, access=options.access)
        ) as sockets,
        sharing(shared, options.access) as share,
        running(
            path,
            options,
            display,
            watch,
            stop,
            kind="gpu",
            sound=QemuSound(sound) if sound is not None else None,
        ) as (gpu, outputs),
    ):
        MonitorServer(sockets.sockets[0], gpu.display, outputs).start()
        share(outputs)
        print(f"ready on {path} with {gpu.about.device} ({gpu.about.driver})")
        for place in outputs.places:
            print(place)
        print(f"QEMU: {line}", flush=True)
        never_garbage()
        harden(device.sandbox)
        wait(stop, gpu.display, window=display.window)
    if stop.failed:
        raise SystemExit(EXIT_FAILURE)


def _window(device: DeviceOptions, kind: str) -> QemuWindow:
    """QEMU's of the screens.  Ends the program where it cannot be had."""
    try:
        return device.window(Qemu.find(host_architecture()), kind)
    except QemuError as error:
        fail(str(error))


def _qemu_line(
    socket: Path,
    monitor: Path,
    agent: Path | None,
    sound: Path | None,
    window: QemuWindow | None,
    *,
    has_screens: bool,
) -> str:
    """The arguments as one would type them, of this host's QEMU."""
    architecture, machine, backend = "x86_64", "q35", "memory-backend-shm"
    # Without a QEMU here there is one elsewhere, perhaps; it can do that.
    with contextlib.suppress(QemuError):
        architecture = host_architecture()
        machine = MACHINES[architecture]
        qemu = Qemu.find(architecture)
        backend = qemu.memory_backend
        sound = sound if qemu.has_vnc else None
    arguments = [
        *memory_arguments(backend, MEMORY),
        *("-machine", f"{machine},memory-backend=ram"),
        *gpu_arguments(socket, window),
        *(window.arguments if window is not None else ()),
        *sleep_arguments(architecture),
        # A PC has a screen of QEMU's own unless it is told not to.
        *(("-vga", "none") if has_screens else ()),
        *monitor_arguments(monitor),
        *INPUT_ARGUMENTS,
        *(agent_arguments(agent) if agent is not None else ()),
        *(sound_arguments("none", sound) if sound is not None else ()),
    ]
    return shlex.join(arguments)


def _libvirt(
    socket: Path,
    monitor: Path,
    agent: Path | None,
    window: QemuWindow | None,
    *,
    has_screens: bool,
) -> str:
    """The domain for a guest of this host's architecture."""
    accelerator, emulator = "kvm", None
    architecture = host_architecture()
    with contextlib.suppress(QemuError):
        qemu = Qemu.find(architecture)
        emulator = qemu.path
        accelerator = qemu.accelerator
    return libvirt_xml(
        socket,
        monitor,
        architecture=architecture,
        memory=MEMORY,
        accelerator=accelerator,
        emulator=emulator,
        has_screens=has_screens,
        agent=agent,
        window=window,
    )
