"""A GPU for one virtual machine, whatever its transport: the device on its thread, its workers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from hesper.classes import Classes
from hesper.display.scanout import DEFAULT_SIZE, Display, Size
from hesper.event_loop import EventLoop
from hesper.gpu.device import GpuDevice
from hesper.gpu.limits import DEFAULT_CONTEXTS, Limits
from hesper.gpu.workers import Workers
from hesper.guest import capset
from hesper.limits import Limits as ContextLimits
from hesper.log import get_logger
from hesper.portable import page_size

if TYPE_CHECKING:
    from hesper.figures import ContextFigures
    from hesper.isolation.shader_caches import Scope
    from hesper.isolation.tracing import OnContext
    from hesper.sandbox import Mode

DEFAULT_WINDOW = 8 << 30
MAX_WINDOW = 1 << 40
JOIN_TIMEOUT = 5.0
"""Seconds the device's thread has to end."""

_log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class GpuOptions:
    """What kind of GPU.

    Raises `ValueError` for a window that is not a power of two from a page to `MAX_WINDOW`, and
    for less than one context.
    """

    scanouts: int = 1
    """Monitors; none for a GPU that only renders."""
    size: Size = DEFAULT_SIZE
    """Their first size."""
    window: int = DEFAULT_WINDOW
    """Bytes of guest address space in which host memory can be mapped."""
    contexts: int = DEFAULT_CONTEXTS
    """Programs in the guest that may use the GPU at a time."""
    blob_alignment: bool = True
    """Whether guests are told how large the host's pages are (see `guest_pages`)."""
    worker: dict[str, Any] = field(default_factory=dict)
    """Options of `gpu.service`: driver, profile, limits."""
    classes: Classes = field(default_factory=lambda: Classes((), ContextLimits()))
    """Classes of programs."""
    shares: bool = True
    """Whether programs share the GPU's time by their weights."""
    sandbox: Mode = "on"
    """How workers are confined."""
    shader_cache: Scope = "client"
    """Who shares compiled shaders; programs in the machine do, unless it is `off`."""
    machine: str = ""
    """What the machine's are known by."""

    def __post_init__(self) -> None:
        """Check them."""
        if not page_size() <= self.window <= MAX_WINDOW or self.window & (self.window - 1):
            raise ValueError(
                f"{self.window} bytes of mappable host memory: must be a power of two,"
                f" {MAX_WINDOW >> 30}G at most"
            )
        if self.contexts < 1:
            raise ValueError(f"{self.contexts} contexts: must be 1 at least")


class Attachment(Protocol):
    """Brings VMs to a device: attaches their transports to it."""

    def close(self) -> None:
        """Let go of the VM that is there, and let none in any more.  On the loop's thread."""


Attach: TypeAlias = Callable[[GpuDevice, EventLoop], Attachment]


class GpuRunner:
    """Runs a device.  Life: made, `start`ed once, `stop`ped; each from any thread.

    It installs no signal handlers.
    """

    def __init__(self, options: GpuOptions, ended: Callable[[], None]) -> None:
        """`ended` is called, on a thread, when the device cannot go on."""
        self.about: dict[str, Any] = {}
        """What the workers say of the host's driver: driver, device, notice."""
        self._ended = ended
        self._loop = EventLoop()
        self._stack = contextlib.ExitStack()
        self._stack.callback(self._loop.close)
        self.display = Display(options.scanouts, options.size, self._resized)
        worker = {**options.worker, "window": options.window}
        self._workers = Workers(
            worker,
            warm=1,
            contexts=options.contexts,
            classes=options.classes,
            shares=options.shares,
            sandbox=options.sandbox,
            shaders_of=None if options.shader_cache == "off" else options.machine,
        )
        self._device = GpuDevice(
            self.display,
            self._loop,
            connect=self._workers.connect,
            capset=capset(),
            window=options.window,
            limits=Limits(contexts=options.contexts),
            blob_alignment=options.blob_alignment,
        )

    def _resized(self, scanout: object) -> None:
        self._device.post_display_event(scanout)

    def start(self, attach: Attach) -> None:
        """Start the workers, then the device; `attach` is called before its loop runs.

        Raises `errors.StartError`, and what `attach` raises.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(self.stop)
            self.about = self._workers.start(self._ended)
            self._stack.callback(self._workers.stop)
            attachment = attach(self._device, self._loop)
            thread = threading.Thread(target=self._run, args=[attachment], name="device")
            thread.start()
            self._stack.callback(self._stop_loop, thread)
            undo.pop_all()

    def stop(self) -> None:
        """End every context, the device and its workers.  May be called again."""
        self._stack.close()

    def _run(self, attachment: Attachment) -> None:
        try:
            self._loop.run()
        except Exception:
            # A mistake of ours; the VMM sees the connection end.
            _log.exception("the device has failed")
            self._ended()
        finally:
            attachment.close()
            self._device.close()

    def _stop_loop(self, thread: threading.Thread) -> None:
        self._loop.stop()
        thread.join(JOIN_TIMEOUT)

    def figures(self, seconds: float = 0.0) -> list[ContextFigures]:
        """Return what every context does; from any thread.  See `Survey.figures`."""
        return self._device.survey.figures(seconds)

    def end(self, number: int, why: str, patience: float) -> bool:
        """End a context, by its number; whether there is one.  From any other thread."""
        return self._on_loop(lambda: self._device.survey.end(number, why), patience)

    def trace(self, seconds: float, on_context: OnContext, patience: float) -> bool:
        """Trace all contexts for so long, see `Survey.trace`.  From any other thread."""
        return self._on_loop(lambda: self._device.survey.trace(seconds, on_context), patience)

    def end_trace(self, on_context: OnContext) -> None:
        """Tell `on_context` of no contexts any more.  From any thread."""
        self._loop.call(lambda: self._device.survey.end_trace(on_context))

    def _on_loop(self, action: Callable[[], bool], patience: float) -> bool:
        """Call `action` on the device's thread; what it says, False after so many seconds."""
        found: list[bool] = []
        over = threading.Event()

        def call() -> None:
            found.append(action())
            over.set()

        self._loop.call(call)
        over.wait(patience)
        return found == [True]
