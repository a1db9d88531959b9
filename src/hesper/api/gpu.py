"""The GPU of a virtual machine: a virtio-gpu device for a VMM that speaks vhost-user."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from hesper.api.checks import check_access, check_kind, check_number
from hesper.api.options import HostOptions, for_workers
from hesper.api.server import WATCH_PATIENCE, Run, Server
from hesper.classes import Classes, ClientClass
from hesper.display.scanout import DEFAULT_SIZE, MAX_SCANOUTS, Display, Size
from hesper.display.surface import check_size
from hesper.errors import HesperError, OptionError, StateError
from hesper.figures import ContextFigures
from hesper.gpu import runner
from hesper.gpu.limits import DEFAULT_CONTEXTS
from hesper.gpu.wire import CONFIG, DEVICE_ID, QUEUE_COUNT
from hesper.isolation.listen import Access
from hesper.portable import group_id, page_size
from hesper.vhost_user_gpu import VhostUserGpu

if TYPE_CHECKING:
    from hesper.isolation.tracing import OnContext

__all__ = [
    "CONFIG_SIZE",
    "DEVICE_ID",
    "QUEUE_COUNT",
    "ContextFigures",
    "Display",
    "GpuDevice",
    "GpuOptions",
    "Size",
]

FIGURES_SECONDS = 0.1
"""In which workers answer, unless they are stuck."""

CONFIG_SIZE = CONFIG.size
"""Bytes of the device's configuration space, which a VMM has to know, as `DEVICE_ID` (the device's
number in virtio) and `QUEUE_COUNT`."""


@dataclass(frozen=True, kw_only=True)
class GpuOptions(HostOptions):
    """What the guest's GPU is like.  Raises `errors.OptionError` for what cannot be."""

    scanouts: int = 1
    """Monitors, 0 to 16; with 0 the GPU only renders."""
    resolution: Size = DEFAULT_SIZE
    """Their first width and height in pixels; viewers change them."""
    hostmem: int = runner.DEFAULT_WINDOW
    """Bytes of guest address space in which the GPU's memory can be mapped: a power of two.  It
    costs nothing, but must hold all that programs map at a time."""
    max_contexts: int = DEFAULT_CONTEXTS
    """Programs in the guest that may use the GPU at a time; each has a process on the host."""
    blob_alignment: bool = True
    """Whether the guest is told how large this host's pages are, where they are larger than most.
    Linux from 7.2 on then refuses all memory of a Mesa before 26.2.4; if it is not told, a guest
    with pages as large has Venus with any Mesa, and one with smaller pages its software driver."""
    classes: tuple[ClientClass, ...] = ()
    """Classes of programs in the guest: what one may use, in place of `limits`, its weight where
    they share the GPU's time, and their names.  Programs in none have `limits` and weight 1, unless
    there is a class `default`."""
    shares: bool = True
    """Whether programs in the guest share the GPU's time by weight, or as the driver has it."""
    machine: str | os.PathLike[str] = ""
    """What tells this virtual machine from others, this time and the next, as the path of its disk:
    compiled shaders are kept for it by that.  Empty: the socket's path."""
    mode: int = 0o600
    """Permissions of the socket's file: whose VMM may connect.  If its folder is missing it is
    made, with permissions to match."""
    group: str | int | None = None
    """Group of the socket's file, and of that folder: its name or number; None: the system's
    choice."""

    def __post_init__(self) -> None:
        """Check them."""
        super().__post_init__()
        check_number("scanouts", self.scanouts, 0, MAX_SCANOUTS, "with 0 the GPU only renders")
        check_number("max_contexts", self.max_contexts, 1, 1 << 12)
        check_kind("machine", self.machine, (str, os.PathLike), "must be a name or a path")
        check_access(self.mode, self.group)
        for each in self.classes:
            check_kind("classes", each, ClientClass, "must be hesper.classes.ClientClass(...)")
            if each.users or each.cgroups:
                must = "may name programs: a guest has users and control groups of its own"
                raise OptionError("class", each.name, must)
        Classes(self.classes, self.limits)  # says what is wrong
        try:
            check_size(Size(*self.resolution))
        except (TypeError, ValueError) as error:
            raise OptionError(
                "resolution", self.resolution, f"must be (width, height): {error}"
            ) from None
        check_number("hostmem", self.hostmem, page_size(), runner.MAX_WINDOW)
        if self.hostmem & (self.hostmem - 1):
            raise OptionError("hostmem", self.hostmem, "must be a power of two, as 8 GiB")

    @property
    def access(self) -> Access:
        """Who may connect."""
        group = group_id(self.group) if isinstance(self.group, str) else self.group
        return Access(self.mode, group)


