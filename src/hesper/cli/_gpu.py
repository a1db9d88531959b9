"""Options that `gpu` and `vm` share: the device, its outputs, and running both."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from hesper import GpuDevice, Limits
from hesper.api.gpu import GpuOptions
from hesper.api.recording import record_screens
from hesper.cli import fail
from hesper.cli._recording import Recorded
from hesper.cli._server import Patience, check_classes, parse_class, parse_limit
from hesper.cli._signals import handled
from hesper.cli._sizes import parse_size
from hesper.display.access.places import Access, UnixPath, listen_on
from hesper.display.record import Recorder, RecordError
from hesper.display.scanout import DEFAULT_SIZE, Display, Size
from hesper.display.snapshot import save_all
from hesper.display.surface import check_size
from hesper.extras import needed
from hesper.log import get_logger
from hesper.portable import page_size, raise_descriptor_limit
from hesper.sandbox import groups
from hesper.vm.agent import AgentServer
from hesper.vm.outputs import (
    VNC_DEFAULT,
    WEB_DEFAULT,
    OutputOptions,
    Outputs,
    parse_place,
)
from hesper.vm.qemu import QemuError
from hesper.vm.qemu_window import QemuWindow, qemu_window
from hesper.vm.window import address_bits, largest_window

if TYPE_CHECKING:
    from hesper.cli._watch import WatchOptions
    from hesper.display.sound import SoundSource
    from hesper.vm.machine import Machine
    from hesper.vm.qemu import Qemu

GPU = Group("GPU", sort_key=1)
DISPLAY = Group("Display", sort_key=2)

GUEST_PAGE = 4096
"""What a guest's pages are as a rule."""

MAX_PASSWORD_FILE = 4096

_log = get_logger(__name__)


def parse_resolution(text: str) -> Size:
    """Parse `WIDTHxHEIGHT`.  Raises `ValueError`."""
    width, separator, height = text.lower().partition("x")
    if not separator or not width.isdecimal() or not height.isdecimal():
        raise ValueError(f"{text!r} is no resolution: it must be WIDTHxHEIGHT, as in 1920x1080")
    size = Size(int(width), int(height))
    check_size(size)
    return size


def _check(parse: Any) -> Any:
    """Make a validator of `parse`."""

    def validate(_: object, values: Any) -> None:
        for value in (values,) if isinstance(values, str) else values or ():
            parse(value)

    return validate