class _GpuRun(Run):
    """A device, from its first worker to its last."""

    def __init__(self, socket: str, options: GpuOptions) -> None:
        """Nothing is listened on yet."""
        super().__init__()
        wanted = runner.GpuOptions(
            scanouts=options.scanouts,
            size=Size(*options.resolution),
            window=options.hostmem,
            contexts=options.max_contexts,
            blob_alignment=options.blob_alignment,
            worker=for_workers(options),
            classes=Classes(options.classes, options.limits),
            shares=options.shares,
            sandbox=options.sandbox,
            shader_cache=options.shader_cache,
            machine=os.fspath(options.machine) or socket,
        )
        self.gpu = VhostUserGpu(Path(socket), wanted, self._broke, options.access)
        self._over = threading.Event()
        self._is_broken = False

    def _broke(self) -> None:
        self._is_broken = True
        self._over.set()

    def serve(self) -> None:
        try:
            self.gpu.start()
            if not self._over.is_set():
                self.ready([self.gpu.about])
            self._over.wait()
        finally:
            self.gpu.stop()
        if self._is_broken:
            raise HesperError("the GPU cannot go on; the log says why")

    def stop(self, *, at_once: bool) -> None:  # noqa: ARG002  nobody is left to end in order
        self._over.set()

    def survey(self, watch: float) -> list[ContextFigures]:
        runner = self.gpu.runner
        runner.figures(watch)
        # What was asked for is there when it is asked for again.
        time.sleep(FIGURES_SECONDS)
        runner.figures(watch)
        time.sleep(FIGURES_SECONDS)
        return runner.figures(watch)

    def end(self, context: int, why: str) -> bool:
        return self.gpu.runner.end(context, why, WATCH_PATIENCE)

    def trace(self, seconds: float, on_context: OnContext) -> bool:
        return self.gpu.runner.trace(seconds, on_context, WATCH_PATIENCE)

    def end_trace(self, on_context: OnContext) -> None:
        self.gpu.runner.end_trace(on_context)


class GpuDevice(Server):
    """The GPU of one virtual machine at a time, for a QEMU (11.1 or later) that connects to it.

        with hesper.GpuDevice("/run/user/1000/vm/gpu") as gpu:
            outputs = hesper.vm.outputs.Outputs(gpu.display, OutputOptions(), gpu.figures)
            with outputs:               # VNC and a web page
                ...                     # start QEMU, see hesper.vm.machine

    Options are a `GpuDevice.Options` (`hesper.api.gpu.GpuOptions`).  Wants `hesper[display]`.
    """

    Options: TypeAlias = GpuOptions

    def __init__(
        self,
        socket: str | os.PathLike[str],
        options: GpuOptions | None = None,
        *,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        """Nothing is listened on before `start`.

        socket: where the VMM connects; a socket that nobody listens on any more is replaced.
        options: what the GPU is like; None: `GpuOptions()`.
        on_end: called, on a thread of the device, when it ends without having been told to.
        Raises `errors.OptionError`.
        """
        super().__init__(on_end)
        check_kind("socket", socket, (str, os.PathLike), "must be the path of a Unix socket")
        self.options = GpuOptions() if options is None else options
        check_kind("options", self.options, GpuOptions, "must be hesper.GpuDevice.Options(...)")
        self.socket = os.path.abspath(socket)
        """Where the VMM connects."""

    def __str__(self) -> str:
        """As in log lines."""
        return f"GPU at {self.socket}"

    def _begin(self) -> Run:
        return _GpuRun(self.socket, self.options)

    @property
    def display(self) -> Display:
        """What the guest shows, a scanout a monitor; another one after each start.

        Raises `errors.StateError` before the first.
        """
        run = self._run
        if not isinstance(run, _GpuRun) or run.served is None:
            raise StateError(f"{self}: it has no display yet; start() it first")
        return run.gpu.display

    def figures(self) -> list[ContextFigures]:
        """What every program in the guest has done and holds; from any thread."""
        run = self._run
        return run.gpu.runner.figures() if isinstance(run, _GpuRun) and self.is_running else []