@Parameter(name="*", group=GPU)
@dataclass(frozen=True, kw_only=True)
class DeviceOptions(Recorded):
    """What the guest's GPU is like."""

    driver: str | None = None
    """The host's Vulkan driver: its name (see `hesper drivers`) or its manifest. Default: the one
    that can do most for guests."""
    host_profile: str | None = None
    """Show guests no more than another driver would offer: a file, `moltenvk` or `kosmickrisp`."""
    emulate: bool = True
    """Supply what the driver lacks, where that is sound: null descriptors, which OpenGL (zink) and
    Direct3D (DXVK) want. Default: yes."""
    limit: Annotated[
        tuple[str, ...],
        Parameter(metavar="NAME=NUMBER", validator=_check(parse_limit), negative=()),
    ] = field(default=())
    """What one program in the guest may use at most: memory, objects, devices, rings and others,
    as in `memory=8G`. Can be repeated."""
    class_: Annotated[
        tuple[str, ...],
        Parameter(
            name="--class", metavar="NAME:KEY=VALUE,...", validator=check_classes, negative=()
        ),
    ] = field(default=())
    """A class of programs in the guest, as in `game:weight=4,program=supertuxkart`: limits of its
    own, as of --limit, its weight where programs share the GPU's time, and their names. Can be
    repeated."""
    shares: bool = True
    """Share the GPU's time among programs in the guest by their weights. Default: yes."""
    patience: Patience = None
    """Microseconds for which threads stay awake for what the guest may send next: fewer delays,
    more processor time. Default: 500 with a GPU and four processors or more, else 0."""
    sandbox: Literal["on", "report", "off"] = "on"
    """How the processes are confined that run guests' commands. `report` logs what would be
    refused, for a driver that needs more."""
    shader_cache: Literal["client", "off"] = "client"
    """Whether compiled shaders are kept for the machine's next start; its programs share them. A
    program that takes over its worker can forge them for the others."""
    max_contexts: int = GpuOptions.max_contexts
    """Programs in the guest that may use the GPU at a time. Each has a process on the host."""
    blob_alignment: bool = True
    """Tell the guest how large this host's pages are, where they are larger than 4 KiB. Without it
    a guest with Linux 7.2 or later whose Mesa is older than 26.2.4 has Venus if its pages are as
    large, else its software driver, and no program fails. Default: yes."""
    scanouts: int = 1
    """Monitors, 0 to 16. With 0 the GPU only renders, beside another that shows."""
    resolution: Annotated[str, Parameter(metavar="WxH", validator=_check(parse_resolution))] = (
        f"{DEFAULT_SIZE.width}x{DEFAULT_SIZE.height}"
    )
    """Their first size; viewers change it."""
    hostmem: Annotated[str, Parameter(metavar="SIZE", validator=_check(parse_size))] = (
        f"{GpuOptions.hostmem >> 30}G"
    )
    """Guest address space in which the GPU's memory can be mapped; a power of two. It costs
    nothing, but must hold all that programs map at a time."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Log what is at least as important as this."""

    def window(self, qemu: Qemu, kind: str) -> QemuWindow:
        """QEMU's of the screens.  Raises `QemuError`."""
        try:
            return qemu_window(
                qemu,
                kind,
                scanouts=self.scanouts,
                size=parse_resolution(self.resolution),
                hostmem=parse_size(self.hostmem),
            )
        except QemuError as error:
            raise QemuError(f"--qemu-window {kind}: {error}") from None

    def fitting(self, guest: Machine, qemu: Qemu) -> DeviceOptions:
        """The same with a `hostmem` that `guest` has addresses for.

        Raises `ValueError` where the user wants more.
        """
        bits = address_bits(guest, qemu)
        most = largest_window(guest.architecture, bits, guest.memory)
        if parse_size(self.hostmem) <= most:
            return self
        room = f"{most >> 30}G" if most >> 30 else f"{most >> 20}M"
        if self.hostmem != DeviceOptions.hostmem:
            raise ValueError(
                f"--hostmem {self.hostmem}: this guest has addresses of {bits} bits, which leave"
                f" {room} at most"
            )
        _log.warning(
            "the guest has few addresses: programs can map less of the GPU's memory at a time",
            bits=bits,
            hostmem=room,
        )
        return replace(self, hostmem=room)

    def options(self, *, mode: int = 0o600, group: str | None = None) -> GpuOptions:
        """The options for a device.  mode, group: of its socket.  Raises `OptionError`."""
        limits = Limits(**dict(map(parse_limit, self.limit)))
        return GpuOptions(
            driver=self.driver,
            host_profile=self.host_profile,
            emulate=self.emulate,
            limits=limits,
            classes=tuple(parse_class(each, limits) for each in self.class_),
            shares=self.shares,
            patience=self.patience,
            sandbox=self.sandbox,
            shader_cache=self.shader_cache,
            scanouts=self.scanouts,
            resolution=parse_resolution(self.resolution),
            hostmem=parse_size(self.hostmem),
            max_contexts=self.max_contexts,
            blob_alignment=self.blob_alignment,
            record=self.recording,
            mode=mode,
            group=group,
        )


@Parameter(name="*", group=DISPLAY)
@dataclass(frozen=True, kw_only=True)
class DisplayOptions:
    """Where the guest's screens are shown."""

    vnc: Annotated[str, Parameter(metavar="HOST:PORT")] = str(VNC_DEFAULT)
    """Serve VNC there, the first screen at that port, the next at the next; on a Unix socket with
    `unix:PATH`; or not at all with `off`. Where others can connect, with TLS (VeNCrypt)."""
    vnc_password_file: Path | None = None
    """File with the password of VNC. Default: one is made up and printed; none for a Unix socket,
    where only you can connect."""
    vnc_no_password: Annotated[bool, Parameter(negative=())] = False
    """Let every user of this machine see and drive the guest by VNC."""
    web: Annotated[str, Parameter(metavar="HOST:PORT")] = str(WEB_DEFAULT)
    """Serve a web page with the screens there; on a Unix socket with `unix:PATH`; or not at all
    with `off`. Where others can connect, by HTTPS."""
    tls_certificate: Path | None = None
    """PEM file with the certificate for VNC and the web page where others can connect. Default: one
    is made for this user, and kept."""
    tls_key: Path | None = None
    """PEM file with its private key. Default: it is in the file with the certificate."""
    clipboard: bool = True
    """Share text that is copied: what viewers copy the guest can paste, and the other way round.
    The guest needs spice-vdagent for that."""
    sound: bool = True
    """Let the web page play the guest's sound, for whoever switches it on there."""
    window: Annotated[bool, Parameter(negative=())] = False
    """Show the screens in windows of this desktop."""
    qemu_window: Annotated[str | None, Parameter(metavar="DISPLAY")] = None
    """Show the screens in QEMU's own window, too: gtk, sdl, spice-app or what else its -display
    takes that draws with OpenGL; `none` to add -spice yourself. Needs a QEMU whose
    vhost-user-gpu-pci shares memory with guests, which none up to 11.1 does."""
    frames_per_second: float = 60.0
    """Most pictures a second that viewers get."""
    video: Path | None = None
    """Record the first screen to this video file: .avi, or with ffmpeg .mp4, .mkv, .webm, .gif."""
    screenshot: Path | None = None
    """Write the first screen's picture to this PNG file whenever SIGUSR1 comes, the second's to the
    same with `-2`, and so on."""

    @property
    def hears(self) -> bool:
        """Whether Hesper hears the guest, which is by a VNC server of QEMU's.

        QEMU has none beside a window of its own (see `vm.qemu_window`).
        """
        return self.sound and self.web != "off" and self.qemu_window is None

    def output_options(self) -> OutputOptions:
        """The options for the outputs.  Ends the program when they cannot be."""
        if self.vnc_no_password and self.vnc_password_file is not None:
            fail("--vnc-no-password and --vnc-password-file: choose one of them")
        if self.tls_key is not None and self.tls_certificate is None:
            fail("--tls-key: it is of no use without --tls-certificate")
        certificate = (self.tls_certificate, self.tls_key) if self.tls_certificate else None
        try:
            return OutputOptions(
                vnc=None if self.vnc == "off" else parse_place(self.vnc, VNC_DEFAULT),
                vnc_password=_password(self.vnc_password_file),
                vnc_open=self.vnc_no_password,
                web=None if self.web == "off" else parse_place(self.web, WEB_DEFAULT),
                certificate=certificate,
                clipboard=self.clipboard,
                frames_per_second=self.frames_per_second,
            )
        except (OSError, ValueError) as error:
            fail(str(error))

    def check(self) -> None:
        """End the program when what is asked for cannot be had here."""
        if self.screenshot is not None and not self.screenshot.absolute().parent.is_dir():
            fail(f"--screenshot {self.screenshot}: there is no folder {self.screenshot.parent}")
        if self.window:
            with needed("--window", "window"):
                import hesper.display.window.app  # noqa: F401  whether it is there


def _password(path: Path | None) -> str | None:
    """Read the password of VNC.  Raises `OSError` and `ValueError`."""
    if path is None:
        return None
    with path.open(encoding="utf-8") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            _log.warning("other users may read the password of VNC", file=str(path))
        return file.read(MAX_PASSWORD_FILE).rstrip("\n")


class Stop:
    """Tells the main thread that all is to end; safe from threads and signal handlers."""

    def __init__(self) -> None:
        """Nothing is to end yet."""
        self.event = threading.Event()
        self.failed = False

    def __call__(self) -> None:
        """End."""
        self.event.set()

    def fail(self) -> None:
        """End, because something cannot go on."""
        self.failed = True
        self.event.set()


@contextlib.contextmanager
def sharing(path: Path | None, access: Access = Access()) -> Iterator[Callable[[Outputs], None]]:  # noqa: B008  immutable
    """Listen for the guest's agent at `path`, if there is to be one; gives what starts to share.

    Outputs have to end before this does: they listen on its socket.  Raises as `listen_on` does.
    """
    if path is None:
        yield lambda _: None
        return
    with contextlib.closing(listen_on(UnixPath(path), local=True, access=access)) as sockets:
        yield lambda outputs: AgentServer(sockets.sockets[0], outputs).start()


@contextlib.contextmanager
def running(
    socket: Path,
    gpu_options: GpuOptions,
    options: DisplayOptions,
    watch: WatchOptions,
    stop: Stop,
    *,
    kind: str,
    sound: SoundSource | None = None,
) -> Iterator[tuple[GpuDevice, Outputs]]:
    """Run a device at `socket` and its outputs.  Ends the program when they cannot start.

    kind: the command that it is.  sound: the guest's, for the web page.
    """
    watch.check()
    raise_descriptor_limit()
    if gpu_options.sandbox == "on":
        groups.settle()
    wanted = options.output_options()
    options.check()
    with contextlib.ExitStack() as stack:
        try:
            gpu = stack.enter_context(GpuDevice(socket, gpu_options, on_end=stop.fail))
            outputs = stack.enter_context(Outputs(gpu.display, wanted, gpu.figures, sound))
            stack.enter_context(_files(gpu.display, options))
            if gpu_options.record is not None:
                stack.enter_context(record_screens(gpu.display, gpu_options.record))
            stack.enter_context(watch.watched(gpu, kind, lambda: [gpu.socket], gpu.display))
        except OSError as error:
            stack.close()
            fail(str(error))
        if gpu.about.notice:
            _log.warning(gpu.about.notice)
        if page_size() > GUEST_PAGE:
            _log.info(
                "this host has larger pages than most guests",
                bytes=page_size(),
                remedy="guests need Linux 7.2 and Mesa 26.2.4, or older Linux with pages as large",
            )
        yield gpu, outputs


@contextlib.contextmanager
def _files(display: Display, options: DisplayOptions) -> Iterator[None]:
    """Write pictures and videos as asked.  Raises `RecordError` and `OSError`."""
    if (options.video or options.screenshot) and not len(display):
        raise RecordError("there is no screen to take pictures of")
    with contextlib.ExitStack() as stack:
        if options.screenshot is not None:
            path = options.screenshot
            stack.enter_context(handled([signal.SIGUSR1], lambda _: _save(display, path)))
        recorder = Recorder(display[0], options.video) if options.video is not None else None
        if recorder is not None:
            recorder.__enter__()
        try:
            yield
        finally:
            if recorder is not None:
                try:
                    recorder.__exit__(None, None, None)
                except (OSError, RecordError) as error:
                    _log.error("the video is incomplete", reason=str(error))


def _save(display: Display, path: Path) -> None:
    try:
        save_all(display, path)
    except OSError as error:
        _log.error("no picture", reason=str(error))


def wait(stop: Stop, display: Display, *, window: bool) -> None:
    """Wait for `stop`, showing windows meanwhile if they are wanted.

    Closing the last window stops, too; so does it when there can be none.  On the main thread.
    """
    if not window:
        stop.event.wait()
        return
    from hesper.display.window.app import WindowError, run_windows

    try:
        run_windows(display, stop.event)
    except WindowError as error:
        remedy = "without --window, VNC and the web page show the screens"
        _log.error("no windows", reason=str(error), remedy=remedy)
        stop.fail()
